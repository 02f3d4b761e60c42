"""Orders of classes and channels, so that neighbors in a picture are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.cluster import hierarchy

OPTIMAL = 512
"""Up to this number of rows the leaves of the tree are ordered optimally."""


def similarity_order(rows: ArrayLike) -> NDArray[np.int64]:
    """Order rows so that similar rows are neighbors.

    The rows are clustered by average linkage of their Euclidean distances (Sokal and Michener 1958,
    University of Kansas Science Bulletin 38). Of the orders that the tree allows, the one with the
    smallest sum of distances between neighbors is taken (Bar-Joseph, Gifford and Jaakkola 2001,
    Bioinformatics 17); with more than `OPTIMAL` rows, the order in which the tree was built.

    Args:
        rows: ``(n, d)``. Rows that contain NaN are put last, in their own order.

    Returns:
        Row numbers, ``(n,)``.
    """
    values = np.asarray(rows, np.float64)
    known = np.flatnonzero(np.isfinite(values).all(1))
    unknown = np.setdiff1d(np.arange(len(values)), known)
    if len(known) < 3:
        return np.concatenate([known, unknown])
    # Distances from products are many times faster than one by one, and the rows are centered so
    # that they lose no digits that would matter for an order.
    centered = values[known] - values[known].mean(0)
    products = centered @ centered.T
    squares = np.diag(products)
    upper = np.triu_indices(len(known), 1)
    distances = np.sqrt(np.maximum(squares[upper[0]] + squares[upper[1]] - 2 * products[upper], 0))
    tree = hierarchy.linkage(distances, "average")
    if len(known) <= OPTIMAL:
        tree = hierarchy.optimal_leaf_ordering(tree, distances)
    return np.concatenate([known[hierarchy.leaves_list(tree)], unknown])


def difference_order(means: ArrayLike) -> NDArray[np.int64]:
    """Order classes by the distance of their means from the mean over the classes, largest first.

    Args:
        means: mean of each class and channel, ``(K, C)``; NaN for a class without images, which
            is put last.

    Returns:
        Class numbers, ``(K,)``.
    """
    apart = np.nan_to_num((differences(means) ** 2).sum(1), nan=-1)
    return np.argsort(-apart, kind="stable")


def differences(means: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of each class minus the channel's mean over the classes.

    Args:
        means: mean of each class and channel, ``(K, C)``; NaN for a class without images.

    Returns:
        ``(K, C)``, with the same NaN.
    """
    values = np.asarray(means, np.float64)
    there = ~np.isnan(values).any(1)
    middle = values[there].mean(0) if there.any() else np.zeros(values.shape[1])
    apart: NDArray[np.float64] = values - middle
    return apart


def contrast(means: ArrayLike, classes: Sequence[int], channels: Sequence[int]) -> pd.DataFrame:
    """Compare the channels of some classes with those of all other classes.

    Every class has the same weight, whatever its number of images. There is no test.

    Args:
        means: mean of each class and channel, ``(K, C)``; NaN for a class without images, which
            is left out.
        classes: numbers of the classes.
        channels: numbers of the channels.

    Returns:
        One row per channel, in descending order of the size of the difference:

        - ``channel``
        - ``inside``: mean over the classes.
        - ``outside``: mean over all other classes.
        - ``difference``: inside - outside.

        Numbers are NaN if there is no class on one side.
    """
    values = np.asarray(means, np.float64)
    there = ~np.isnan(values).any(1)
    chosen = np.zeros(len(values), bool)
    chosen[list(classes)] = True
    columns = list(channels)

    def mean_over(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        if not rows.any():
            return np.full(len(columns), np.nan)
        found: NDArray[np.float64] = values[rows][:, columns].mean(0)
        return found

    inside, outside = mean_over(chosen & there), mean_over(~chosen & there)
    table = pd.DataFrame(
        {
            "channel": columns,
            "inside": inside,
            "outside": outside,
            "difference": inside - outside,
        }
    )
    order = np.argsort(-np.nan_to_num(np.abs(table["difference"]), nan=-1), kind="stable")
    return table.iloc[order].reset_index(drop=True)
