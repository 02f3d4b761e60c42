"""Where the gates of an image lie between two classes, on the line between the class means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.statistics.reading import expect_finite

MOST = 200
"""Most images of each class that are used; of more, these are spaced evenly over the class."""
_QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class ClassPoints:
    """One gate of some images of one class, as points."""

    gate: str
    trait: str | None
    """As for `Recording.values`."""
    rows: NDArray[np.int64]
    """The images, ``(n,)``."""
    points: NDArray[np.float32]
    """Their gates, ``(n, U)``."""


@dataclass(frozen=True)
class ClassLine:
    """The line from the mean gate of one class to that of another, and the images along it."""

    gate: str
    trait: str | None
    """As for `Recording.values`."""
    rows: NDArray[np.int64]
    """The images of both classes, those of the first class first, ``(n,)``."""
    firsts: int
    """Number of images of the first class."""
    positions: NDArray[np.float64]
    """Where each image lies, ``(n,)``: 0 at the mean of the first class and 1 at that of the
    second. The means leave out the image itself, because a mean lies nearer to its own images than
    to new ones."""
    means: NDArray[np.float64]
    """The mean gates of both classes, ``(2, U)``."""

    def position(self, row: int | None, values: NDArray[Any]) -> float:
        """Return where an image lies; NaN if the two means are equal.

        Args:
            row: its row of the recording; None for an image that is not in it.
            values: its gate, as `Recording.values` gives it for the trait of the line.
        """
        known = np.flatnonzero(self.rows == (-1 if row is None else row))
        if len(known):
            return float(self.positions[known[0]])
        flat = np.asarray(values, np.float64).reshape(1, -1)
        return float(_along(flat, self.means[:1], self.means[1:])[0])

    def quantiles(self) -> pd.DataFrame:
        """Return the 5, 25, 50, 75 and 95% quantiles of the positions of both classes.

        Returns:
            Two rows. Columns: ``side`` (``first`` or ``second``), p05, p25, median, p75, p95.
        """
        sides = {"first": self.positions[: self.firsts], "second": self.positions[self.firsts :]}
        return pd.DataFrame(
            [
                {
                    "side": side,
                    **{name: np.quantile(some, share) for name, share in _QUANTILES.items()},
                }
                for side, some in sides.items()
            ]
        )


def class_line(
    recording: Recording, gate: str, first: int, second: int, most: int = MOST
) -> ClassLine:
    """Measure where the images of two classes lie on the line between the class means of a gate.

    The position of an image with gate g is (g - a)·(b - a) / |b - a|², where a and b are the means
    of the two classes without the image.

    Args:
        recording: recording of one network.
        gate: name of the gate. Its coordinates are its channels, or else its positions, or else all
            its values.
        first: the true class at 0.
        second: the true class at 1.
        most: most images of each class that are used.

    Raises:
        InputError: there is no gate of that name, a value is not finite, there are no class labels
            (AS648), or a class has fewer than two images (AS761).
        ValueError: the two classes are the same.
    """
    if first == second:
        raise ValueError("the two classes are the same")
    return line_between(
        class_points(recording, gate, first, most), class_points(recording, gate, second, most)
    )


def class_points(recording: Recording, gate: str, number: int, most: int = MOST) -> ClassPoints:
    """Read the gate of the images of one class.

    Args:
        recording: recording of one network.
        gate: name of the gate.
        number: the true class.
        most: most images that are read.

    Raises:
        InputError: as for `class_line`.
    """
    info = recording.info(gate)
    trait = next((trait for trait in (PER_CHANNEL, MAP) if info.offers(trait)), None)
    rows = np.flatnonzero(recording.labels == number)
    if len(rows) < 2:
        raise InputError(
            "AS761",
            f"the class '{recording.classes[number]}' has {len(rows)} images; a class needs at "
            "least 2, so that an image can be compared with the others: choose another class",
        )
    if len(rows) > most:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(np.int64))]
    values = recording.values(gate, trait, rows)
    points = values.reshape(len(values), -1)
    expect_finite(points, f"gate '{gate}'", recording)
    return ClassPoints(gate, trait, rows, points)


def line_between(first: ClassPoints, second: ClassPoints) -> ClassLine:
    """Do what `class_line` does with points that were read before."""
    a, b = (each.points.astype(np.float64) for each in (first, second))
    means = np.stack([a.mean(0), b.mean(0)])
    own = [(each.sum(0) - each) / (len(each) - 1) for each in (a, b)]
    positions = np.concatenate([_along(a, own[0], means[1:]), _along(b, means[:1], own[1])])
    rows = np.concatenate([first.rows, second.rows])
    return ClassLine(first.gate, first.trait, rows, len(a), positions, means)


def _along(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the position of each point, ``(n,)``, on the line from its start to its end."""
    line = end - start
    square = (line**2).sum(1)
    dot = ((points - start) * line).sum(1)
    # Means of equal values differ in their last bits.
    floor = 1e-24 * np.maximum((end**2).sum(1), (start**2).sum(1))
    positions: NDArray[np.float64] = np.where(
        square > floor, dot / np.where(square > floor, square, 1), np.nan
    )
    return positions
