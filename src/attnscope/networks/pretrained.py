"""Weights to start a training from."""

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
        if network not in RESNETS:
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
    state = read_weights(file)
    gate_start = None
    if any("attention" in name.split(".") for name in state):
        description = file.with_name(layout.MODEL)
        config = read_json(description) if description.is_file() else {}
        gate_start = config.get("gate_start", "half")
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as stream:
            if FOLDED in (stream.metadata() or {}):
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


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _shorten(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
