"""How alike two sets of maps are, image by image: arrays in, scores out.

Shared by what sets a gate beside Grad-CAM (``maps``) and one network beside another
(``comparison``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.statistics.profiles import class_moments
from attnscope.statistics.ranks import centered_ranks, correlation
from attnscope.statistics.resampling import (
    bootstrap_means,
    class_partners,
    derangement,
    percentile_interval,
)

SCORES = ["spearman", "iou", "null_spearman", "null_iou"]
CONTROLS = ["same_class_spearman", "same_class_iou", "center_spearman", "center_iou"]
INTERVALS = ["spearman_low", "spearman_high", "iou_low", "iou_high"]
INTERVALS += ["above_null", "above_null_low", "above_null_high"]


def score_maps(
    first: NDArray[np.float32], second: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> pd.DataFrame:
    """Agreement of ``first[i]`` with ``second[i]``, and with what knows nothing of image i.

    Args:
        first: ``(N, H, W)``
        second: ``(N, h, w)``; both are brought to the coarser grid by ``to_grid``.
        labels: the true classes, ``(N,)``.
        seed: chooses the other images; never the same one, and one that can be scored as well.

    Returns:
        One row an image: spearman and iou; null_spearman and null_iou, the same against ``second``
        of another image; same_class_spearman and same_class_iou, against that of another image of
        the same class; center_spearman and center_iou, of ``first`` against ``center_map``; scored.
        An image one of whose maps is constant at the coarser grid has no ranks: it is not scored,
        and all is NaN. NaN as well are the null of one scored image alone, the same_class scores of
        the only scored image of a class, and the center scores on a grid without a center.
    """
    grid = (min(first.shape[1], second.shape[1]), min(first.shape[2], second.shape[2]))
    a = to_grid(first, grid).reshape(len(first), -1)
    b = to_grid(second, grid).reshape(len(second), -1)
    scored = (a.max(1) > a.min(1)) & (b.max(1) > b.min(1))
    rows = np.flatnonzero(scored)
    others = derangement(len(rows), seed) if len(rows) >= 2 else None
    partners = class_partners(labels[rows], seed)
    paired = np.flatnonzero(partners >= 0)
    center = center_map(grid).reshape(1, -1)
    scores = {name: np.full(len(a), np.nan) for name in (*SCORES, *CONTROLS)}
    for measure, prepare, compare in (
        ("spearman", centered_ranks, correlation),
        ("iou", _top_places, _overlap),
    ):
        # Ranked once; every pairing is of the same ranks.
        x, y = prepare(a[rows]), prepare(b[rows])
        scores[measure][rows] = compare(x, y)
        if others is not None:
            scores[f"null_{measure}"][rows] = compare(x, y[others])
        own = compare(x[paired], y[partners[paired]])
        scores[f"same_class_{measure}"][rows[paired]] = own
        if center.max() > center.min():
            scores[f"center_{measure}"][rows] = compare(x, prepare(center))
    return pd.DataFrame(scores).assign(scored=scored)


def mean_scores(
    scores: pd.DataFrame, labels: NDArray[np.int64], classes: list[str]
) -> pd.DataFrame:
    """Means of ``score_maps`` over the scored images: of all, then of each class.

    Returns:
        class (``all`` first), the scores and controls (NaN where no image is scored; the same_class
        scores over the images that have a partner), scored and constant (images that are scored,
        and that are not).
    """
    frame = pd.DataFrame({"class": ["all", *classes]})
    scored = scores["scored"].to_numpy()
    paired = scores["same_class_spearman"].notna().to_numpy()
    counts = []
    for columns, members in (
        (SCORES, scored),
        (CONTROLS[:2], paired),
        (CONTROLS[2:], scored),
    ):
        values = scores.loc[members, columns].to_numpy()
        groups = class_moments(values, labels[members], len(classes))
        every = class_moments(values, np.zeros(len(values), np.int64), 1)
        frame[columns] = np.concatenate([every.mean, groups.mean])
        counts.append(np.concatenate([every.count, groups.count]))
    frame["scored"] = counts[0]
    images = [len(labels), *np.bincount(labels, minlength=len(classes))]
    frame["constant"] = np.array(images) - frame["scored"]
    return frame


def score_intervals(
    scores: pd.DataFrame, labels: NDArray[np.int64], classes: int, resamples: int, seed: int
) -> pd.DataFrame:
    """How far the means of ``mean_scores`` may lie from those over other images of the same kind.

    The 95 % percentile bootstrap over the scored images (Efron 1979, Annals of Statistics 7): of
    all, then of each class by itself.

    Args:
        scores: of ``score_maps``.
        labels: the true classes, ``(N,)``.
        classes: their number.
        resamples: of the images.
        seed: of the resamples.

    Returns:
        The rows of ``mean_scores``: spearman_low, spearman_high, iou_low, iou_high; above_null, the
        mean of spearman - null_spearman, image by image, with above_null_low and above_null_high.
        One scored image has no interval: NaN.
    """
    rng = np.random.default_rng([seed, 2])
    scored = scores["scored"].to_numpy()
    of_scored = scores[scored]
    above = of_scored["spearman"] - of_scored["null_spearman"]
    values = np.column_stack([of_scored["spearman"], of_scored["iou"], above])
    groups = labels[scored]
    rows = np.full((1 + classes, len(INTERVALS)), np.nan)
    for row, members in enumerate([values, *(values[groups == k] for k in range(classes))]):
        if len(members) >= 1:
            rows[row, 4] = members[:, 2].mean()
        if len(members) >= 2:
            means = bootstrap_means(members, resamples, rng)
            rows[row, [0, 2, 5]], rows[row, [1, 3, 6]] = percentile_interval(means)
    return pd.DataFrame(rows, columns=INTERVALS)


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


def top_overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of the highest 20 % of each row of ``a`` and of ``b``; ``(N, P)``."""
    return _overlap(_top_places(a), _top_places(b))


def _overlap(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    overlap: NDArray[np.float64] = np.minimum(x, y).sum(1) / np.maximum(x, y).sum(1)
    return overlap


def _top_places(values: NDArray[Any]) -> NDArray[np.float64]:
    """Of each pixel the share that is among the top fifth, rounded, and one pixel at least.

    Pixels that tie for the last places share them: a cut by index would favor one corner, and one
    that takes them all would take the whole map where a ReLU left few pixels above zero.
    """
    pixels = values.shape[1]
    places = max(1, (pixels + 2) // 5)
    last = np.partition(values, pixels - places, axis=1)[:, pixels - places, None]
    above, tied = values > last, values == last
    share = (places - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
    places_taken: NDArray[np.float64] = above + share * tied
    return places_taken


def center_map(grid: tuple[int, int]) -> NDArray[np.float64]:
    """A Gaussian in the middle of the grid, ``(H, W)``, its deviation a quarter of each side.

    Its highest value would be 1, between the cells where a side is even. Up to two cells a side are
    all equally far from the middle, and a grid of such sides is constant.
    """
    height, width = grid
    # Of whole numbers, so that what is equally far from the middle is so to the last bit, and ties.
    rows = (2 * np.arange(height) - height + 1) * width
    columns = (2 * np.arange(width) - width + 1) * height
    square = rows[:, None] ** 2 + columns[None] ** 2
    gaussian: NDArray[np.float64] = np.exp(-2 * square / (height * width) ** 2)
    return gaussian
