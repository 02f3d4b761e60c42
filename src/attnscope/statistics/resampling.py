"""Bootstraps, and the p values and intervals of resampled and permuted values.

scipy's ``bootstrap``, which makes one call per draw, is not used: the means of many resamples are
one product of matrices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy import stats

from attnscope.errors import InputError
from attnscope.shapes import Array
from attnscope.statistics.inference import ENDS, LEVEL, normal_interval
from attnscope.statistics.ranks import standard_ranks
from attnscope.statistics.splits import expect_positive

_DRAWS = 2**21
"""Number of images that are drawn at a time for bootstrapped means."""
_SUMMED = 2**22
"""Number of values that are drawn at a time for bootstrapped sums."""
_EXACT_UP_TO = 7
"""Up to this number of classes all orders (7! = 5,040) are enumerated instead of drawn."""
_ORDERS = 9_999
"""Number of random orders for longer lists."""
_TIE = 1e-9
"""Tolerance below the observed value within which a permuted value counts as a tie.

Both are sums in double precision, whose last digits depend on the order.
"""
_TIE_OF_DRAWS = 1e-6
"""The same, as a share of the observed value, for values that a network computed in single
precision.
"""


def bootstrap_means(
    values: Float64[Array, "images values"],
    resamples: int,
    rng: np.random.Generator,
    groups: Int64[Array, " images"] | None = None,
) -> Float64[Array, "resamples values"]:
    """Return bootstrapped means over images: ``(n, V)`` to ``(resamples, V)``.

    The number of times that each image is drawn is multinomial. The means are these counts times
    the values.

    Args:
        values: ``(n, V)``
        resamples: number of resamples.
        rng: random generator.
        groups: group of each image, ``(n,)``. Whole groups are drawn, and a mean is the sum over
            the drawn images divided by their number.
    """
    if groups is not None:
        _, of_image = np.unique(groups, return_inverse=True)
        sums = np.zeros((int(of_image.max()) + 1, values.shape[1] + 1))
        np.add.at(sums, of_image, np.hstack([values, np.ones((len(values), 1))]))
        drawn = bootstrap_means(sums, resamples, rng)
        return drawn[:, :-1] / drawn[:, -1:]
    return bootstrap_together([values], resamples, rng)[0]


def bootstrap_together(
    values: Sequence[Float64[Array, "images _"]], resamples: int, rng: np.random.Generator
) -> list[Float64[Array, "resamples _"]]:
    """Return the `bootstrap_means` of several arrays of the same images, under the same resamples.

    Drawing takes longer than the means, and is done once.

    Args:
        values: ``(n, V)`` each.
        resamples: number of resamples.
        rng: random generator.
    """
    images = len(values[0])
    block = max(1, _DRAWS // images)
    means: list[list[NDArray[np.float64]]] = [[] for _ in values]
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        # Drawing and counting is faster than Generator.multinomial, which draws a binomial number
        # for each image.
        drawn = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
        count = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        weights = count.astype(np.float64)
        for parts, each in zip(means, values, strict=True):
            parts.append(weights @ each / images)
    return [np.concatenate(parts) for parts in means]


def permutation_p(
    permuted: NDArray[np.float64], observed: NDArray[np.float64], scale: float = 0.0
) -> NDArray[np.float64]:
    """Return the p value of a permutation test.

    ``p = (1 + number of permuted values at least as large as the observed one) / (1 + B)``. The
    observed labeling counts as one of the permutations, so that p is never 0 and the test is exact
    (Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9).

    Args:
        permuted: values under B permutations, ``(B, ...)``.
        observed: observed values ``(...)``, or any shape that broadcasts with ``permuted[0]``.
        scale: size of the terms whose difference the values are, if they can cancel. Values that
            differ by less than a billionth of it, or of the observed value, count as ties.

    Returns:
        One-sided p values, ``(...)``.
    """
    floor = observed - _TIE * np.maximum(np.abs(observed), scale)
    found: NDArray[np.float64] = (1 + (permuted >= floor).sum(0)) / (1 + len(permuted))
    return found


def sequential_p(
    drawn: Float64[Array, " draws"], observed: float, exceedances: int | None, most: int
) -> tuple[float, int, bool]:
    """Return the p value of a Monte Carlo test that stops early (Besag and Clifford 1991).

    Values are drawn from the null one by one, until h of them are at least as large as the observed
    one or n are drawn. If the h-th comes with draw l, then ``p = h / l``; with g < h of n draws,
    ``p = (g + 1) / (n + 1)``. Under the null, P(p <= x) = x for each value x that p can take. Only
    large p values stop early: below ``h / n``, p is that of all draws (`permutation_p`).

    Args:
        drawn: the values drawn so far, ``(B,)``, in their order. Those after draw l are not used.
        observed: the observed value.
        exceedances: h; None draws all.
        most: n.

    Returns:
        p; the number of draws on which it rests; and whether the test has stopped. Until then p is
        not valid.

    Raises:
        InputError: AS716, h is below 1.

    Source: Besag and Clifford 1991, Biometrika 78.
    """
    if exceedances is not None and exceedances < 1:
        raise InputError(
            "AS716",
            f"the number of exceedances is {exceedances}; it must be at least 1, usually 10",
        )
    tried = drawn[:most]
    is_exceeding = tried >= observed - _TIE_OF_DRAWS * abs(observed)
    count = np.cumsum(is_exceeding)
    if exceedances is not None and len(count) and count[-1] >= exceedances:
        used = int(np.searchsorted(count, exceedances)) + 1
        return exceedances / used, used, True
    return (1 + int(is_exceeding.sum())) / (1 + len(tried)), len(tried), len(tried) == most


def null_band(permuted: Float64[Array, " draws"]) -> tuple[float, float]:
    """Return the 95% band of a null distribution from B permuted values.

    The ends are the permuted values at the ranks q (B + 1) for q = 0.025 and 0.975 (Hyndman and Fan
    1996, The American Statistician 50, definition 6). A further value from the null lies outside
    with a probability of 5% for any B such that 40 divides B + 1. Percentiles that interpolate
    otherwise are too narrow: with 99 permutations 6.9% would lie outside. With fewer than 39 values
    the band ends at the smallest and the largest.

    Args:
        permuted: ``(B,)``

    Returns:
        low and high.
    """
    low, high = np.quantile(permuted, ENDS, method="weibull")
    return float(low), float(high)


def upper_limit(permuted: Float64[Array, " draws"], level: float = LEVEL) -> float:
    """Return the limit of a one-sided permutation test: what is larger is significant.

    Args:
        permuted: values under B permutations, ``(B,)``.
        level: significance level.

    Returns:
        The smallest value that `permutation_p` does not find significant in any case; NaN if there
        are too few permutations for a p below the level.
    """
    draws = len(permuted)
    allowed = int(((1 + np.arange(draws + 1)) / (1 + draws) < level).sum())
    return float(np.sort(permuted)[draws - allowed]) if allowed else np.nan


def bootstrap_interval(
    values: Float64[Array, "images values"],
    resamples: int = 1000,
    seed: int = 0,
    groups: Int64[Array, " images"] | None = None,
) -> tuple[Float64[Array, " values"], Float64[Array, " values"]]:
    """Return the 95% percentile bootstrap interval of means (Efron 1979, Annals of Statistics 7).

    Args:
        values: V values per image, resampled together, ``(N, V)``.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.
        groups: group of each image, ``(N,)``, as in `bootstrap_means`.

    Returns:
        low and high, ``(V,)``; NaN with fewer than two images or groups.

    Raises:
        InputError: resamples is below 1.
    """
    expect_positive("resamples", resamples, 1000)
    if len(values) < 2 or (groups is not None and len(np.unique(groups)) < 2):
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing.copy()
    rng = np.random.default_rng(seed)
    return percentile_interval(bootstrap_means(values, resamples, rng, groups))


def bootstrap_sums(
    values: Float64[Array, "images values"], resamples: int, rng: np.random.Generator
) -> Float64[Array, "draws values"]:
    """Return sums over images: those observed, then bootstrapped: ``(n, V)`` to ``(1 + resamples,
    V)``.
    """
    sums = [values.sum(0)[None]]
    block = max(1, _SUMMED // max(values.size, 1))
    for begin in range(0, resamples, block):
        size = (min(block, resamples - begin), len(values))
        sums.append(values[rng.integers(0, max(len(values), 1), size)].sum(1))
    return np.concatenate(sums)


def percentile_interval(
    drawn: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95% percentile interval of resampled values (Efron 1979, Annals of Statistics 7).

    Args:
        drawn: one value per resample, ``(B, ...)``, none NaN.

    Returns:
        low and high, ``(...)``.
    """
    low, high = np.quantile(drawn, ENDS, axis=0)
    return low, high


def centered_interval(found: float, drawn: Float64[Array, " resamples"]) -> tuple[float, float]:
    """Return a 95% normal interval from a bootstrap whose resamples are biased.

    The bias of the resamples is subtracted once, and their standard deviation is the standard
    error: ``2 found - mean(drawn) ± 1.96 sd(drawn)`` (Davison and Hinkley 1997, Bootstrap Methods
    and Their Application, 5.2.1).

    Args:
        found: observed value.
        drawn: value of each resample, ``(B,)``; NaN where a resample has none.

    Returns:
        low and high.
    """
    return normal_interval(2 * found - float(np.nanmean(drawn)), float(np.nanstd(drawn)))


def mantel(
    x: Float64[Array, "classes classes"],
    y: Float64[Array, "classes classes"],
    permutations: int,
    seed: int,
) -> tuple[float, float]:
    """Run a two-sided Mantel test on two matrices of distances between classes.

    Null hypothesis: the assignment of classes in y is independent of that in x (Mantel 1967, Cancer
    Research 27).

    Args:
        x: symmetric distances, ``(K, K)``, not all equal.
        y: symmetric distances, ``(K, K)``, not all equal.
        permutations: number of random orders of the classes of y if there are more than seven;
            otherwise all orders are enumerated.
        seed: seed of the orders.

    Returns:
        Spearman's rho over the pairs of classes, and p.
    """
    classes = len(x)
    rows, columns = np.triu_indices(classes, 1)
    ranks = standard_ranks(x[rows, columns][None])[0]
    # An order of the classes moves the distances of y but does not change their ranks.
    moved = np.zeros((classes, classes))
    moved[rows, columns] = moved[columns, rows] = standard_ranks(y[rows, columns][None])[0]
    rho = float(ranks @ moved[rows, columns])
    orders: Iterator[NDArray[np.int64]]
    if classes <= _EXACT_UP_TO:
        orders = map(np.array, itertools.permutations(range(classes)))
        found = np.abs([ranks @ moved[order[rows], order[columns]] for order in orders])
        return rho, float((found >= abs(rho) - 1e-9).mean())
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(classes) for _ in range(permutations))
    drawn = np.array([ranks @ moved[order[rows], order[columns]] for order in orders])
    return rho, float(permutation_p(np.abs(drawn), np.array(abs(rho)), scale=1.0))


def order_test(
    x: Float64[Array, " values"], y: Float64[Array, " values"], seed: int
) -> tuple[float, float]:
    """Test Spearman's rho of two lists by permuting the order of one of them.

    Null hypothesis: all orders of y are equally likely. All orders are enumerated for up to seven
    values; 9,999 random orders are drawn for more, and the observed order is counted with them.

    Args:
        x: ``(K,)``
        y: ``(K,)``
        seed: seed of the orders.

    Returns:
        rho and the two-sided p. Both are NaN with fewer than three values, or if all values of a
        list are equal.
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan
    ranks = stats.zscore(stats.rankdata(y))
    # The t distribution is anticonservative: with eight classes p < 0.05 in 5.8% of all orders.
    found = stats.permutation_test(
        (stats.zscore(stats.rankdata(x)),),
        lambda order, axis: (order * ranks).mean(axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_ORDERS,
        rng=np.random.default_rng(seed),
    )
    return float(found.statistic), float(found.pvalue)
