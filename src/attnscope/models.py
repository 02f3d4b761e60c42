"""Networks with attention: torchvision's ResNets and a small CNN; built, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from attnscope.attention import (
    ATTENTION_KINDS,
    GatesInTurn,
    StoredConstant,
    StoredMap,
    build_attention,
    start_as_identity,
)
from attnscope.errors import InputError, first_line
from attnscope.files import read_json, write_bytes, write_json

_RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}
MODEL_NAMES = (*_RESNETS, "cnn")
PLACEMENTS = ("block", "stage")
STEMS = ("cifar", "imagenet")
GATE_STARTS = ("half", "identity")
_FOLDED = "attnscope_folded"
"""Key in the metadata of a folded network's weights."""
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
    """Names of the gates that are static -> one of `STATIC_FORMS`; see `attnscope.fold`."""


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


class _AttentionBasicBlock(BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """torchvision's block with ``attention`` on the residual branch, before the addition."""

    attention: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.attention(self.bn2(self.conv2(out)))
        out = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return out


class _AttentionBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's bottleneck with ``attention`` on the residual branch, before the addition."""

    attention: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.attention(self.bn3(self.conv3(out)))
        out = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return out


class _ResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with a free width and the 3×3 stem that small images need."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: list[int],
        *,
        num_classes: int,
        width: int,
        stem: str,
    ) -> None:
        self.width = width  # _make_layer, called by ResNet.__init__, needs it
        super().__init__(block, layers, num_classes=num_classes)
        if stem == "cifar":
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        elif width != 64:
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
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
        if planes == 64:  # layer1, the first that ResNet.__init__ makes, follows the stem
            self.inplanes = self.width
        layer: nn.Sequential = super()._make_layer(
            block, planes * self.width // 64, blocks, stride, dilate
        )
        return layer


class _ConvBlock(nn.Module):
    """conv 3×3 - BN - ReLU - max-pool 2 - attention."""

    def __init__(self, inputs: int, outputs: int, attention: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.attention = attention or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(nn.functional.max_pool2d(self.bn(self.conv(x)).relu(), 2))
        return out


class SmallCNN(nn.Module):
    """Three convolution blocks (32, 64, 128 channels) and two linear layers, for 32×32 images."""

    def __init__(self, attention: str, num_classes: int, reduction: int, kernel_size: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> _ConvBlock:
            gate = None
            if attention != "none":
                gate = build_attention(
                    attention, outputs, reduction=reduction, kernel_size=kernel_size
                )
            return _ConvBlock(inputs, outputs, gate)

        self.block1, self.block2, self.block3 = block(3, 32), block(32, 64), block(64, 128)
        self.hidden = nn.Linear(2048, 512)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, 3, 32, 32)`` -> logits ``(N, num_classes)``."""
        x = self.block3(self.block2(self.block1(x)))
        if x.shape[-2:] != (4, 4):
            raise InputError("the network 'cnn' takes images of 32×32 only; set --image-size 32")
        logits: Tensor = self.fc(self.dropout(self.hidden(x.flatten(1)).relu()))
        return logits


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
        attention: none, se, eca or cbam.
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
    _check_known("attention", attention, ATTENTION_KINDS)
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
        model = _build_resnet(
            name, attention, placement, stem, num_classes, reduction, kernel_size, width
        )
    if gate_start == "identity":
        start_as_identity(model)
    model.attnscope_config = ModelConfig(
        name, attention, num_classes, reduction, kernel_size, placement, stem, width, gate_start
    )
    return model


def _build_resnet(
    name: str,
    attention: str,
    placement: str,
    stem: str,
    num_classes: int,
    reduction: int,
    kernel_size: int,
    width: int,
) -> _ResNet:
    block, layers = _RESNETS[name]
    in_blocks = attention != "none" and placement == "block"
    if in_blocks:
        block = _AttentionBasicBlock if block is BasicBlock else _AttentionBottleneck
    model = _ResNet(block, layers, num_classes=num_classes, width=width, stem=stem)
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
        name = "bn" if isinstance(block, _ConvBlock) else "bn2"
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


def save_model(model: nn.Module, folder: Path) -> None:
    """Writes ``model.safetensors``, and ``model.json``: how to build the network again."""
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    save_weights(model, folder / "model.safetensors")
    description = asdict(config)
    if not config.folded:
        del description["folded"]
    write_json(folder / "model.json", description)


def save_weights(model: nn.Module, file: Path) -> None:
    """Writes the state dict as safetensors; of a folded network it says so in the file itself."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = getattr(model, "attnscope_config", None)
    folded = isinstance(config, ModelConfig) and bool(config.folded)
    write_bytes(file, save(state, {_FOLDED: "yes"} if folded else None))


def load_model(folder: Path) -> nn.Module:
    """The network of a run folder, in eval mode, on the CPU.

    Raises:
        InputError: the folder holds no finished network, ``model.json`` is not what `save_model`
            writes, or the weights do not fit the network.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder} holds no model.safetensors; is it a run whose training ended?")
    try:
        config = _read_config(read_json(folder / "model.json"))
        arguments = asdict(config)
        folded = arguments.pop("folded")
        # Without memory first: model.json could ask for any size, the weights tell the true one.
        with torch.device("meta"):
            model = build_model(**arguments)
        _check_forms(model, folded)
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{folder / 'model.json'} does not describe a network ({first_line(error)}); "
            "copy it again from the run"
        ) from None
    state = _read_weights(weights)
    if folded:
        make_static(model, folded, _empty_values(model, folded, state))
    _check_fit(model, state, weights)
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    return model.eval()


def load_weights(model: nn.Module, file: Path) -> None:
    """Loads a safetensors file, or a state dict that ``torch.load(weights_only=True)`` accepts.

    A network that the weights do not fit stays as it was.

    Raises:
        InputError: the file is missing, cannot be read safely, or does not fit the network.
    """
    state = _read_weights(file)
    _check_fit(model, state, file)
    model.load_state_dict(state)


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from, and what must be known to use them."""

    source: str
    state: dict[str, Tensor]
    gate_start: str | None
    """Of the network they come from; None if that has no gates."""


@dataclass(frozen=True)
class LoadReport:
    """What `start_from` did with each tensor; names are those of the network."""

    loaded: list[str]
    new: list[str]
    """In the network alone: they start as the network was built."""
    misfits: list[str]
    """In both with other shapes, which are told: they start as the network was built."""
    unused: list[str]
    """In the weights alone."""

    def __str__(self) -> str:
        lines = [f"loaded: {len(self.loaded)} tensors"]
        if self.new:
            places = sorted({name.rpartition(".")[0] for name in self.new})
            lines.append(f"new: {len(self.new)} tensors, of {_shorten(places)}")
        lines += [f"did not fit, starts anew: {misfit}" for misfit in self.misfits]
        if self.unused:
            lines.append(f"not used: {_shorten(self.unused)}")
        return "\n".join(lines)


def read_pretrained(source: str, network: str) -> Pretrained:
    """Weights to start ``network`` from.

    Args:
        source: ``imagenet`` (torchvision's first weights, which it downloads), or a file that is
            safetensors or a state dict that ``torch.load(weights_only=True)`` accepts.
        network: resnet18 and so on.

    Raises:
        InputError: there are none, or they cannot be read safely.
    """
    if source == "imagenet":
        if network not in _RESNETS:
            raise InputError(f"there are no ImageNet weights of the network '{network}'")
        weights = get_model_weights(network)["IMAGENET1K_V1"]
        try:
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except Exception as error:  # URLError, OSError, RuntimeError: whatever a download meets
            raise InputError(
                f"ImageNet weights of {network} could not be downloaded ({first_line(error)}); "
                "take --weights FILE, or --weights none for a random start"
            ) from None
        return Pretrained("ImageNet (torchvision, IMAGENET1K_V1)", dict(state), None)
    file = Path(source)
    state = _read_weights(file)
    gate_start = None
    if any("attention" in name.split(".") for name in state):
        description = file.with_name("model.json")
        config = read_json(description) if description.is_file() else {}
        gate_start = config.get("gate_start", "half")
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as stream:
            if _FOLDED in (stream.metadata() or {}):
                # A gate that began anew would gate what is scaled already.
                raise InputError(
                    f"weights {source} are of a folded network; take those of the run that it was "
                    "folded from"
                )
    return Pretrained(source, state, gate_start)


def start_from(model: nn.Module, weights: Pretrained) -> LoadReport:
    """Copies what fits from ``weights`` into a network of `build_model`; all else stays.

    Raises:
        InputError: less than half of the network's own tensors fit, or its gates start otherwise
            than those of the weights; the network is then as it was.
    """
    own, given = model.state_dict(), weights.state
    loaded = [name for name in own if name in given and own[name].shape == given[name].shape]
    misfits = [
        f"{name} is {_shape(given[name])} in the weights, {_shape(own[name])} in the network"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    backbone = [name for name in own if "attention" not in name.split(".")]
    if 2 * len(set(loaded) & set(backbone)) < len(backbone):
        told = f"; {misfits[0]}" if misfits else ""
        raise InputError(
            f"weights {weights.source} are of another network: {len(loaded)} of {len(own)} tensors "
            f"fit{told}; take the network they were saved from"
        )
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    if weights.gate_start not in (None, config.gate_start) and set(loaded) - set(backbone):
        raise InputError(
            f"the gates of weights {weights.source} start as '{weights.gate_start}'; "
            f"take --gate-start {weights.gate_start}"
        )
    model.load_state_dict({name: given[name] for name in loaded}, strict=False)
    new = [name for name in own if name not in given]
    return LoadReport(loaded, new, misfits, [name for name in given if name not in own])


def train_only(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Lets only ``parts`` of a network be trained.

    Args:
        model: of `build_model`.
        parts: ``all``, or some of ``classifier`` (the last linear layer), ``attention`` (every
            attention module) and the names of modules.

    Raises:
        InputError: the network lacks a named module; nothing was changed.
    """
    check_parts(model, parts)
    model.requires_grad_("all" in parts)
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if name in parts or (last == "attention" and "attention" in parts):
            module.requires_grad_(True)
        if name == "fc" and "classifier" in parts:
            module.requires_grad_(True)


def check_parts(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Raises an InputError where `train_only` would."""
    modules = dict(model.named_modules())
    for part in parts:
        if part not in ("all", "classifier", "attention") and part not in modules:
            raise InputError(f"the recipe trains {part}, which this network does not have")


def training_mode(model: nn.Module) -> None:
    """``model.train()``, but norms whose parameters are frozen keep their running statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parameters = list(module.parameters(recurse=False))
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _shorten(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _read_config(value: Any) -> ModelConfig:
    """Raises a TypeError unless ``value`` has exactly the fields of ModelConfig, of their types."""
    config = ModelConfig(**value)
    kinds = get_type_hints(ModelConfig)
    del kinds["folded"]
    for name, kind in kinds.items():
        given = getattr(config, name)
        if not isinstance(given, kind) or isinstance(given, bool):
            raise TypeError(f"{name} is {given!r:.40}")
    if not isinstance(config.folded, dict):
        raise TypeError(f"folded is {config.folded!r:.40}")
    return config


def _check_forms(model: nn.Module, forms: Mapping[str, str]) -> None:
    """Raises a TypeError unless each is a gate of the network, in a form that it can have."""
    places = {name: place for place in attention_places(model) for name in place.gates}
    for name, form in forms.items():
        possible = list(STATIC_FORMS)
        if not name.endswith(".spatial"):
            possible.remove("map")
        if name in places and places[name].norm is None:
            possible.remove("norm")
        if name not in places or form not in possible:
            raise TypeError(f"folded says that {name:.60} is {form!r:.40}")


def _empty_values(
    model: nn.Module, forms: Mapping[str, str], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Stored values without memory. Of a map, only the weights know the height and the width."""
    found = {}
    for place in attention_places(model):
        for name in forms.keys() & place.gates.keys():
            shape = (1, 1 if name.endswith(".spatial") else place.channels, 1, 1)
            if forms[name] == "map" and f"{name}.values" in state:
                shape = (1, 1, *state[f"{name}.values"].shape[2:])
            found[name] = torch.empty(shape, device="meta")
    return found


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"weights {file} do not exist; check the path")
    try:
        state: Any
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(
            f"{file} is not a whole safetensors file ({first_line(error)}); copy it again"
        ) from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); check the path") from None
    except Exception as error:  # torch.load raises what it likes, UnpicklingError among others
        raise InputError(
            f"{file} is refused: it is no plain state dict ({first_line(error)}); save it again "
            "with torch.save(model.state_dict(), FILE) or as safetensors"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for name, value in state.items()
    ):
        raise InputError(
            f"{file} holds no state dict; save it with torch.save(model.state_dict(), FILE)"
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def _check_fit(model: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    own = model.state_dict()
    misfits = {
        "missing": [name for name in own if name not in state],
        "not in the network": [name for name in state if name not in own],
        "other shape": [n for n in own if n in state and own[n].shape != state[n].shape],
    }
    found = [
        f"{what}: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for what, names in misfits.items()
        if names
    ]
    if found:
        raise InputError(
            f"weights {file} do not fit the network: {'; '.join(found)}; "
            "load them into the network they were saved from"
        )


def _check_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{what} '{value}' is not known; take one of {', '.join(known)}")
