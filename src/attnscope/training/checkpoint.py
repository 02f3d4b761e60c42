"""The state of a training in one file, to go on from after it was killed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.files import write_bytes

_FORMAT = 1


@dataclass
class Position:
    """How far a training came: what a checkpoint holds beside the tensors, all JSON values."""

    step: int = 0
    phase: int = 0
    """The phase of the last step; the next may begin another."""
    seconds: float = 0.0
    metrics: list[dict[str, float]] = field(default_factory=list)
    """One row for each whole epoch."""
    # Of the epoch that runs, over its images so far:
    seen: int = 0
    loss_sum: float = 0.0
    right: float = 0.0

    @property
    def best_epoch(self) -> int:
        """Counted from 1; 0 before the first has ended."""
        accuracies = [row["validation_accuracy"] for row in self.metrics]
        return accuracies.index(max(accuracies)) + 1 if accuracies else 0


def save_checkpoint(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Writes weights, buffers and the optimizer's state; the old file stays until this is whole.

    Args:
        file: a safetensors file. What is no tensor lies as JSON in its header.
        model: its state dict is saved.
        optimizer: as its own state dict tells, tensors by parameter, settings by group.
        state: what else the loop needs, of JSON values; floats come back bit for bit.
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
    write_bytes(
        file,
        save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            {"attnscope": json.dumps(header)},
        ),
    )


def read_state(file: Path) -> dict[str, Any]:
    """The ``state`` that a checkpoint was saved with.

    Raises:
        InputError: the file is no whole checkpoint.
    """
    header, _ = _read(file)
    state: dict[str, Any] = header["state"]
    return state


def load_checkpoint(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and optimizer back where they were.

    Raises:
        InputError: the file is no whole checkpoint, or is one of another network or optimizer;
            both are then as they were.
    """
    header, tensors = _read(file)
    own = model.state_dict()
    weights = {
        name.removeprefix("model."): value
        for name, value in tensors.items()
        if name.startswith("model.")
    }
    groups = header["optimizer"]["groups"]
    if (
        header["format"] != _FORMAT
        or {name: value.shape for name, value in weights.items()}
        != {name: value.shape for name, value in own.items()}
        or [len(group["params"]) for group in groups]
        != [len(group["params"]) for group in optimizer.param_groups]
    ):
        raise InputError(
            f"{file} is of another network or recipe; resume with the options of its start"
        )
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in header["optimizer"]["plain"].items()
    }
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, entry = rest.partition(".")
            state.setdefault(int(index), {})[entry] = value
    model.load_state_dict(weights)  # copies, so that each tensor keeps its memory layout
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for entry, value in optimizer.state[parameter].items():
                # As the parameter lies in memory, so that a step rounds as it would have.
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    optimizer.state[parameter][entry] = torch.empty_like(
                        parameter, dtype=value.dtype, requires_grad=False
                    ).copy_(value)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(file, "pt") as stream:
            header = json.loads((stream.metadata() or {})["attnscope"])
            names = stream.keys()  # it is no mapping, and cannot be iterated over
            return header, {name: stream.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError):
        raise InputError(
            f"{file} is no whole checkpoint; remove the run folder and train again"
        ) from None
