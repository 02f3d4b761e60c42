"""Checkpoints: the state of training in one file, from which training can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.files import write_bytes
from attnscope.integrity import is_array_file_whole, sealed_arrays

_FORMAT = 1


@dataclass
class Position:
    """The progress of training: what a checkpoint holds beside the tensors. All JSON values."""

    step: int = 0
    phase: int = 0
    """The phase of the last step. The next step may start another phase."""
    seconds: float = 0.0
    """Duration of the steps, without compilation and evaluation."""
    compile_seconds: float = 0.0
    metrics: list[dict[str, float]] = field(default_factory=list)
    """One row for each finished epoch."""
    # Sums over the images of the current epoch so far:
    seen: int = 0
    loss_sum: float = 0.0
    right: float = 0.0

    @property
    def best_epoch(self) -> int:
        """The first epoch with the highest validation accuracy, from 1; 0 before any has ended."""
        accuracies = [row["validation_accuracy"] for row in self.metrics]
        return accuracies.index(max(accuracies)) + 1 if accuracies else 0


def save_checkpoint(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Save weights, buffers and the state of the optimizer atomically, in a file with a seal.

    An older checkpoint is replaced only when the new one is complete.

    Args:
        file: a safetensors file. Values that are not tensors are JSON in its header.
        model: its state dict is saved.
        optimizer: its state dict is saved.
        state: the other state of the loop, as JSON values. Floats are restored bit for bit.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    found = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, values in found["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    header = {
        "format": _FORMAT,
        "state": state,
        "optimizer": {"groups": found["param_groups"], "plain": plain},
    }
    content = save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        {"attnscope": json.dumps(header)},
    )
    write_bytes(file, sealed_arrays(content))


def read_state(file: Path) -> dict[str, Any]:
    """Read the ``state`` of a checkpoint.

    Raises:
        InputError: AS523, the checkpoint is damaged.
    """
    header, _ = _read(file)
    state: dict[str, Any] = header["state"]
    return state


def position_in(state: Mapping[str, Any], file: Path) -> Position:
    """Return the position in the ``state`` of a checkpoint.

    Raises:
        InputError: AS523, there is none. Checkpoints of version 0.1 have no seal.
    """
    try:
        return Position(**state["position"])
    except (KeyError, TypeError):
        raise _damaged(file) from None


def load_checkpoint(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the weights and the state of the optimizer.

    Raises:
        InputError: AS523, the checkpoint is damaged; AS524, it belongs to another network or
            optimizer. Network and optimizer are then unchanged.
    """
    header, tensors = _read(file)
    expected = model.state_dict()
    weights = {
        name.removeprefix("model."): value
        for name, value in tensors.items()
        if name.startswith("model.")
    }
    groups = header["optimizer"]["groups"]
    for stored, own in zip(groups, optimizer.param_groups, strict=False):
        # The kernels are those of this device, whatever device the checkpoint comes from.
        stored.update({name: own[name] for name in ("fused", "foreach") if name in own})
    if (
        header["format"] != _FORMAT
        or {name: value.shape for name, value in weights.items()}
        != {name: value.shape for name, value in expected.items()}
        or [len(group["params"]) for group in groups]
        != [len(group["params"]) for group in optimizer.param_groups]
    ):
        raise InputError(
            "AS524",
            f"checkpoint {file} does not fit the network or the recipe; "
            "resume with the settings that the run was started with",
        )
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in header["optimizer"]["plain"].items()
    }
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, entry = rest.partition(".")
            state.setdefault(int(index), {})[entry] = value
    model.load_state_dict(weights)  # copies in place, so each tensor keeps its memory layout
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for entry, value in optimizer.state[parameter].items():
                # The memory layout of the parameter, so that the next step rounds identically.
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    optimizer.state[parameter][entry] = torch.empty_like(
                        parameter, dtype=value.dtype, requires_grad=False
                    ).copy_(value)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        if is_array_file_whole(file) is False:
            raise ValueError("its SHA-256 is another one")
        with safe_open(file, "pt") as stream:
            header = json.loads((stream.metadata() or {})["attnscope"])
            names = stream.keys()  # the stream itself is not iterable
            return header, {name: stream.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        raise _damaged(file) from None


def _damaged(file: Path) -> InputError:
    return InputError(
        "AS523", f"checkpoint {file} is damaged; remove the run folder and train again"
    )
