"""Save and load networks and their weights, without unpickling."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors.torch import save
from torch import Tensor, nn

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import StrPath, read_json, write_bytes, write_json
from attnscope.hashes import expect_unchanged_file
from attnscope.integrity import sealed_arrays
from attnscope.networks.build import (
    STATIC_FORMS,
    ModelConfig,
    attention_places,
    build_model,
    make_static,
)
from attnscope.networks.checkpoints import (
    StateDict,
    check_fit,
    fit_state,
    read_state,
    without_prefixes,
)
from attnscope.networks.narrow import narrow, narrowable_gates
from attnscope.networks.static import FillingNorm
from attnscope.unfinished import how_to_continue, is_interrupted

FOLDED = "attnscope_folded"
"""A key in the metadata of a weights file; it marks the weights of a folded network."""

_log = logging.getLogger(__name__)


def save_model(model: nn.Module, folder: Path) -> None:
    """Write the weights to ``model.safetensors`` and the architecture to ``model.json``."""
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    save_weights(model, folder / layout.WEIGHTS)
    description = asdict(config)
    for key in ("folded", "pruned"):
        if not description[key]:
            del description[key]
    if config.channels == 3:  # as in versions that knew RGB only
        del description["channels"]
    write_json(folder / layout.MODEL, description)


def save_weights(model: nn.Module, file: Path) -> None:
    """Write the state dict as a safetensors file with a seal.

    The file of a folded network is marked as such.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = getattr(model, "attnscope_config", None)
    folded = isinstance(config, ModelConfig) and bool(config.folded)
    write_bytes(file, sealed_arrays(save(state, {FOLDED: "yes"} if folded else None)))


def load_model(folder: StrPath) -> nn.Module:
    """Load the network of a run folder.

    Returns:
        The network in eval mode on the CPU.

    Raises:
        InputError: The folder has no saved network, ``model.json`` does not describe a network, or
            the weights do not fit the network.
    """
    folder = Path(folder)
    weights = folder / layout.WEIGHTS
    if not weights.is_file():
        remedy = "; choose the folder of a run whose training finished"
        if is_interrupted(folder):
            remedy = f", because its training was interrupted; {how_to_continue(folder)}"
        raise InputError("AS340", f"{folder} has no {layout.WEIGHTS}{remedy}")
    try:
        expect_unchanged_file(folder, layout.MODEL)
        config = _read_config(read_json(folder / layout.MODEL))
        arguments = asdict(config)
        folded, pruned = arguments.pop("folded"), arguments.pop("pruned")
        # Built without memory, because model.json could ask for any size. The shapes of the weights
        # are compared before memory is allocated.
        with torch.device("meta"):
            model = build_model(**arguments)
        _check_forms(model, folded)
        _narrow(model, folded, pruned)
    except (TypeError, RuntimeError) as error:
        raise InputError(
            "AS341",
            f"{folder / layout.MODEL} does not describe a network ({first_line(error)}); "
            "copy it again from the original run",
        ) from None
    state = read_state(weights).tensors
    if folded:
        make_static(model, folded, _empty_values(model, folded, state))
    check_fit(state, model.state_dict(), weights)
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    _check_places(model, weights)
    return model.eval()


def load_weights(model: nn.Module, file: Path) -> None:
    """Load weights from a file into a network, and log what was chosen or left out.

    Args:
        model: The network; changed in place, unless the weights are refused.
        file: A safetensors file, or a checkpoint that ``torch.load(weights_only=True)`` accepts:
            a state dict, or a dict that contains one, with the names of the network or with
            prefixes of wrappers before them.

    Raises:
        InputError: The file does not exist, cannot be read safely, or does not fit the network.
    """
    found = fit_state(read_state(file), model.state_dict(), file)
    model.load_state_dict(found.tensors)
    _say(found)


def hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            plain = value.detach().cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_config(value: Any) -> ModelConfig:
    """Convert a JSON value; raise a TypeError if its keys or types are not those of ModelConfig."""
    config = ModelConfig(**value)
    types = get_type_hints(ModelConfig)
    del types["folded"], types["pruned"]
    for name, expected in types.items():
        given = getattr(config, name)
        if not isinstance(given, expected) or isinstance(given, bool):
            raise TypeError(f"{name} is {given!r:.40}, which has the wrong type")
    for name in ("folded", "pruned"):
        if not isinstance(getattr(config, name), dict):
            raise TypeError(f"{name} is {getattr(config, name)!r:.40}, which has the wrong type")
    return config


def _check_forms(model: nn.Module, forms: Mapping[str, str]) -> None:
    """Raise a TypeError if a name is not a gate of the network, or a gate cannot have its form."""
    places = {name: place for place in attention_places(model) for name in place.gates}
    for name, form in forms.items():
        possible = list(STATIC_FORMS)
        if not name.endswith(".spatial"):
            possible.remove("map")
        if name in places and places[name].norm is None:
            possible.remove("norm")
        if name not in places or form not in possible:
            raise TypeError(f"folded: {name:.60} is {form!r:.40}, which is impossible")


def _narrow(model: nn.Module, folded: Mapping[str, str], pruned: Mapping[str, Any]) -> None:
    """Remove channels from a network without memory; raise a TypeError if that is impossible."""
    reasons = narrowable_gates(model, folded)
    channels = {name: place.channels for place in attention_places(model) for name in place.gates}
    for name, count in pruned.items():
        is_count = isinstance(count, int) and not isinstance(count, bool)
        if reasons.get(name, "unknown") or not is_count or not 0 < count < channels[name]:
            raise TypeError(f"pruned: {name:.60} is {count!r:.40}, which is impossible")
    with torch.device("meta"):
        narrow(model, {name: torch.arange(count) for name, count in pruned.items()})


def _check_places(model: nn.Module, file: Path) -> None:
    """Refuse places of channels that are not those of all channels that are there, in order.

    Raises:
        InputError: AS341.
    """
    for name, module in model.named_modules():
        if isinstance(module, FillingNorm):
            count = module.num_features
            places = [place for place in module.sources.tolist() if place != count]
            if places != list(range(count)):
                raise InputError(
                    "AS341",
                    f"{file} has impossible channels at {name}.sources; copy it again from the "
                    "original run",
                )


def _empty_values(
    model: nn.Module, forms: Mapping[str, str], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return stored values without memory. The size of a map is that in the weights."""
    found = {}
    for place in attention_places(model):
        for name in forms.keys() & place.gates.keys():
            shape = (1, 1 if name.endswith(".spatial") else place.channels, 1, 1)
            if forms[name] == "map" and f"{name}.values" in state:
                shape = (1, 1, *state[f"{name}.values"].shape[2:])
            found[name] = torch.empty(shape, device="meta")
    return found


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the state dict in a file, as `attnscope.networks.checkpoints.read_state` does.

    Prefixes of wrappers are removed from the names, and what was chosen is logged.

    Raises:
        InputError: The file does not exist, is damaged, or contains anything but a state dict.
    """
    found = read_state(file)
    _say(found)
    return without_prefixes(found.tensors, {})


def _say(found: StateDict) -> None:
    for note in found.notes:
        _log.warning("%s", note)
