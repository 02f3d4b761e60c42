"""torchvision's ResNets with attention, any width and a stem for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from attnscope.networks.attention import build_attention

RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}


class _AttentionBasicBlock(BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """A BasicBlock with ``attention`` on the residual branch, before the addition."""

    attention: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.attention(self.bn2(self.conv2(out)))
        out = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return out


class _AttentionBottleneck(Bottleneck):  # type: ignore[misc]
    """A Bottleneck with ``attention`` on the residual branch, before the addition."""

    attention: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.attention(self.bn3(self.conv3(out)))
        out = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return out


class _ResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with any width and, for small images, a 3×3 stem."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: list[int],
        *,
        num_classes: int,
        width: int,
        stem: str,
        channels: int,
    ) -> None:
        self.width = width  # set first, because ResNet.__init__ calls _make_layer
        super().__init__(block, layers, num_classes=num_classes)
        if stem == "cifar":
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        elif (width, channels) != (64, 3):
            self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(8 * width * block.expansion, num_classes)

    def _make_layer(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        if planes == 64:  # layer1, whose input is the output of the stem
            self.inplanes = self.width
        layer: nn.Sequential = super()._make_layer(
            block, planes * self.width // 64, blocks, stride, dilate
        )
        return layer


def build_resnet(
    name: str,
    attention: str,
    placement: str,
    stem: str,
    num_classes: int,
    reduction: int,
    kernel_size: int,
    width: int,
    channels: int,
) -> _ResNet:
    """Build a ResNet with attention in each block or after each stage.

    The arguments are those of `attnscope.networks.build.build_model`, without defaults.
    """
    block, layers = RESNETS[name]
    in_blocks = attention != "none" and placement == "block"
    if in_blocks:
        block = _AttentionBasicBlock if block is BasicBlock else _AttentionBottleneck
    model = _ResNet(
        block, layers, num_classes=num_classes, width=width, stem=stem, channels=channels
    )
    if attention == "none":
        return model
    for number in range(4):
        stage = getattr(model, f"layer{number + 1}")
        for parent in stage if in_blocks else [stage]:
            parent.add_module(
                "attention",
                build_attention(
                    attention,
                    width * 2**number * block.expansion,
                    reduction=reduction,
                    kernel_size=kernel_size,
                ),
            )
    return model
