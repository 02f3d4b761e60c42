"""p values, corrections for multiple tests, and intervals. Each is defined here and nowhere else.

This module also defines what counts as significant. scipy does the arithmetic where it has the
method. Five methods are implemented here: Holm's correction and the interval of a mean share, which
scipy lacks; Bonett and Price's interval and Korn and Graubard's, which statsmodels lacks as well;
and `paired_interval`, which keeps the last digits of tables written by earlier versions (scipy's
``ttest_1samp`` rounds differently). The tests compare all of them with statsmodels. Permutation
tests and bootstraps are in `attnscope.statistics.resampling`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from attnscope.shapes import Array

LEVEL = 0.05
"""Significance level. A p value below it is significant, after correction for several tests."""
ENDS = (0.025, 0.975)
"""Quantiles at the ends of every 95% confidence interval and of every 95% band under the null."""
FEWEST = 10
"""Smallest number of images for which the mean of values near a bound has an interval."""
_ROUNDING = 1e-12


def significant(p: ArrayLike, level: float = LEVEL) -> NDArray[np.bool_]:
    """Return whether p values are below the significance level.

    Args:
        p: p values of any shape. NaN means that there is no test, and is not significant.
        level: the significance level.

    Returns:
        Booleans of the shape of p.
    """
    return np.asarray(p, np.float64) < level


def holm(p: Float64[Array, " tests"]) -> Float64[Array, " tests"]:
    """Correct p values by Holm's method (Holm 1979, Scandinavian Journal of Statistics 6).

    The correction controls the family-wise error rate, the probability of at least one false
    finding, under any dependence between the tests.

    Args:
        p: p values of the tests, ``(T,)``. NaN means that there is no test; it stays NaN and is not
            counted.

    Returns:
        Corrected p values, ``(T,)``.
    """
    adjusted = np.full(p.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def mcnemar(right_a: Bool[Array, " images"], right_b: Bool[Array, " images"]) -> float:
    """Return the two-sided p value of the exact McNemar test (1947, Psychometrika 12).

    Null hypothesis: an image that is correct in exactly one of the two conditions is equally likely
    to be correct in either.

    Args:
        right_a: whether each image is correct in the first condition, ``(N,)``.
        right_b: whether the same image is correct in the second condition, ``(N,)``.

    Returns:
        p; 1 if no image is correct in exactly one condition.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def paired_t(first: Float[Array, " images"], second: Float[Array, " images"]) -> float:
    """Return the two-sided p value of Student's paired t test.

    Null hypothesis: the mean difference is 0.

    Args:
        first: values in the first condition, ``(N,)``.
        second: values of the same images in the second condition, ``(N,)``.

    Returns:
        p; NaN with fewer than two images. If all differences are equal, p is 1 for differences of 0
        and 0 otherwise.
    """
    shift = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    if len(shift) < 2:
        return np.nan
    if not shift.std():  # the t statistic is undefined without variance
        return float(shift[0] == 0)
    return float(stats.ttest_1samp(shift, 0).pvalue)


def paired_interval(difference: Float64[Array, " pairs"]) -> dict[str, float]:
    """Return the mean of paired differences with Student's t interval (95%) and paired t test.

    Null hypothesis of p: the mean difference is 0.

    Args:
        difference: one difference of shares per pair, ``(n,)``.

    Returns:
        ``difference`` (the mean), ``low``, ``high`` and ``p``. All but the mean are NaN for a
        single pair, and if all differences are equal: without any spread there is no standard
        error.
    """
    mean, count = float(difference.mean()), len(difference)
    error = difference.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    # Differences are ratios of counts, so that an error this small is rounding.
    if not error > _ROUNDING:
        return {"difference": mean, "low": np.nan, "high": np.nan, "p": np.nan}
    low, high = t_interval(mean, error, count - 1)
    p = 2 * stats.t.sf(abs(mean) / error, count - 1)
    return {"difference": mean, "low": float(low), "high": float(high), "p": float(p)}


def within(found: dict[str, float], lowest: float, highest: float) -> dict[str, float]:
    """Return a result whose interval has only values that are possible.

    Student's interval of few differences can reach beyond them, and covers no less without them.

    Args:
        found: ``low`` and ``high``, which can be NaN, and others.
        lowest: the smallest possible value.
        highest: the largest possible value.
    """
    return {
        **found,
        **{end: float(np.clip(found[end], lowest, highest)) for end in ("low", "high")},
    }


def t_interval(
    estimate: ArrayLike, error: ArrayLike, degrees: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Student's t interval (95%) of estimates with known degrees of freedom.

    Args:
        estimate: estimates of any shape.
        error: standard errors of the same shape.
        degrees: degrees of freedom, at least 1: one number, or an array of the same shape.

    Returns:
        low and high, of the same shape; NaN where the standard error is NaN.
    """
    half = stats.t.ppf(ENDS[1], degrees) * np.asarray(error, np.float64)
    middle = np.asarray(estimate, np.float64)
    return middle - half, middle + half


def mean_interval(
    mean: Float64[Array, "groups ..."],
    std: Float64[Array, "groups ..."],
    count: Int64[Array, " groups"],
) -> tuple[Float64[Array, "groups ..."], Float64[Array, "groups ..."]]:
    """Return Student's t interval (95%) of means: ``mean ± t(0.975, n - 1) std / √n``.

    Args:
        mean: means of K groups, ``(K, ...)``.
        std: sample standard deviations (n - 1 in the denominator), ``(K, ...)``; NaN for groups of
            fewer than two values.
        count: group sizes n, ``(K,)``.

    Returns:
        low and high, ``(K, ...)``; NaN where std is NaN.
    """
    count = count.reshape(-1, *[1] * (mean.ndim - 1))
    # With too few values for an interval std is NaN already; the floors only avoid warnings.
    quantile = stats.t.ppf(ENDS[1], np.maximum(count - 1, 1))
    half = quantile * std / np.sqrt(np.maximum(count, 1))
    return mean - half, mean + half


def bounded_mean_interval(
    mean: Float64[Array, "groups ..."],
    std: Float64[Array, "groups ..."],
    count: Int64[Array, " groups"],
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[Float64[Array, "groups ..."], Float64[Array, "groups ..."]]:
    """Return the 95% interval of means of values between two bounds (Korn and Graubard 1998).

    Near a bound the values are skewed, and few images may show no spread at all, so that Student's
    t interval is too narrow and lies outside the bounds. The mean, as a share of the range, is
    treated as a share of successes in ``n'`` trials, where ``n'`` gives it the variance that was
    observed: ``n' = share (1 - share) / (s² / n) · (1.96 / t(0.975, n - 1))²``, but at least n,
    because values between two bounds do not vary more than zeros and ones. Within one standard
    deviation of a bound, where few images may have hidden a rare large value, it is at most ``n
    max(4, (n share (1 - share) / 5)²)``, and this limit grows with the sixth power of the distance.
    The interval is Clopper and Pearson's (1934, Biometrika 26). Far from the bounds it is close to
    Student's; for zeros and ones it is exact; at a bound it is that of n images without an
    exception.

    Args:
        mean: means of K groups, ``(K, ...)``.
        std: sample standard deviations (n - 1 in the denominator), ``(K, ...)``.
        count: group sizes n, ``(K,)``.
        bounds: the smallest and the largest possible value.

    Returns:
        low and high, ``(K, ...)``. NaN for groups of fewer than `FEWEST` values, for which no such
        interval covers the truth often enough. Values that are equal and at no bound have an
        interval of width 0.

    Source: Korn and Graubard 1998, Survey Methodology 24.
    """
    lo, hi = bounds
    n = count.reshape(-1, *[1] * (mean.ndim - 1)).astype(np.float64)
    share = np.clip((mean - lo) / (hi - lo), 0, 1)
    ratio = _normal_quantile() / stats.t.ppf(ENDS[1], np.maximum(n - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):  # no spread
        trials = share * (1 - share) * n / (std / (hi - lo)) ** 2 * ratio**2
        away = np.minimum(share, 1 - share) / (std / (hi - lo))
    most = n * np.maximum(4, (n * share * (1 - share) / 5) ** 2) * np.maximum(away, 1) ** 6
    trials = np.minimum(trials, most)
    has_spread = std > _ROUNDING * (hi - lo)
    at_bound = (share <= _ROUNDING) | (share >= 1 - _ROUNDING)
    trials = np.where(has_spread & ~at_bound, np.maximum(trials, n), np.maximum(n, 1))
    hits = share * trials
    # With no success, or no failure, the end is the bound itself.
    low = special.betaincinv(np.maximum(hits, _ROUNDING), trials - hits + 1, ENDS[0])
    high = special.betaincinv(hits + 1, np.maximum(trials - hits, _ROUNDING), ENDS[1])
    low = np.where(share <= _ROUNDING, 0, low) * (hi - lo) + lo
    high = np.where(share >= 1 - _ROUNDING, 1, high) * (hi - lo) + lo
    flat = ~has_spread & ~at_bound
    unknown = (n < FEWEST) | np.isnan(std)
    return (
        np.where(unknown, np.nan, np.where(flat, mean, low)),
        np.where(unknown, np.nan, np.where(flat, mean, high)),
    )


def normal_interval(estimate: float, error: float) -> tuple[float, float]:
    """Return the normal interval (95%) of an estimate: ``estimate ± 1.96 error``.

    Args:
        estimate: the estimate.
        error: its standard error.

    Returns:
        low and high.
    """
    half = _normal_quantile() * error
    return estimate - half, estimate + half


def paired_accuracy_change(
    before: Bool[Array, " images"], after: Bool[Array, " images"]
) -> tuple[float, float, float]:
    """Return the change in accuracy on the same images, with its 95% interval.

    The interval is Bonett and Price's (2012, Journal of Educational and Behavioral Statistics 37).
    With n images, ``u = (gained + 1) / (n + 2)`` and ``d = (lost + 1) / (n + 2)`` it is ``u - d ±
    1.96 √((u + d - (u - d)²) / (n + 2))``: the Wald interval after one image is added to each kind
    of change. A bootstrap interval would have zero width where no image changes.

    Args:
        before: whether each image is correct before, ``(N,)``.
        after: whether the same image is correct after, ``(N,)``.

    Returns:
        The change in accuracy (-1 to 1), low and high; NaN without images.
    """
    images = len(before)
    if not images:
        return np.nan, np.nan, np.nan
    gained = (after & ~before).sum()
    lost = (before & ~after).sum()
    change, low, high = paired_share_changes(gained, lost, np.asarray(images))
    return float(change), float(low), float(high)


def paired_share_changes(
    gained: Int64[Array, "*shape"], lost: Int64[Array, "*shape"], images: Int64[Array, "*shape"]
) -> tuple[Float64[Array, "*shape"], Float64[Array, "*shape"], Float64[Array, "*shape"]]:
    """Return changes of shares of the same images, with the interval of `paired_accuracy_change`.

    Args:
        gained: numbers of images that have a property after a change only.
        lost: numbers of images that have it before the change only.
        images: numbers of all images, at least 1.

    Returns:
        The changes (-1 to 1), low and high (95%).
    """
    up, down = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    half = _normal_quantile() * np.sqrt((up + down - (up - down) ** 2) / (images + 2))
    middle = up - down
    low, high = np.maximum(middle - half, -1.0), np.minimum(middle + half, 1.0)
    return (gained - lost) / images, low, high


def share_intervals(
    shares: Float64[Array, "*shape"], count: Int64[Array, "*shape"]
) -> tuple[Float64[Array, "*shape"], Float64[Array, "*shape"]]:
    """Return Wilson's interval (95%) of shares (Wilson 1927, JASA 22).

    Args:
        shares: 0 to 1.
        count: numbers of images behind the shares, at least 1.

    Returns:
        low and high, 0 to 1.
    """
    low, high = _wilson(shares, count)
    return np.maximum(low, 0.0), np.minimum(high, 1.0)


def _wilson(
    shares: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's interval; rounding may put its ends beyond 0 and 1."""
    z = _normal_quantile()
    spread = z * np.sqrt(shares * (1 - shares) / count + (z / (2 * count)) ** 2)
    middle, scale = shares + z**2 / (2 * count), 1 + z**2 / count
    return (middle - spread) / scale, (middle + spread) / scale


def mean_share_interval(
    shares: Float64[Array, " shares"], count: Int64[Array, " shares"]
) -> tuple[float, float]:
    """Return the 95% interval of the mean of independent shares.

    For one share it is Wilson's interval (1927, JASA 22). For several, the distances from each
    share to the ends of its Wilson interval are combined by the root of their sum of squares,
    divided by the number of shares (Zou and Donner 2008, Statistics in Medicine 27). Unlike a
    bootstrap interval it has a width where all shares are 0 or 1.

    Args:
        shares: ``(K,)``, 0 to 1.
        count: number of images behind each share, ``(K,)``.

    Returns:
        low and high, 0 to 1.
    """
    low, high = _wilson(shares, count)
    below, above = shares - low, high - shares
    mean = float(shares.mean())
    sides = [float(np.sqrt((side**2).sum())) / len(shares) for side in (below, above)]
    return max(mean - sides[0], 0.0), min(mean + sides[1], 1.0)


def _normal_quantile() -> float:
    return float(stats.norm.ppf(ENDS[1]))
