"""Scores of maps against masks: the energy inside a mask, and the pointing game, with two nulls.

Both scores of an image are a sum over cells, ``Σ inside · weight``: the share of each cell that is
inside of the mask, times weights that add up to 1 and come from the map alone. So the mean score
with the maps of all other images is a sum as well, and no image needs to be drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy.typing import NDArray
from scipy import stats

from attnscope.shapes import Array
from attnscope.statistics.agreement import center_map
from attnscope.statistics.inference import FEWEST, t_interval

ENERGY, POINTING = "energy", "pointing"
CENTER, OTHER = "center", "other"
NULLS = (CENTER, OTHER)


def energy_weights(
    maps: Float[Array, "images height width"],
) -> Float64[Array, "images cells"]:
    """Return the share of each cell of a map in its energy, ``(N, H W)``.

    The energy of a cell is its value above the lowest value of the map, so that the shares depend
    neither on the offset nor on the scale of a map.

    Args:
        maps: ``(N, H, W)``

    Returns:
        Each row adds up to 1; NaN where a map is constant.
    """
    values = maps.reshape(len(maps), -1).astype(np.float64)
    values -= values.min(1, keepdims=True)
    total = values.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        values /= total
    return values


def pointing_weights(
    maps: Float[Array, "images height width"],
) -> Float64[Array, "images cells"]:
    """Return where a map is highest, ``(N, H W)``: 1 at that cell; cells that tie share it.

    Args:
        maps: ``(N, H, W)``

    Returns:
        Each row adds up to 1; NaN where a map is constant.
    """
    values = maps.reshape(len(maps), -1)
    highest = values.max(1, keepdims=True)
    top: NDArray[np.float64] = (values == highest).astype(np.float64)
    top /= top.sum(1, keepdims=True)
    top[values.min(1) == highest[:, 0]] = np.nan
    return top


MEASURES: dict[str, Callable[[NDArray[np.floating]], NDArray[np.float64]]] = {
    ENERGY: energy_weights,
    POINTING: pointing_weights,
}
"""Measure -> the weights of a map."""


@dataclass(frozen=True)
class Localization:
    """One measure of one map, image by image, and its differences to the two nulls."""

    scored: Bool[Array, " images"]
    """Whether the map of an image is not constant. All arrays below have one row per such image."""
    value: Float64[Array, " scored"]
    center: Float64[Array, " scored"]
    """The score of a Gaussian at the center; NaN on a grid without a center."""
    other: Float64[Array, " scored"]
    """The mean score of the maps of all other scored images; NaN for a single image."""
    over_center: Float64[Array, " scored"]
    over_other: Float64[Array, " scored"]
    """Pseudovalues whose mean is that of ``value - other``, see `localize`. NaN for fewer than
    three images."""


def localize(
    inside: Float[Array, "images height width"],
    maps: Float[Array, "images height width"],
    measure: str,
    among: Bool[Array, " images"] | None = None,
) -> Localization:
    """Score where maps lie.

    With the shares ``c`` of the cells inside and the weights ``w`` of the map, the score of image i
    is ``cᵢ · wᵢ``. Its null with the maps of all other images is ``cᵢ · Σ wⱼ / (n - 1)``, j ≠ i.
    The mean difference is the sample covariance of both, summed over cells:
    ``θ = Σ (cᵢ - c̄) · (wᵢ - w̄) / (n - 1)``. Its standard error is that of its jackknife
    pseudovalues ``n θ - (n - 1) θ₋ᵢ`` (Tukey 1958, Annals of Mathematical Statistics 29), where
    ``θ₋ᵢ`` is θ without image i. The spread of ``value - other`` itself is too large, because the
    mean map does not vary with the image.

    Args:
        inside: which share of each cell is inside of the mask, ``(N, H, W)``.
        maps: the maps on the same grid.
        measure: ``energy`` or ``pointing``.
        among: the images that may be scored; default all.
    """
    cells = inside.reshape(len(inside), -1).astype(np.float64)
    weights = MEASURES[measure](maps)
    scored = ~np.isnan(weights[:, 0])
    if among is not None:
        scored &= among
    cells, weights = cells[scored], weights[scored]
    n = len(cells)
    value = np.einsum("ij,ij->i", cells, weights)
    height, width = maps.shape[1:]
    center = center_map((height, width))[None]
    middle = cells @ MEASURES[measure](center)[0]
    if n < 2:
        alone = np.full(n, np.nan)
        return Localization(scored, value, middle, alone, value - middle, alone)
    other = (cells @ weights.sum(0) - value) / (n - 1)
    if n < 3:
        return Localization(scored, value, middle, other, value - middle, np.full(n, np.nan))
    products = np.einsum("ij,ij->i", cells - cells.mean(0), weights - weights.mean(0))
    covariance = products.sum() / (n - 1)
    without = (products.sum() - products * n / (n - 1)) / (n - 2)
    pseudo = n * covariance - (n - 1) * without
    return Localization(scored, value, middle, other, value - middle, pseudo)


def mean_test(terms: Float64[Array, " images"]) -> dict[str, float]:
    """Return the mean of differences with Student's t interval (95%) and t test.

    Null hypothesis of p: the mean is 0.

    Args:
        terms: one term for each image, ``(n,)``.

    Returns:
        ``mean``, ``low``, ``high``, ``p`` and ``std``. All but the mean and ``std`` are NaN if
        fewer than `FEWEST` terms differ from the most frequent one, because the mean then rests on
        too few images.
    """
    n = len(terms)
    mean = float(terms.mean()) if n else np.nan
    found = {"mean": mean, "low": np.nan, "high": np.nan, "p": np.nan, "std": np.nan}
    if n < 2 or not np.isfinite(terms).all():
        return found
    std = float(terms.std(ddof=1))
    usual = int(np.unique(terms, return_counts=True)[1].max())
    if n - usual < FEWEST or not std:
        return found | {"std": std}
    error = std / np.sqrt(n)
    low, high = t_interval(mean, error, n - 1)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return {"mean": mean, "low": float(low), "high": float(high), "p": p, "std": std}
