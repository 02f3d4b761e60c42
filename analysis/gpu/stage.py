"""What a stage of the measurements is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from analysis.gpu.measures import Row


@dataclass(frozen=True)
class Setting:
    """What all stages share."""

    out: Path
    """Folder of the results."""
    device: torch.device
    tiny: bool
    """Whether the networks and the numbers of images are as small as possible."""
    data: str = "digits"
    """Data source of the training to the end."""
    recipe: str = ""
    """Recipe of the training to the end. Default: that of `attnscope train` on the device."""
    epochs: int | None = None
    """Its number of epochs. Default: that of the recipe."""

    def pick(self, full: int, tiny: int) -> int:
        """Return a number, or its small variant."""
        return tiny if self.tiny else full


@dataclass(frozen=True)
class Stage:
    """Some measurements that share a process and a limit of time."""

    name: str
    about: str
    seconds: int
    """The limit of time."""
    run: Callable[[Setting], Iterator[Row]]
    goals: dict[str, str] = field(default_factory=dict)
    """Name of each row -> the goal of its ratio or value; empty without a goal."""


STAGES: dict[str, Stage] = {}
"""All stages, in the order in which they run: the first ones are worth most."""


def stage(
    name: str, about: str, seconds: int, goals: dict[str, str] | None = None
) -> Callable[[Callable[[Setting], Iterator[Row]]], Callable[[Setting], Iterator[Row]]]:
    """Register a function that yields the rows of a stage. The arguments are those of `Stage`."""

    def register(run: Callable[[Setting], Iterator[Row]]) -> Callable[[Setting], Iterator[Row]]:
        STAGES[name] = Stage(name, about, seconds, run, goals or {})
        return run

    return register
