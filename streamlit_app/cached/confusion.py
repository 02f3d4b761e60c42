"""What the pages on predictions show: confusion matrices, and lists of images."""

from __future__ import annotations

from typing import Any

import matrices
import numpy as np
import pandas as pd
from matrices import Look
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.statistics.confusion import order_by_confusion
from cached.caching import picture, statistic
from cached.found import Run

RATES, COUNTS = "Rates", "Counts"
BY_NUMBER, BY_SIMILARITY = "By number", "By similarity"


@statistic
def counts(run: Run) -> NDArray[np.int64]:
    """Count the images by true and predicted class, ``(K, K)``."""
    size = len(run.recording.classes)
    cells = run.recording.labels * size + run.recording.predictions
    return np.bincount(cells, minlength=size**2).reshape(size, size)


@statistic
def pairs(run: Run) -> pd.DataFrame:
    """``statistics.confused_pairs``"""
    return statistics.confused_pairs(run.recording)


@statistic
def order(run: Run, by: str) -> list[int]:
    """Return the class numbers in the order of the rows and columns."""
    if by == BY_SIMILARITY:
        return order_by_confusion(counts(run))
    return list(range(len(run.recording.classes)))


def values(run: Run, shown: str, by: str, errors_only: bool) -> tuple[NDArray[Any], Look]:
    """Return what the matrix shows, ``(K, K)``, and how it is colored.

    Args:
        run: the recording.
        shown: `RATES` or `COUNTS`.
        by: order of the classes, `BY_NUMBER` or `BY_SIMILARITY`.
        errors_only: leave out correct predictions (NaN), and fit the colors to the errors.
    """
    numbers = counts(run).astype(np.float64)
    if shown == RATES:
        totals = numbers.sum(1, keepdims=True)
        numbers = np.divide(numbers, totals, out=np.full_like(numbers, np.nan), where=totals > 0)
    if errors_only:
        np.fill_diagonal(numbers, np.nan)
    known = numbers[~np.isnan(numbers)]
    high = 1.0 if shown == RATES and not errors_only else float(known.max(initial=0)) or 1.0
    title = "share of the images of the true class" if shown == RATES else "images"
    look = Look(title, 0, high, "cividis", "cividis", ".1~%" if shown == RATES else "d")
    placed = order(run, by)
    return numbers[np.ix_(placed, placed)], look


@picture
def overview(run: Run, shown: str, by: str, errors_only: bool) -> bytes:
    """Draw all cells of the confusion matrix as PNG."""
    return matrices.picture(*values(run, shown, by, errors_only))
