"""Build a network by name, find its attention modules, and take gates out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from attnscope.errors import InputError
from attnscope.networks.attention import attention_names, start_as_identity
from attnscope.networks.cnn import ConvBlock, SmallCNN
from attnscope.networks.resnet import RESNETS, build_resnet
from attnscope.networks.static import GatesInTurn, StoredConstant, StoredMap

MODEL_NAMES = (*RESNETS, "cnn")
PLACEMENTS = ("block", "stage")
STEMS = ("cifar", "imagenet")
GATE_STARTS = ("half", "identity")
STATIC_FORMS = ("norm", "constant", "map")
"""What a static gate is: a factor within the weight and bias of the BatchNorm before it, a stored
constant, or a stored map."""


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a network again: the arguments of `build_model`, and `folded`."""

    name: str
    attention: str
    num_classes: int
    reduction: int
    kernel_size: int
    placement: str | None
    """``block`` or ``stage``; None for the cnn."""
    stem: str | None
    """``cifar`` or ``imagenet``; None for the cnn."""
    width: int | None
    """Channels of layer1; None for the cnn."""
    gate_start: str = "half"
    """``half`` or ``identity``; with identity, gates are between 0 and 2."""
    folded: dict[str, str] = field(default_factory=dict)
    """Names of the gates that are static -> one of `STATIC_FORMS`; see `attnscope.folding`."""


@dataclass(frozen=True)
class AttentionPlace:
    """An attention module, and what it gates."""

    path: str
    module: nn.Module
    channels: int
    """Of the features that it gates."""
    norm: nn.BatchNorm2d | None
    """The BatchNorm whose weight and bias scale these features: directly before the module, or with
    nothing between but ReLU and max-pooling, which commute with factors of 0 or more. None after a
    stage, where a shortcut was added in between."""

    @property
    def gates(self) -> dict[str, nn.Module]:
        """Name -> the submodule that makes the gate, in the order in which they act."""
        return {f"{self.path}.{kind}": gate for kind, gate in self.module.named_children()}


def build_model(
    name: str = "resnet18",
    *,
    attention: str = "none",
    placement: str | None = None,
    stem: str | None = None,
    num_classes: int = 10,
    reduction: int = 16,
    kernel_size: int = 7,
    width: int | None = None,
    gate_start: str = "half",
) -> nn.Module:
    """A network for RGB images ``(N, 3, H, W)`` that returns logits ``(N, num_classes)``.

    Args:
        name: resnet18, resnet34, resnet50, resnet101, resnet152 or cnn.
        attention: none, se, eca, cbam, or one that was registered.
        placement: ``block`` (default: on each residual branch after its last BatchNorm, before the
            addition) or ``stage`` (after each of layer1 to layer4).
        stem: ``cifar`` (default: 3×3, stride 1, no max-pool) or ``imagenet`` (7×7, stride 2).
        num_classes: the number of logits.
        reduction: channels over hidden channels in the MLP of a channel gate.
        kernel_size: of the convolution of a spatial gate, in pixels; odd.
        width: channels of layer1 (default 64); layer4 has eight times as many.
        gate_start: ``half`` (a sigmoid, near 0.5 at first) or ``identity`` (twice a sigmoid, 1 at
            first, so that a pretrained network stays what it is).

    The network carries its :class:`ModelConfig` as ``attnscope_config``.

    Raises:
        InputError: a name is not known, or an argument does not apply to this network.
    """
    _check_known("network", name, MODEL_NAMES)
    _check_known("attention", attention, attention_names())
    _check_known("gate start", gate_start, GATE_STARTS)
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; it must be 1 or more")
    model: nn.Module
    if name == "cnn":
        given = {"placement": placement, "stem": stem, "width": width}
        for argument, value in given.items():
            if value is not None:
                raise InputError(f"{argument} does not apply to the network 'cnn'; leave it out")
        model = SmallCNN(attention, num_classes, reduction, kernel_size)
    else:
        placement = "block" if placement is None else placement
        stem = "cifar" if stem is None else stem
        width = 64 if width is None else width
        _check_known("placement", placement, PLACEMENTS)
        _check_known("stem", stem, STEMS)
        # Below 16, oneDNN (torch 2.14 on a CPU) writes beyond its memory in the backward of a 1×1
        # convolution with stride 2 where the batch is odd.
        if width < 16:
            raise InputError(f"width is {width}; it must be 16 or more")
        model = build_resnet(
            name, attention, placement, stem, num_classes, reduction, kernel_size, width
        )
    if gate_start == "identity":
        for place in attention_places(model):
            start_as_identity(place.module)
    model.attnscope_config = ModelConfig(
        name, attention, num_classes, reduction, kernel_size, placement, stem, width, gate_start
    )
    return model


def attention_places(model: nn.Module) -> list[AttentionPlace]:
    """The attention modules of a network of `build_model` that have gates, in their order."""
    found = []
    for path, owner in model.named_modules():
        module = dict(owner.named_children()).get("attention")
        if module is None or isinstance(module, nn.Identity):
            continue
        after_stage = isinstance(owner, nn.Sequential)
        block = list(owner.children())[-2] if after_stage else owner
        # Of a residual block the last norm of its branch; that of the shortcut is in `downsample`.
        name = "bn" if isinstance(block, ConvBlock) else "bn2"
        norm = block.get_submodule("bn3" if isinstance(block, Bottleneck) else name)
        assert isinstance(norm, nn.BatchNorm2d)
        found.append(
            AttentionPlace(
                f"{path}.attention", module, norm.num_features, None if after_stage else norm
            )
        )
    return found


def make_static(model: nn.Module, forms: Mapping[str, str], values: Mapping[str, Tensor]) -> None:
    """Takes gates out of a network of `build_model`, or puts stored values in their place.

    Args:
        model: is changed in place, its config with it; the weights of BatchNorms are the caller's.
        forms: name of each gate that becomes static -> one of `STATIC_FORMS`.
        values: of those that are stored, in the shape in which they multiply: ``(1, C, 1, 1)``,
            ``(1, 1, 1, 1)`` or, of a map, ``(1, 1, H, W)``.
    """
    for place in attention_places(model):
        if not forms.keys() & place.gates.keys():
            continue
        left: dict[str, nn.Module] = {}
        for name, gate in place.gates.items():
            kind, form = name.rpartition(".")[2], forms.get(name)
            if form is None:
                left[kind] = gate
            elif form == "constant":
                left[kind] = StoredConstant(values[name])
            elif form == "map":
                left[kind] = StoredMap(values[name], name)
        owner = model.get_submodule(place.path.rpartition(".")[0])
        owner.add_module("attention", GatesInTurn(left) if left else nn.Identity())
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    model.attnscope_config = replace(config, folded=dict(forms))  # type: ignore[assignment]


def _check_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{what} '{value}' is not known; take one of {', '.join(known)}")
