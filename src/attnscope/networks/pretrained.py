"""Load weights from which training starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from torchvision.models import get_model_weights

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.networks.build import ModelConfig
from attnscope.networks.resnet import RESNETS
from attnscope.networks.weights import FOLDED, read_weights


@dataclass(frozen=True)
class Pretrained:
    """Weights from which training starts."""

    source: str
    """Where the weights come from, for messages."""
    state: dict[str, Tensor]
    """The state dict."""
    gate_start: str | None
    """``half`` or ``identity``, as in the network of the weights; None if it has no gates."""


@dataclass(frozen=True)
class LoadReport:
    """What `start_from` did with each tensor."""

    loaded: list[str]
    """Tensors that were copied from the weights into the network."""
    new: list[str]
    """Tensors that the weights lack; they keep their random initialization."""
    mismatched: list[str]
    """Tensors with another shape in the weights, with both shapes; they keep their random
    initialization."""
    unused: list[str]
    """Tensors that the network lacks."""

    def __str__(self) -> str:
        lines = [f"loaded: {len(self.loaded)} tensors"]
        if self.new:
            places = sorted({name.rpartition(".")[0] for name in self.new})
            lines.append(
                f"randomly initialized: {len(self.new)} tensors in {_shorten(places)}, "
                "which the weights do not contain"
            )
        lines += [
            f"randomly initialized, because the shapes differ: {name}" for name in self.mismatched
        ]
        if self.unused:
            lines.append(f"not used: {_shorten(self.unused)}")
        return "\n".join(lines)


def read_pretrained(source: str, network: str) -> Pretrained:
    """Read weights from which the training of a network starts.

    Args:
        source: ``imagenet`` (torchvision's IMAGENET1K_V1 weights, which it downloads), or a file: a
            safetensors file, or a state dict that ``torch.load(weights_only=True)`` accepts.
        network: The name of the network, such as resnet18.

    Returns:
        The weights.

    Raises:
        InputError: There are no such weights, they cannot be downloaded or read safely, or they
            belong to a folded network.
    """
    if source == "imagenet":
        if network not in RESNETS:
            raise InputError(
                "AS350",
                f"there are no ImageNet weights for the network '{network}'; "
                f"choose one of {', '.join(RESNETS)}, or use --weights none",
            )
        weights = get_model_weights(network)["IMAGENET1K_V1"]
        try:
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except Exception as error:  # URLError, OSError, RuntimeError and others
            raise InputError(
                "AS351",
                f"the ImageNet weights of {network} cannot be downloaded ({first_line(error)}); "
                "use --weights FILE, or --weights none for random weights",
            ) from None
        return Pretrained("ImageNet (torchvision, IMAGENET1K_V1)", dict(state), None)
    file = Path(source)
    state = read_weights(file)
    gate_start = None
    if any("attention" in name.split(".") for name in state):
        description = file.with_name(layout.MODEL)
        config = read_json(description) if description.is_file() else {}
        gate_start = config.get("gate_start", "half")
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as stream:
            if FOLDED in (stream.metadata() or {}):
                # New gates would multiply features that already contain the folded gates.
                raise InputError(
                    "AS352",
                    f"the weights {source} belong to a folded network; use the weights of the run "
                    "from which it was folded",
                )
    return Pretrained(source, state, gate_start)


def start_from(model: nn.Module, weights: Pretrained) -> LoadReport:
    """Copy all tensors of matching name and shape into a network of `build_model`.

    The other tensors of the network keep their values.

    Args:
        model: The network; changed in place, unless the weights are refused.
        weights: The weights.

    Returns:
        Which tensors were copied and which were not.

    Raises:
        InputError: Less than half of the network's tensors outside attention modules match, or its
            gates start at another value than those of the weights.
    """
    own, given = model.state_dict(), weights.state
    loaded = [name for name in own if name in given and own[name].shape == given[name].shape]
    mismatched = [
        f"{name} is {_shape(given[name])} in the weights, {_shape(own[name])} in the network"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    backbone = [name for name in own if "attention" not in name.split(".")]
    if 2 * len(set(loaded) & set(backbone)) < len(backbone):
        example = f" (for example, {mismatched[0]})" if mismatched else ""
        raise InputError(
            "AS353",
            f"the weights {weights.source} belong to another network: only {len(loaded)} of "
            f"{len(own)} tensors match{example}; use the network from which they were saved",
        )
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    if weights.gate_start not in (None, config.gate_start) and set(loaded) - set(backbone):
        raise InputError(
            "AS354",
            f"the gates in the weights {weights.source} start as '{weights.gate_start}', but those "
            f"of the network as '{config.gate_start}'; use --gate-start {weights.gate_start}",
        )
    model.load_state_dict({name: given[name] for name in loaded}, strict=False)
    new = [name for name in own if name not in given]
    return LoadReport(loaded, new, mismatched, [name for name in given if name not in own])


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _shorten(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
