"""Selections of images by row: slices, numbers, lists of numbers, and boolean masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = slice | SupportsIndex | Sequence[SupportsIndex] | NDArray[Any]
"""Rows of a recording: a slice, one number, several numbers, or a boolean mask with one value per
image. They work as indices of a NumPy array do: the order is kept, a row may occur twice, negative
numbers count from the end, and a single number removes the axis of images."""

ALL_ROWS = slice(None)


def row_numbers(rows: Rows, count: int) -> range | NDArray[np.int64]:
    """Return the numbers of the selected rows.

    Args:
        rows: The selection.
        count: Number of rows there are.

    Returns:
        The numbers, 0 to ``count - 1``, in the order of the selection: a range for a slice, else an
        array ``(n,)``, or ``()`` for a single number.

    Raises:
        IndexError: A number is out of range, a mask has another length, or the selection is neither
            of integers nor of booleans.
    """
    if isinstance(rows, slice):
        return range(*rows.indices(count))
    numbers = np.asarray(rows)
    if numbers.dtype == np.bool_ and numbers.ndim == 1:
        if len(numbers) != count:
            raise IndexError(f"the mask has {len(numbers)} values; it needs one per image, {count}")
        return np.flatnonzero(numbers)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64)  # an empty list becomes an array of floats
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.ndim > 1:
        raise IndexError(
            f"rows of a recording cannot be selected by {rows!r:.60}; use a slice, a number, a "
            "list of numbers or a boolean mask"
        )
    numbers = numbers.astype(np.int64)  # the sum below may not fit into a shorter type
    outside = (numbers < -count) | (numbers >= count)
    if outside.any():
        raise IndexError(
            f"row {numbers[outside].flat[0]} is out of range; there are {count} images"
        )
    return np.where(numbers < 0, numbers + count, numbers)


def consecutive(numbers: NDArray[np.int64]) -> list[slice]:
    """Return the slices of consecutive numbers that make up sorted numbers without duplicates."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
