"""Reading the view of a gate without holding all of the gate in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnscope.recording.rows import Rows
from attnscope.views import View

_PIECE_BYTES = 2**26
"""How much of a gate is read at a time."""


def read_view(
    read: Callable[[Rows], NDArray[Any]], view: View, numbers: NDArray[np.int64]
) -> NDArray[Any]:
    """Reduce a gate while it is read.

    Args:
        read: Reads some rows of the gate.
        view: The reduction.
        numbers: The rows, ``(n,)``, or ``()`` for a single row without an axis of images.
    """
    first = read(slice(0, 1))
    step = max(1, _PIECE_BYTES // max(first.nbytes, 1))
    rows = np.atleast_1d(numbers)
    result = np.empty((len(rows), *view.reduce(first).shape[1:]), first.dtype)
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        result[piece] = view.reduce(read(rows[piece]))
    whole: NDArray[Any] = result if numbers.ndim else result[0]
    return whole
