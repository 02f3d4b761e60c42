"""Spearman's rank correlation of many pairs of rows at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Num
from numpy.typing import NDArray
from scipy import stats

from attnscope.shapes import Array


def rank_correlation(
    a: Float32[Array, "images pixels"], b: Float32[Array, "images pixels"]
) -> Float64[Array, " images"]:
    """Return Spearman's rho between each row of ``a`` and the same row of ``b``.

    Ties share their mean rank, and rho is Pearson's correlation of the ranks.

    Args:
        a: ``(N, P)``, no row constant.
        b: ``(N, P)``, no row constant.

    Returns:
        ``(N,)``, -1 to 1.
    """
    return correlation(centered_ranks(a), centered_ranks(b))


def centered_ranks(values: Num[Array, "images pixels"]) -> Float64[Array, "images pixels"]:
    """Return the ranks along each row of ``(N, P)`` minus their mean; ties share their rank."""
    ranks: NDArray[np.float64] = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    return ranks


def correlation(
    x: Float64[Array, "images pixels"], y: Float64[Array, "#images pixels"]
) -> Float64[Array, " images"]:
    """Return Pearson's correlation of rows with mean 0.

    Args:
        x: ``(N, P)``
        y: ``(N, P)``, or one row for all, ``(1, P)``.

    Returns:
        ``(N,)``, -1 to 1.
    """
    rho: NDArray[np.float64] = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return rho


def standard_ranks(values: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """Return ranks along the last axis with mean 0 and length 1.

    Ties share their mean rank. The result is NaN where all values tie.
    """
    ranks: NDArray[np.float64] = stats.rankdata(values, axis=-1).astype(np.float64)
    ranks -= ranks.mean(-1, keepdims=True)
    length = np.sqrt((ranks**2).sum(-1, keepdims=True))
    return ranks / np.where(length > 0, length, np.nan)
