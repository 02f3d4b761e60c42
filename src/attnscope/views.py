"""Views: reductions of a gate's values to one value per channel, or to one map per image.

Statistics and plots of channels need ``(N, C)``, and those of maps need ``(N, H, W)``. A gate with
other axes gets there by a mean that has a name. A full gate ``(N, C, H, W)`` has both views: its
mean over positions and its mean over channels. This module needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNITS = {"B": "branches", "G": "groups", "C": "channels"}
_POSITIONS = {"D": "slices", "H": "rows", "W": "columns", "L": "positions"}
_NAMES = {**_UNITS, **_POSITIONS}
"""Letter of an axis (`attnscope.kinds.AXES`) -> what lies along it."""


@dataclass(frozen=True)
class View:
    """A reduction of the values of a gate, ``(N, ...)``."""

    axes: str
    """Letters of the axes of the values, of which the first is N."""
    into: tuple[str, ...]
    """Letters that each axis of the result holds, without N. An axis without letters has size 1.
    Other axes of the values are averaged, except branches, of which the first is taken: branches
    that share a softmax have the same mean everywhere."""

    @property
    def first_branch(self) -> bool:
        """Whether only the first branch is taken."""
        return "B" in self.axes and "B" not in "".join(self.into)

    @property
    def averaged(self) -> str:
        """Letters of the axes over which the values are averaged."""
        kept = f"NB{''.join(self.into)}"
        return "".join(letter for letter in self.axes if letter not in kept)

    @property
    def about(self) -> str:
        """What is shown, such as ``mean over channels``. Empty if all values are shown."""
        parts = ["first branch"] if self.first_branch else []
        names = [_NAMES[letter] for letter in self.averaged]
        if {"H", "W"} <= set(self.averaged):
            names = [*(_NAMES[x] for x in self.averaged if x not in "DHW"), "positions"]
        if names:
            parts.append(f"mean over {' and '.join(names)}")
        return ", ".join(parts)

    @property
    def units(self) -> str:
        """What lies along the first axis of the result, such as ``channels in branches``."""
        return " in ".join(_NAMES[letter] for letter in reversed(self.into[0]))

    def reduce(self, values: NDArray[Any]) -> NDArray[Any]:
        """Reduce the values of a gate.

        Args:
            values: ``(N, ...)`` with the axes `axes`.

        Returns:
            An array with the axes N and `into`, of the type of ``values``. Means are computed in
            double precision.
        """
        axes = self.axes
        if self.first_branch:
            values = values.take(0, axes.index("B"))
            axes = axes.replace("B", "")
        if self.averaged:
            over = tuple(axes.index(letter) for letter in self.averaged)
            values = values.mean(over, dtype=np.float64).astype(values.dtype)
            axes = "".join(letter for letter in axes if letter not in self.averaged)
        sizes = dict(zip(axes, values.shape, strict=True))
        # Not -1, which an array without images leaves open.
        shape = [int(np.prod([sizes[letter] for letter in group])) for group in self.into]
        return values.reshape(len(values), *shape)


def channel_view(axes: str) -> View | None:
    """Return the view ``(N, C)``: the mean over positions; None for a gate without channels.

    The branches and groups of a gate count as channels, and so do the channels of each.

    Args:
        axes: letters of the axes of the gate's values.
    """
    units = "".join(letter for letter in axes if letter in _UNITS)
    return View(axes, (units,)) if units else None


def map_view(axes: str) -> View | None:
    """Return the view ``(N, H, W)``: the mean over channels; None for a gate without positions.

    The map of a volume is its mean over the slices. A gate of rows gives ``(N, H, 1)``, and a gate
    of columns or of positions in a sequence gives ``(N, 1, W)``.

    Args:
        axes: letters of the axes of the gate's values.
    """
    positions = [letter for letter in axes if letter in _POSITIONS][-2:]
    if not positions:
        return None
    if len(positions) == 1:
        return View(axes, ("H", "") if positions == ["H"] else ("", positions[0]))
    return View(axes, (positions[0], positions[1]))
