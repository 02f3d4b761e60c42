"""Save and load networks and their weights; nothing is unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import read_json, write_bytes, write_json
from attnscope.networks.build import (
    STATIC_FORMS,
    ModelConfig,
    attention_places,
    build_model,
    make_static,
)

FOLDED = "attnscope_folded"
"""Key in the metadata of a folded network's weights."""


def save_model(model: nn.Module, folder: Path) -> None:
    """Writes ``model.safetensors``, and ``model.json``: how to build the network again."""
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    save_weights(model, folder / layout.WEIGHTS)
    description = asdict(config)
    if not config.folded:
        del description["folded"]
    write_json(folder / layout.MODEL, description)


def save_weights(model: nn.Module, file: Path) -> None:
    """Writes the state dict as safetensors; of a folded network it says so in the file itself."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = getattr(model, "attnscope_config", None)
    folded = isinstance(config, ModelConfig) and bool(config.folded)
    write_bytes(file, save(state, {FOLDED: "yes"} if folded else None))


def load_model(folder: Path) -> nn.Module:
    """The network of a run folder, in eval mode, on the CPU.

    Raises:
        InputError: the folder holds no finished network, ``model.json`` is not what `save_model`
            writes, or the weights do not fit the network.
    """
    weights = folder / layout.WEIGHTS
    if not weights.is_file():
        raise InputError(f"{folder} holds no {layout.WEIGHTS}; is it a run whose training ended?")
    try:
        config = _read_config(read_json(folder / layout.MODEL))
        arguments = asdict(config)
        folded = arguments.pop("folded")
        # Without memory first: model.json could ask for any size, the weights tell the true one.
        with torch.device("meta"):
            model = build_model(**arguments)
        _check_forms(model, folded)
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{folder / layout.MODEL} does not describe a network ({first_line(error)}); "
            "copy it again from the run"
        ) from None
    state = read_weights(weights)
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
    state = read_weights(file)
    _check_fit(model, state, file)
    model.load_state_dict(state)


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            plain = value.detach().cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors or of ``torch.save``.

    Raises:
        InputError: the file is missing, or holds anything but a plain state dict.
    """
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
