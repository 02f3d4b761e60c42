"""Gates of a recording, read in stretches that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.recording.recording import Recording

_STRETCH = 1024
"""Images that are read at a time."""


class StandardizedGate:
    """The values of one gate, read stretch by stretch, each unit with mean 0 and deviation 1.

    A unit is a channel of a channel gate, a pixel of a spatial one. Standardised, sums over images
    can be taken in single precision whatever the unit's own scale is.
    """

    def __init__(self, recording: Recording, gate: str) -> None:
        """Goes once over the images.

        Raises:
            InputError: there is no such gate, or a value of it is not finite.
        """
        self._recording, self._gate = recording, gate
        origin: NDArray[np.float64] | None = None
        for _, values in self._raw():
            if origin is None:
                origin = values[0].copy()
                total, square = np.zeros_like(origin), np.zeros_like(origin)
                low, high = origin.copy(), origin.copy()
            expect_finite(values, f"'{gate}'", recording)
            np.minimum(low, values.min(0), out=low)
            np.maximum(high, values.max(0), out=high)
            values -= origin
            total += values.sum(0)
            square += (values**2).sum(0)
        assert origin is not None  # no recording is without images
        count = len(recording)
        self.mean: NDArray[np.float64] = origin + total / count
        """``(U,)``, in units of the gate."""
        self.constant: NDArray[np.bool_] = low == high
        """``(U,)``: the same for all images, to the last bit. Standardised it is 0."""
        self.minimum: NDArray[np.float64] = low
        """``(U,)``"""
        variance = np.where(self.constant, 0.0, np.maximum(square - total**2 / count, 0) / count)
        self.std: NDArray[np.float64] = np.sqrt(variance)
        """``(U,)``, with N below the sum; 0 for a constant unit."""

    def _raw(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for rows in stretches(len(self._recording)):
            values = self._recording.gate(self._gate, rows)
            yield rows, values.reshape(len(values), -1).astype(np.float64)

    def read(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows and their values, ``(n, U)``."""
        scale = np.where(self.std > 0, self.std, 1)
        for rows, values in self._raw():
            values -= self.mean
            values /= scale
            values[:, self.constant] = 0
            yield rows, values.astype(np.float32)


def expect_finite(values: NDArray[np.floating], what: str, recording: Recording) -> None:
    """Refuses NaN, which is above and below nothing, so that its rank would look like the first.

    Raises:
        InputError: a value is NaN or infinite.
    """
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise InputError(
            f"{wrong} values of {what} are not finite; attnscope verify {recording.folder} lists "
            "them"
        )


def stretches(images: int) -> Iterator[slice]:
    """The rows of a recording in pieces that fit into memory."""
    for start in range(0, images, _STRETCH):
        yield slice(start, min(start + _STRETCH, images))


def gate_rows(recording: Recording, gate: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """A gate of some images, in any order, read stretch by stretch: ``(n, C)``, ``(n, H, W)``."""
    first = recording.gate(gate, slice(0, 1))
    found = np.empty((len(rows), *first.shape[1:]), np.float32)
    for stretch in stretches(len(recording)):
        inside = np.flatnonzero((rows >= stretch.start) & (rows < stretch.stop))
        if len(inside):
            found[inside] = recording.gate(gate, stretch)[rows[inside] - stretch.start]
    return found
