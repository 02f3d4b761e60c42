"""Build a network by name, find its attention modules, and replace gates by constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from attnscope.errors import InputError
from attnscope.networks.attention import attention_names, start_as_identity
from attnscope.networks.cnn import ConvBlock, SmallCNN
from attnscope.networks.resnet import RESNETS, build_resnet
from attnscope.networks.static import FillingNorm, SequentialGates, StoredConstant, StoredMap

MODEL_NAMES = (*RESNETS, "cnn")
PLACEMENTS = ("block", "stage")
STEMS = ("cifar", "imagenet")
GATE_STARTS = ("half", "identity")
STATIC_FORMS = ("norm", "constant", "map")
"""The forms of a static gate: multiplied into the weight and bias of the BatchNorm before it, or
stored as a constant or a map."""


@dataclass(frozen=True)
class ModelConfig:
    """The arguments of `build_model`, and the gates that were folded: a network's architecture."""

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
    """Number of channels of layer1; None for the cnn."""
    gate_start: str = "half"
    """``half`` or ``identity``; with identity, gates are between 0 and 2."""
    folded: dict[str, str] = field(default_factory=dict)
    """The form of each static gate by name, one of `STATIC_FORMS`; see `attnscope.folding`."""
    channels: int = 3
    """Number of channels of the images."""
    pruned: dict[str, int] = field(default_factory=dict)
    """Name of a folded channel gate -> how many channels stay of the features that it multiplies,
    if some were removed; see `attnscope.networks.narrow`."""


@dataclass(frozen=True)
class AttentionPlace:
    """An attention module and its surroundings in the network."""

    path: str
    """Path of the module."""
    module: nn.Module
    """The attention module."""
    channels: int
    """Number of channels of the features that it multiplies."""
    norm: nn.BatchNorm2d | None
    """The BatchNorm whose weight and bias scale these features. Between it and the module there are
    at most ReLU and max-pooling, which commute with nonnegative factors. None for a module after a
    stage, because a shortcut is added in between."""

    @property
    def gates(self) -> dict[str, nn.Module]:
        """The submodules that compute the gates, by name, in the order in which they multiply."""
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
    channels: int = 3,
) -> nn.Module:
    """Build a network for images.

    Args:
        name: resnet18, resnet34, resnet50, resnet101, resnet152 or cnn.
        attention: none, se, eca, cbam, or the name of a registered attention module.
        placement: ``block`` (on each residual branch, after its last BatchNorm and before the
            addition) or ``stage`` (after each of layer1 to layer4). Default: ``block``.
        stem: ``cifar`` (3×3 convolution with stride 1, no max-pooling) or ``imagenet`` (7×7
            convolution with stride 2, max-pooling). Default: ``cifar``.
        num_classes: Number of logits.
        reduction: Number of channels divided by the hidden channels of a channel gate.
        kernel_size: Kernel size of the convolution of a spatial gate, in pixels; odd.
        width: Number of channels of layer1; layer4 has eight times as many. Default: 64.
        gate_start: ``half`` (gates are sigmoids, which start near 0.5) or ``identity`` (gates are
            twice a sigmoid and start at exactly 1, so that a pretrained network is unchanged).
        channels: Number of channels of the images: 3 for RGB.

    Returns:
        A network that maps images ``(N, channels, H, W)`` to logits ``(N, num_classes)``. Its
        attribute ``attnscope_config`` is its `ModelConfig`.

    Raises:
        InputError: A name is unknown, a number is out of range, or an argument does not apply to
            this network.
    """
    expect_names(name, attention)
    _check_choice("AS305", "gate start", gate_start, GATE_STARTS)
    if num_classes < 1:
        raise InputError("AS306", f"the number of classes is {num_classes}; it must be at least 1")
    if channels < 1:
        raise InputError("AS315", f"the number of channels is {channels}; it must be at least 1")
    model: nn.Module
    if name == "cnn":
        resnet_only = {"placement": placement, "stem": stem, "width": width}
        for option, value in resnet_only.items():
            if value is not None:
                raise InputError(
                    "AS308",
                    f"the option {option} applies to ResNets only, not to the network 'cnn'; "
                    "leave it out",
                )
        model = SmallCNN(attention, num_classes, reduction, kernel_size, channels)
    else:
        placement = "block" if placement is None else placement
        stem = "cifar" if stem is None else stem
        width = 64 if width is None else width
        _check_choice("AS303", "placement", placement, PLACEMENTS)
        _check_choice("AS304", "stem", stem, STEMS)
        # With fewer than 16 channels and an odd batch size, oneDNN (torch 2.14 on a CPU) writes out
        # of bounds in the backward pass of a 1×1 convolution with stride 2.
        if width < 16:
            raise InputError("AS307", f"the width is {width}; it must be at least 16")
        model = build_resnet(
            name, attention, placement, stem, num_classes, reduction, kernel_size, width, channels
        )
    if gate_start == "identity":
        for place in attention_places(model):
            start_as_identity(place.module)
    model.attnscope_config = ModelConfig(
        name,
        attention,
        num_classes,
        reduction,
        kernel_size,
        placement,
        stem,
        width,
        gate_start,
        channels=channels,
    )
    return model


def attention_places(model: nn.Module) -> list[AttentionPlace]:
    """Return the attention modules with gates in a network of `build_model`, in forward order."""
    found = []
    for path, owner in model.named_modules():
        module = dict(owner.named_children()).get("attention")
        if module is None or isinstance(module, nn.Identity):
            continue
        after_stage = isinstance(owner, nn.Sequential)
        block = list(owner.children())[-2] if after_stage else owner
        # The last BatchNorm of the residual branch; that of the shortcut is in `downsample`.
        name = "bn" if isinstance(block, ConvBlock) else "bn2"
        norm = block.get_submodule("bn3" if isinstance(block, Bottleneck) else name)
        assert isinstance(norm, nn.BatchNorm2d)
        channels = norm.channels if isinstance(norm, FillingNorm) else norm.num_features
        found.append(
            AttentionPlace(f"{path}.attention", module, channels, None if after_stage else norm)
        )
    return found


def make_static(model: nn.Module, forms: Mapping[str, str], values: Mapping[str, Tensor]) -> None:
    """Remove gates from a network of `build_model`, or replace them by stored values.

    The weights of BatchNorms are not changed; the caller multiplies gates of the form ``norm`` into
    them.

    Args:
        model: The network. It is changed in place, and so is its ``attnscope_config``.
        forms: The form of each gate that becomes static, one of `STATIC_FORMS`, by gate name.
        values: The values of the gates that are stored, by gate name: ``(1, C, 1, 1)``,
            ``(1, 1, 1, 1)`` or, for a map, ``(1, 1, H, W)``.
    """
    for place in attention_places(model):
        if not forms.keys() & place.gates.keys():
            continue
        remaining: dict[str, nn.Module] = {}
        for name, gate in place.gates.items():
            kind, form = name.rpartition(".")[2], forms.get(name)
            if form is None:
                remaining[kind] = gate
            elif form == "constant":
                remaining[kind] = StoredConstant(values[name])
            elif form == "map":
                remaining[kind] = StoredMap(values[name], name)
        owner = model.get_submodule(place.path.rpartition(".")[0])
        owner.add_module("attention", SequentialGates(remaining) if remaining else nn.Identity())
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    model.attnscope_config = replace(config, folded=dict(forms))  # type: ignore[assignment]


def expect_names(network: str | None, attention: str | None) -> None:
    """Refuse names of a network and of an attention module that do not exist.

    Args:
        network: The name of a network; None is not checked.
        attention: The name of an attention module; None is not checked.

    Raises:
        InputError: AS301, the network is unknown; AS302, the attention module is unknown.
    """
    if network is not None:
        _check_choice("AS301", "network", network, MODEL_NAMES)
    if attention is not None:
        _check_choice("AS302", "attention module", attention, attention_names())


def _check_choice(code: str, what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        known = ", ".join(choices)
        raise InputError(code, f"the {what} '{value}' is unknown; choose one of {known}")
