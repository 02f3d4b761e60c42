"""How alike two sets of maps are, image by image: arrays in, scores out.

Shared by what sets a gate beside Grad-CAM (``maps``) and one network beside another
(``comparison``).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from attnscope.statistics.profiles import class_moments

SCORES = ["spearman", "iou", "null_spearman", "null_iou"]


def score_maps(first: NDArray[np.float32], second: NDArray[np.float32], seed: int) -> pd.DataFrame:
    """Agreement of ``first[i]`` with ``second[i]``, and with ``second`` of another image.

    Args:
        first: ``(N, H, W)``
        second: ``(N, h, w)``; both are brought to the coarser grid by ``to_grid``.
        seed: chooses the other image; never the same one, and one that can be scored as well.

    Returns:
        One row an image: spearman and iou; null_spearman and null_iou, the same against the other
        image; scored. An image one of whose maps is constant at the coarser grid has no ranks: it
        is not scored, and all is NaN. With one scored image alone the null is NaN.
    """
    grid = (min(first.shape[1], second.shape[1]), min(first.shape[2], second.shape[2]))
    a = to_grid(first, grid).reshape(len(first), -1)
    b = to_grid(second, grid).reshape(len(second), -1)
    scored = (a.max(1) > a.min(1)) & (b.max(1) > b.min(1))
    rows = np.flatnonzero(scored)
    scores = np.full((len(a), 4), np.nan)
    scores[rows, 0] = rank_correlation(a[rows], b[rows])
    scores[rows, 1] = top_overlap(a[rows], b[rows])
    if len(rows) >= 2:
        others = rows[derangement(len(rows), seed)]
        scores[rows, 2] = rank_correlation(a[rows], b[others])
        scores[rows, 3] = top_overlap(a[rows], b[others])
    return pd.DataFrame(scores, columns=SCORES).assign(scored=scored)


def mean_scores(
    scores: pd.DataFrame, labels: NDArray[np.int64], classes: list[str]
) -> pd.DataFrame:
    """Means of ``score_maps`` over the scored images: of all, then of each class.

    Returns:
        class (``all`` first), the four scores (NaN where no image is scored), scored and constant
        (images that are scored, and that are not).
    """
    scored = scores["scored"].to_numpy()
    values = scores[SCORES].to_numpy()[scored]
    groups = class_moments(values, labels[scored], len(classes))
    every = class_moments(values, np.zeros(len(values), np.int64), 1)
    frame = pd.DataFrame(np.concatenate([every.mean, groups.mean]), columns=SCORES)
    frame.insert(0, "class", ["all", *classes])
    frame["scored"] = np.concatenate([every.count, groups.count])
    images = [len(labels), *np.bincount(labels, minlength=len(classes))]
    frame["constant"] = np.array(images) - frame["scored"]
    return frame


def to_grid(maps: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Means over areas: ``(N, H, W)`` to ``(N, *grid)``.

    Cell i of n covers the rows from ``floor(i H / n)`` to ``ceil((i + 1) H / n)``, as in PyTorch's
    adaptive average pooling: blocks where n divides H, else areas that overlap by one row.
    """
    if maps.shape[1:] == grid:
        return maps
    rows, columns = (_area_weights(old, new) for old, new in zip(maps.shape[1:], grid, strict=True))
    # Means of equal values differ in the last bit of the double; the rounding to single precision,
    # in which gates are stored, makes them equal again, so that a constant map stays constant.
    return (rows @ (maps @ columns.T)).astype(np.float32)


def _area_weights(old: int, new: int) -> NDArray[np.float64]:
    weights = np.zeros((new, old))
    for i in range(new):
        start, stop = i * old // new, -(-(i + 1) * old // new)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def rank_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spearman's rho of each row of ``a`` with the row of ``b``; ``(N, P)``, no row constant.

    Ties share their mean rank, and rho is Pearson's correlation of the ranks.
    """
    x, y = (stats.rankdata(values, axis=1) for values in (a, b))
    x -= x.mean(1, keepdims=True)
    y -= y.mean(1, keepdims=True)
    rho: NDArray[np.float64] = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return rho


def top_overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of the highest 20 % of each row of ``a`` and of ``b``; ``(N, P)``."""
    x, y = _top_places(a), _top_places(b)
    overlap: NDArray[np.float64] = np.minimum(x, y).sum(1) / np.maximum(x, y).sum(1)
    return overlap


def _top_places(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each pixel the share that is among the top fifth, rounded, and one pixel at least.

    Pixels that tie for the last places share them: a cut by index would favour one corner, and one
    that takes them all would take the whole map where a ReLU left few pixels above zero.
    """
    pixels = values.shape[1]
    places = max(1, (pixels + 2) // 5)
    last = np.partition(values, pixels - places, axis=1)[:, pixels - places, None]
    above, tied = values > last, values == last
    share = (places - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
    places_taken: NDArray[np.float64] = above + share * tied
    return places_taken


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A random order of 0 to ``count - 1``, at least two, in which none keeps its place.

    It is one cycle through all: uniform among the cycles, and free of rejected draws.
    """
    cycle = np.random.default_rng(seed).permutation(count)
    successor = np.empty(count, np.int64)
    successor[cycle] = np.roll(cycle, 1)
    return successor
