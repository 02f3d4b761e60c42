"""Spearman's rank correlation, of many pairs of rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def rank_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spearman's rho of each row of ``a`` with the row of ``b``; ``(N, P)``, no row constant.

    Ties share their mean rank, and rho is Pearson's correlation of the ranks.
    """
    return correlation(centered_ranks(a), centered_ranks(b))


def centered_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks along each row, ``(N, P)``, less their mean; ties share theirs."""
    ranks: NDArray[np.float64] = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    return ranks


def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of rows whose means are 0, ``(N, P)`` or one row for all: ``(N,)``."""
    rho: NDArray[np.float64] = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return rho


def standard_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the last axis with mean 0 and length 1; ties share theirs, NaN where all tie."""
    ranks: NDArray[np.float64] = stats.rankdata(values, axis=-1).astype(np.float64)
    ranks -= ranks.mean(-1, keepdims=True)
    length = np.sqrt((ranks**2).sum(-1, keepdims=True))
    return ranks / np.where(length > 0, length, np.nan)
