"""A small convolutional network with attention for images of 32×32 pixels."""

from __future__ import annotations

from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.networks.attention import build_attention


class ConvBlock(nn.Module):
    """3×3 convolution, BatchNorm, ReLU, 2×2 max-pooling, attention."""

    def __init__(self, inputs: int, outputs: int, attention: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.attention = attention or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(N, inputs, H, W)`` to ``(N, outputs, H / 2, W / 2)``."""
        out: Tensor = self.attention(nn.functional.max_pool2d(self.bn(self.conv(x)).relu(), 2))
        return out


class SmallCNN(nn.Module):
    """Three convolution blocks (32, 64, 128 channels) and two linear layers, for 32×32 images."""

    def __init__(
        self, attention: str, num_classes: int, reduction: int, kernel_size: int, channels: int = 3
    ) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> ConvBlock:
            gate = None
            if attention != "none":
                gate = build_attention(
                    attention, outputs, reduction=reduction, kernel_size=kernel_size
                )
            return ConvBlock(inputs, outputs, gate)

        self.block1, self.block2 = block(channels, 32), block(32, 64)
        self.block3 = block(64, 128)
        self.hidden = nn.Linear(2048, 512)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, channels, 32, 32)`` to logits ``(N, num_classes)``.

        Raises:
            InputError: The images have another size.
        """
        features: Tensor = self.block3(self.block2(self.block1(x)))
        if features.shape[-2:] != (4, 4):
            height, width = x.shape[-2:]
            raise InputError(
                "AS313",
                f"the network 'cnn' needs images of 32×32 pixels, but got {height}×{width}; "
                "set --image-size 32",
            )
        logits: Tensor = self.fc(self.dropout(self.hidden(features.flatten(1)).relu()))
        return logits
