"""Means over areas whose borders may lie within a pixel. Does not import torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_areas(
    values: NDArray[Any],
    borders: tuple[ArrayLike, ArrayLike],
    cells: tuple[ArrayLike, ArrayLike],
) -> NDArray[np.float64]:
    """Average values that are constant within each pixel over the cells of another grid.

    A pixel that lies in two cells counts in each by the area that it has there, so the mean over a
    cell is exact, whether or not the borders of the cells are borders of pixels.

    Args:
        values: ``(..., h, w)``
        borders: the places of the borders between pixels along the height, ``(h + 1,)``, and along
            the width, ``(w + 1,)``, ascending.
        cells: the same of the cells, ``(H + 1,)`` and ``(W + 1,)``, within those of the pixels.

    Returns:
        ``(..., H, W)``
    """
    result = values
    for axis, old, new in zip((-2, -1), borders, cells, strict=True):
        old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
        result = np.moveaxis(_average(np.moveaxis(result, axis, -1), old, new), -1, axis)
    return result


def even_borders(start: float, stop: float, cells: int) -> NDArray[np.float64]:
    """Return the borders of equal cells, ``(cells + 1,)``."""
    return start + (stop - start) * np.arange(cells + 1) / cells


def _average(
    values: NDArray[Any], old: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Average along the last axis, by differences of the integral from the first border."""
    integral = np.zeros((*values.shape[:-1], len(old)))
    np.cumsum(values * np.diff(old), axis=-1, out=integral[..., 1:])
    pixel = np.clip(np.searchsorted(old, new, side="right") - 1, 0, len(old) - 2)
    at_new = integral[..., pixel] + (new - old[pixel]) * values[..., pixel]
    means: NDArray[np.float64] = np.diff(at_new, axis=-1) / np.diff(new)
    return means
