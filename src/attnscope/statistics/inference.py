"""p values, corrections for several tests, and intervals: each stated here, and nowhere else.

What is significant is decided here as well. scipy does the arithmetic where it has the method. What
is our own: Holm's correction and the interval of a mean share, which scipy lacks; Bonett and
Price's interval, which statsmodels lacks too; and `paired_interval`, whose last digits scipy's
``ttest_1samp`` rounds otherwise than every version before. The tests hold all of it against
statsmodels. What permutations and bootstraps give is in ``resampling``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.05
"""Below it a p value, corrected for the number of tests where there are several, is significant."""
ENDS = (0.025, 0.975)
"""The quantiles at which every 95 % interval and every 95 % band of a null ends."""
_ROUNDING = 1e-12


def significant(p: ArrayLike, level: float = LEVEL) -> NDArray[np.bool_]:
    """Whether p values are below a level; NaN, no test, is not.

    Args:
        p: of any shape.
        level: below it p is significant.
    """
    return np.asarray(p, np.float64) < level


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values corrected by Holm's method (1979, Scandinavian Journal of Statistics 6).

    The chance of a single false finding among the tests is at most the level, however the tests
    depend on each other.

    Args:
        p: of the tests, ``(T,)``; NaN is no test, and stays NaN.
    """
    adjusted = np.full(p.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def benjamini_yekutieli(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values corrected by Benjamini and Yekutieli (2001, Annals of Statistics 29).

    The share of false findings among all findings is at most the level, however the tests depend on
    each other.

    Args:
        p: of the tests, ``(T,)``, at least one and none NaN.
    """
    adjusted: NDArray[np.float64] = stats.false_discovery_control(p, method="by")
    return adjusted


def f_test(f: NDArray[np.float64], between: int, within: int) -> NDArray[np.float64]:
    """p of a one-way analysis of variance, whose null is one mean in all groups.

    Args:
        f: the ratios of the mean squares between and within the groups, of any shape.
        between, within: their degrees of freedom.
    """
    p: NDArray[np.float64] = stats.f.sf(f, between, within)
    return p


def mcnemar(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> float:
    """Exact McNemar test (1947, Psychometrika 12), two-sided; 1 where no image tells them apart.

    The null: of the images that one alone gets right, each is as likely to be a's as b's.

    Args:
        right_a, right_b: ``(N,)``, whether each of the same images is right.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def paired_t(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Student's paired t test, two-sided; 1 where nothing differs, NaN with fewer than two.

    Args:
        first, second: ``(N,)``, of the same images.
    """
    shift = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    if len(shift) < 2:
        return np.nan
    if not shift.std():  # scipy has no t for what does not vary
        return float(shift[0] == 0)
    return float(stats.ttest_1samp(shift, 0).pvalue)


def paired_interval(difference: NDArray[np.float64]) -> dict[str, float]:
    """Mean of paired differences, Student's t interval (95 %), and p of the paired t test.

    Args:
        difference: ``(n,)``, of shares, one for each pair.

    Returns:
        difference (the mean), low, high, p. All but the mean are NaN for one pair, and where all
        pairs differ by the same: without any spread there is nothing to hold a difference against.
    """
    mean, count = float(difference.mean()), len(difference)
    error = difference.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    # Differences are counts over counts: what is this small is rounding.
    if not error > _ROUNDING:
        return {"difference": mean, "low": np.nan, "high": np.nan, "p": np.nan}
    low, high = t_interval(mean, error, count - 1)
    p = 2 * stats.t.sf(abs(mean) / error, count - 1)
    return {"difference": mean, "low": float(low), "high": float(high), "p": float(p)}


def t_interval(
    estimate: ArrayLike, error: ArrayLike, degrees: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Student's t interval (95 %) of estimates with known degrees of freedom.

    Args:
        estimate, error: the estimates and their standard errors, of one shape.
        degrees: of freedom, at least 1; of that shape, or one number for all.

    Returns:
        low and high; NaN where the error is.
    """
    half = stats.t.ppf(ENDS[1], degrees) * np.asarray(error, np.float64)
    middle = np.asarray(estimate, np.float64)
    return middle - half, middle + half


def mean_interval(
    mean: NDArray[np.float64], std: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Student's t interval (95 %) of means, ``mean ± t(0.975, n - 1) std / √n``.

    Args:
        mean: ``(K, ...)``
        std: ``(K, ...)``, with n - 1 below the sum; NaN where there are fewer than two values.
        count: the numbers of values n, ``(K,)``.

    Returns:
        low and high, ``(K, ...)``; NaN where std is.
    """
    count = count.reshape(-1, *[1] * (mean.ndim - 1))
    # Where there are too few values for an interval, std is NaN already; the floors only keep the
    # arithmetic from warning.
    quantile = stats.t.ppf(ENDS[1], np.maximum(count - 1, 1))
    half = quantile * std / np.sqrt(np.maximum(count, 1))
    return mean - half, mean + half


def normal_interval(estimate: float, error: float) -> tuple[float, float]:
    """The normal interval (95 %) of an estimate with a known standard error."""
    half = _normal_quantile() * error
    return estimate - half, estimate + half


def paired_accuracy_change(
    before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """How much accuracy changes on the same images, with a 95 % interval.

    The interval is Bonett and Price's (2012, British Journal of Mathematical and Statistical
    Psychology 65), Wald's with one image added to each kind of flip. A bootstrap would be a point
    where no image flips, as if none ever could.

    Args:
        before, after: ``(N,)``, whether each image is right.

    Returns:
        The change in accuracy (-1 to 1), low, high. NaN without images.
    """
    images = len(before)
    if not images:
        return np.nan, np.nan, np.nan
    gained = int((after & ~before).sum())
    lost = int((before & ~after).sum())
    up, down = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    error = np.sqrt((up + down - (up - down) ** 2) / (images + 2))
    low, high = normal_interval(up - down, error)
    return (gained - lost) / images, max(low, -1.0), min(high, 1.0)


def mean_share_interval(
    shares: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[float, float]:
    """The 95 % interval of the mean of independent shares; of one share it is Wilson's.

    Each share's Wilson interval (1927, JASA 22) says how far it may lie below and above; those
    distances add in squares (Zou and Donner 2008, Statistics in Medicine 27). Unlike a bootstrap it
    is no point where all shares are 0 or 1.

    Args:
        shares: ``(K,)``, 0 to 1.
        count: ``(K,)``, of how many images each share is.
    """
    z = _normal_quantile()
    spread = z * np.sqrt(shares * (1 - shares) / count + (z / (2 * count)) ** 2)
    middle, scale = shares + z**2 / (2 * count), 1 + z**2 / count
    below = shares - (middle - spread) / scale
    above = (middle + spread) / scale - shares
    mean = float(shares.mean())
    sides = [float(np.sqrt((side**2).sum())) / len(shares) for side in (below, above)]
    return max(mean - sides[0], 0.0), min(mean + sides[1], 1.0)


def _normal_quantile() -> float:
    return float(stats.norm.ppf(ENDS[1]))
