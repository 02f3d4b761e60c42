"""What is known of one gate, without its values and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("channel", "spatial", "strip", "branch")
"""The kinds that are looked for unless others are asked for."""
OTHER_KINDS = ("full", "static")


@dataclass(frozen=True)
class Gate:
    """One place where a bounded activation multiplies a feature map."""

    name: str
    """Path of the module that makes it, ``#2`` for a module's second gate."""
    kind: str
    """``channel`` (one value a channel), ``spatial`` (one value a pixel), ``strip`` (one value a
    row or a column, of each channel), ``branch`` (how much each of several paths counts); when
    asked for also ``full`` (the features' own shape) and ``static`` (from parameters alone)."""
    channels: int
    """Channels of the features that it multiplies."""
    grid: tuple[int, int] | None
    """Rows and columns of a spatial gate on the sample; None for other kinds."""
    activation: str
    """The bounded activation: sigmoid, hardsigmoid, softmax ..."""
    lo: float
    hi: float
    """The bounds of the gate: the activation's, after ``1 + g``, ``2 * g`` and the like."""
    neutral: float
    """The value that changes nothing: 1, or 0 for ``x + x * g``."""
    made_in: str = ""
    """Path of the module in whose forward the activation runs."""
    call: int = 0
    """Which of that module's bounded activations it is in one forward of the network, from 0."""
    form: str = ""
    """What was done to the activation's values before they multiply, as ``1 +`` or ``[0]``."""
    applied_in: str = ""
    """Path of the module in whose forward the gate multiplies the features."""
    layout: str = "NCHW"
    """Axes of the features: images, channels, rows, columns; B paths, L pixels in one row."""
    axes: str = ""
    """Axes of the values that are read: ``NC`` for channels, ``NHW`` for pixels ..."""

    @property
    def midpoint(self) -> float:
        """The middle of the bounds; 0.5 for a sigmoid, which is where an untrained gate starts."""
        return (self.lo + self.hi) / 2

    def image_means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Each image's mean gate, over its channels or pixels.

        Paths that share a softmax sum to one, so that the mean over all of them is the same for
        every image: of these it is the mean of the first path.

        Args:
            values: of this gate, ``(N, ...)`` as they are read.

        Returns:
            ``(N,)``
        """
        if "B" in self.axes:
            values = values.take(0, self.axes.index("B"))
        means: NDArray[np.float64] = values.reshape(len(values), -1).mean(1, dtype=np.float64)
        return means


@dataclass(frozen=True)
class Ungated:
    """A bounded activation whose output gated no feature map."""

    made_in: str
    """Path of the module in whose forward it runs."""
    call: int
    """Which of that module's bounded activations it is, from 0."""
    activation: str
    fate: str
    """What became of its output: the operation that consumed it, or why it is no gate."""
