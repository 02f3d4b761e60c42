"""Agreement between two sets of maps, image by image.

`attnscope.statistics.maps` compares gates with Grad-CAM, and `attnscope.statistics.comparison`
compares the Grad-CAM of two networks. Both use these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

from attnscope.shapes import Array
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.ranks import centered_ranks, correlation
from attnscope.statistics.resampling import bootstrap_together, percentile_interval
from attnscope.statistics.splits import class_partners, derangement

SCORES = ["spearman", "iou", "null_spearman", "null_iou"]
CONTROLS = ["same_class_spearman", "same_class_iou", "center_spearman", "center_iou"]
INTERVALS = ["spearman_low", "spearman_high", "iou_low", "iou_high"]
INTERVALS += ["above_null", "above_null_low", "above_null_high"]
_LOW, _HIGH = [0, 2, 5], [1, 3, 6]
"""Places of the ends in `INTERVALS`."""
_MAPS = 1024
"""Number of maps that are averaged over areas at a time."""


def score_maps(
    first: Float32[Array, "images height width"],
    second: Float32[Array, "images rows columns"],
    labels: Int64[Array, " images"],
    seed: int,
) -> pd.DataFrame:
    """Score the agreement between two maps of each image, and three controls.

    Both maps are averaged to the coarser grid with `to_grid`. The controls are the same scores
    between ``first[i]`` and a map that does not belong to image i: ``second`` of another image,
    ``second`` of another image of the same class, and `center_map`.

    Args:
        first: the first map of each image, ``(N, H, W)``.
        second: the second map of each image, ``(N, h, w)``.
        labels: the true class of each image, ``(N,)``.
        seed: seed of the pairing of images in the first two controls. An image is never paired with
            itself, and only scored images are paired.

    Returns:
        One row per image:

        - ``spearman``: Spearman's rho over the pixels, -1 to 1.
        - ``iou``: intersection over union of the top 20% of the pixels, 0 to 1.
        - ``null_spearman``, ``null_iou``: the scores against another image.
        - ``same_class_spearman``, ``same_class_iou``: the scores against another image of the same
          class.
        - ``center_spearman``, ``center_iou``: the scores of ``first`` against `center_map`.
        - ``scored``: False where one of the two maps is constant on the coarser grid. Such a map
          has no ranks, and all scores of the image are NaN.

        Also NaN are the null scores if only one image is scored, the same-class scores of the only
        scored image of a class, and the center scores on a grid where `center_map` is constant.
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
        # Ranks are computed once and used for every pairing.
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
    scores: pd.DataFrame, labels: Int64[Array, " images"], classes: list[str]
) -> pd.DataFrame:
    """Average the scores of `score_maps` over all images and over each class.

    Args:
        scores: the table of `score_maps`.
        labels: the true class of each image, ``(N,)``.
        classes: the class names.

    Returns:
        One row for ``all`` images, then one row per class:

        - ``class``: ``all`` or the class name.
        - the columns of `score_maps` except ``scored``: means over the scored images, NaN if there
          are none. The same-class scores are averaged over the images that have a partner.
        - ``scored``, ``constant``: number of images with and without scores.
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
    scores: pd.DataFrame,
    labels: Int64[Array, " images"],
    classes: int,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Compute `intervals_of_scores` of one table of scores."""
    return intervals_of_scores([scores], labels, classes, resamples, seed)[0]


def intervals_of_scores(
    scores: Sequence[pd.DataFrame],
    labels: Int64[Array, " images"],
    classes: int,
    resamples: int,
    seed: int,
    *,
    of_classes: bool = True,
) -> list[pd.DataFrame]:
    """Compute bootstrap intervals for the means of `mean_scores`, for several tables at once.

    The intervals are 95% percentile intervals over the scored images (Efron 1979, Annals of
    Statistics 7). All images and each class are resampled separately.

    Args:
        scores: the tables of `score_maps`. Those that score the same images share their resamples,
            and each has the intervals that it has alone.
        labels: the true class of each image, ``(N,)``.
        classes: number of classes.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        A table for each of the scores, with one row for each row of `mean_scores`:

        - ``spearman_low``, ``spearman_high``, ``iou_low``, ``iou_high``: ends of the intervals.
        - ``above_null``: mean over the images of ``spearman - null_spearman``, with its interval
          ``above_null_low``, ``above_null_high``.

        The ends are NaN with fewer than two scored images.
    """
    alike: dict[bytes, list[int]] = {}
    for number, table in enumerate(scores):
        alike.setdefault(table["scored"].to_numpy().tobytes(), []).append(number)
    found: dict[int, pd.DataFrame] = {}
    for numbers in alike.values():
        scored = scores[numbers[0]]["scored"].to_numpy()
        values = [_resampled_scores(scores[number][scored]) for number in numbers]
        groups = labels[scored]
        # All images come first in the random stream.
        rng = np.random.default_rng([seed, 2])
        rows = np.full((len(numbers), 1 + classes, len(INTERVALS)), np.nan)
        for row in range(1 + classes):
            inside = slice(None) if row == 0 else groups == row - 1
            members = [each[inside] for each in values]
            if len(members[0]) >= 1:
                rows[:, row, 4] = [each[:, 2].mean() for each in members]
            if len(members[0]) >= 2 and (of_classes or row == 0):
                drawn = bootstrap_together(members, resamples, rng)
                for ends, means in zip(rows[:, row], drawn, strict=True):
                    ends[[0, 2, 5]], ends[[1, 3, 6]] = percentile_interval(means)
        tables = (pd.DataFrame(each, columns=INTERVALS) for each in rows)
        found |= dict(zip(numbers, tables, strict=True))
    return [found[number] for number in range(len(scores))]


def _resampled_scores(scores: pd.DataFrame) -> NDArray[np.float64]:
    """Return Spearman's rho, the IoU, and rho minus that of another image, ``(n, 3)``."""
    above = scores["spearman"] - scores["null_spearman"]
    return np.column_stack([scores["spearman"], scores["iou"], above])


def to_grid(
    maps: Float32[Array, "images height width"], grid: tuple[int, int]
) -> Float32[Array, "images rows columns"]:
    """Average maps over areas: ``(N, H, W)`` to ``(N, *grid)``.

    Cell i of n covers the rows from ``floor(i H / n)`` to ``ceil((i + 1) H / n)``, as in PyTorch's
    adaptive average pooling. The areas are blocks where n divides H; otherwise neighbors overlap by
    one row.
    """
    if maps.shape[1:] == grid:
        return maps
    rows, columns = (_area_weights(old, new) for old, new in zip(maps.shape[1:], grid, strict=True))
    # Means of equal values can differ in the last bit. Rounding to single precision, in which gates
    # are stored, makes them equal again, so that a constant map stays constant.
    found = np.empty((len(maps), *grid), np.float32)
    for begin in range(0, len(maps), _MAPS):  # whose double precision fits into memory
        piece = slice(begin, begin + _MAPS)
        found[piece] = rows @ (maps[piece] @ columns.T)
    return found


def _area_weights(old: int, new: int) -> NDArray[np.float64]:
    weights = np.zeros((new, old))
    for i in range(new):
        start, stop = i * old // new, -(-(i + 1) * old // new)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def top_count(pixels: int) -> int:
    """Return the number of pixels in the top fifth of a map: rounded, and at least one."""
    return max(1, (pixels + 2) // 5)


def _overlap(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of the `_top_places` of each row, 0 to 1."""
    overlap: NDArray[np.float64] = np.minimum(x, y).sum(1) / np.maximum(x, y).sum(1)
    return overlap


def _top_places(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of each pixel that belongs to the top fifth of its row, 0 to 1.

    The top fifth is rounded and holds at least one pixel. Pixels that tie for the last places share
    them equally: selecting by index would favor one corner, and selecting all tied pixels would
    select the whole map where a ReLU leaves few pixels above zero.
    """
    pixels = values.shape[1]
    places = top_count(pixels)
    last = np.partition(values, pixels - places, axis=1)[:, pixels - places, None]
    above, tied = values > last, values == last
    share = (places - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
    places_taken: NDArray[np.float64] = above + share * tied
    return places_taken


def center_map(grid: tuple[int, int]) -> Float64[Array, "height width"]:
    """Return a Gaussian centered on the grid, ``(H, W)``.

    Its standard deviation is a quarter of each side. It would be 1 at the center, which lies
    between cells where a side is even. On a grid with at most two cells per side all cells are
    equally far from the center, and the map is constant.
    """
    height, width = grid
    # Integers, so that cells equally far from the center tie exactly.
    rows = (2 * np.arange(height) - height + 1) * width
    columns = (2 * np.arange(width) - width + 1) * height
    square = rows[:, None] ** 2 + columns[None] ** 2
    gaussian: NDArray[np.float64] = np.exp(-2 * square / (height * width) ** 2)
    return gaussian
