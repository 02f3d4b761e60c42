"""Reading the gates of a recording in chunks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.shapes import Array

_CHUNK = 1024
"""Number of images that are read at a time, if they are not too large."""
_CHUNK_VALUES = 2**27
"""Number of values of a gate that are read at a time: 1 GB in double precision."""
_HELD = 2**25
"""Number of standardized values of a gate that are kept between readings: 128 MiB."""


class StandardizedGate:
    """The values of one gate, with mean 0 and standard deviation 1 in each unit.

    They are read in chunks. If all of them fit into memory, they are kept, and are one chunk.

    A unit is a channel of a channel gate or a pixel of a spatial gate. Standardized values can be
    summed over images in single precision, whatever the scale of the unit.
    """

    def __init__(self, recording: Recording, gate: str, trait: str | None = None) -> None:
        """Read the gate once to compute mean and standard deviation.

        Args:
            recording: recording of one network.
            gate: name of the gate.
            trait: as for `Recording.values`. Default: all recorded values.

        Raises:
            InputError: the gate does not exist or has no values of the trait, or a value is not
                finite.
        """
        self._recording, self._gate, self._trait = recording, gate, trait
        self._held: NDArray[np.float32] | None = None
        origin: NDArray[np.float64] | None = None
        for _, values in self._raw():
            if origin is None:
                origin = values[0].copy()
                total, square = np.zeros_like(origin), np.zeros_like(origin)
                low, high = origin.copy(), origin.copy()
            expect_finite(values, f"gate '{gate}'", recording)
            np.minimum(low, values.min(0), out=low)
            np.maximum(high, values.max(0), out=high)
            values -= origin
            total += values.sum(0)
            square += (values**2).sum(0)
        assert origin is not None  # a recording has at least one image
        count = len(recording)
        self.mean: NDArray[np.float64] = origin + total / count
        """Mean of each unit, ``(U,)``, in units of the gate."""
        self.constant: NDArray[np.bool_] = low == high
        """Whether all values of each unit are equal, ``(U,)``. They are then read as 0."""
        self.minimum: NDArray[np.float64] = low
        """Smallest value of each unit, ``(U,)``."""
        variance = np.where(self.constant, 0.0, np.maximum(square - total**2 / count, 0) / count)
        self.std: NDArray[np.float64] = np.sqrt(variance)
        """Standard deviation (N in the denominator), ``(U,)``; 0 for a constant unit."""

    def _raw(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for rows in gate_chunks(self._recording, self._gate):
            values = self._recording.values(self._gate, self._trait, rows)
            yield rows, values.reshape(len(values), -1).astype(np.float64)

    def read(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield row ranges and their standardized values, ``(n, U)``, which must not be changed."""
        images = len(self._recording)
        if self._held is None and images * len(self.mean) <= _HELD:
            self._held = np.concatenate([values for _, values in self._standardized()])
        if self._held is None:
            yield from self._standardized()
        else:
            yield slice(0, images), self._held

    def _standardized(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        scale = np.where(self.std > 0, self.std, 1)
        for rows, values in self._raw():
            values -= self.mean
            values /= scale
            values[:, self.constant] = 0
            yield rows, values.astype(np.float32)


def expect_finite(values: NDArray[np.floating], what: str, recording: Recording) -> None:
    """Raise an error if a value is NaN or infinite.

    A NaN compares as neither larger nor smaller, so that its rank would look like the first.

    Raises:
        InputError: a value is NaN or infinite.
    """
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise InputError(
            "AS704",
            f"{what} has NaN or infinite values (at least {wrong}); list them with: attnscope "
            f"verify {recording.folder}",
        )


def row_chunks(images: int, values: int = 1) -> Iterator[slice]:
    """Yield the rows of a recording in ranges that fit into memory.

    Args:
        images: number of images.
        values: number of values of each image.
    """
    chunk = max(1, min(_CHUNK, _CHUNK_VALUES // max(values, 1)))
    for start in range(0, images, chunk):
        yield slice(start, min(start + chunk, images))


def units_of(recording: Recording, gate: str) -> int:
    """Return the number of values of a gate for each image."""
    return int(np.prod(recording.gate(gate, slice(0, 0)).shape[1:]))


def gate_chunks(recording: Recording, gate: str) -> Iterator[slice]:
    """Yield the rows of a recording in ranges for which the values of a gate fit into memory."""
    return row_chunks(len(recording), units_of(recording, gate))


def unit_blocks(images: int, units: int) -> Iterator[slice]:
    """Yield ranges of units for which the values of all images fit into memory.

    Gates of kind ``full`` are as large as the features. A sum over units can be computed range by
    range.

    Args:
        images: number of images.
        units: number of values of each image.
    """
    block = max(1, _CHUNK_VALUES // max(images, 1))
    for start in range(0, units, block):
        yield slice(start, min(start + block, units))


def read_units(
    read: Callable[[slice], Float32[Array, "rows *gate"]], images: int, units: slice
) -> Float32[Array, "images units"]:
    """Read some units of a gate for all images.

    Args:
        read: returns the values of a range of rows, such as ``partial(recording.gate, name)``.
        images: number of images.
        units: range of units.
    """
    total = int(np.prod(read(slice(0, 0)).shape[1:]))
    values = np.empty((images, units.stop - units.start), np.float32)
    for rows in row_chunks(images, total):
        found = read(rows)
        values[rows] = found.reshape(len(found), -1)[:, units]
    return values


def gate_rows(
    recording: Recording, gate: str, rows: Int64[Array, " rows"]
) -> Float32[Array, "rows ..."]:
    """Read a gate for some rows of a recording, in any order.

    Args:
        recording: recording of one network.
        gate: name of the gate.
        rows: row numbers, ``(n,)``.

    Returns:
        ``(n, C)`` or ``(n, H, W)``, in the order of the rows.
    """
    first = recording.gate(gate, slice(0, 1))
    found = np.empty((len(rows), *first.shape[1:]), np.float32)
    for chunk in gate_chunks(recording, gate):
        inside = np.flatnonzero((rows >= chunk.start) & (rows < chunk.stop))
        if len(inside):
            found[inside] = recording.gate(gate, chunk)[rows[inside] - chunk.start]
    return found
