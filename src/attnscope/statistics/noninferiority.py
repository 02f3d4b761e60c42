"""Whether accuracy on the same images falls by less than a tolerance: an exact test and its bound.

Two networks classify the same n images. Of these, ``lost`` are correct in the first network only,
and ``gained`` in the second only. The loss of accuracy is the share lost minus the share gained.

The test is unconditional and exact. It orders all possible results by the score statistic with the
restricted maximum likelihood estimate (Tango 1998, Statistics in Medicine 17), and takes the
largest probability of a result at least as extreme over the share gained, which the null hypothesis
leaves open (Hsueh, Liu and Chen 2001, Biometrics 57). Only shares within an exact interval of level
1 - γ are tried, and γ is added to p (Berger and Boos 1994, JASA 89). So p holds for any n and for
any number of changes, where the score test itself may be too small.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from attnscope.shapes import Array
from attnscope.statistics.inference import LEVEL

_GAMMA = 1e-4
"""Probability that the share gained lies outside the interval that is searched."""
_TAIL = 1e-10
"""Probability of counts that are not summed at either end."""
_GRID = 100
"""Number of shares gained that are tried, before the largest probability is refined."""
_ROUNDING = 1e-9
_POWER = 0.8


@lru_cache(maxsize=4096)  # a choice asks for the same counts again and again
def paired_loss_p(lost: int, gained: int, images: int, tolerance: float) -> float:
    """Return the one-sided p value of a loss of accuracy.

    Null hypothesis: the loss is at least the tolerance. A small p value shows that it is smaller.

    Args:
        lost: number of images that only the first network classifies correctly.
        gained: number of images that only the second network classifies correctly.
        images: number of images.
        tolerance: a loss of accuracy above 0, as a share up to 1.

    Returns:
        p. It is 1 if the loss that is seen is at least the tolerance, or without images.

    Raises:
        ValueError: The tolerance or a count is out of range.
    """
    if not 0 < tolerance <= 1:
        raise ValueError(f"the tolerance is {tolerance}; it must be above 0 and at most 1")
    if min(lost, gained) < 0 or lost + gained > images:
        raise ValueError(f"{lost} and {gained} of {images} images cannot be lost and gained")
    if lost - gained >= images * tolerance:
        return 1.0
    if tolerance == 1:  # every image would be lost
        return 0.0
    low = stats.beta.ppf(_GAMMA / 2, gained, images - gained + 1) if gained else 0.0
    # All images cannot be gained, since the shares lost and gained add up to at most 1.
    high = (1 - tolerance) / 2
    if gained < images:
        high = min(high, stats.beta.isf(_GAMMA / 2, gained + 1, images - gained))
    if low > high:  # no share gained that is likely allows such a loss
        return _GAMMA
    counts = _likely_counts(images, low, high)
    observed = float(_score(lost, gained, images, tolerance))
    most = _most_lost(counts, observed, images, tolerance)
    grid = np.linspace(low, high, _GRID)
    found = _probability(grid, counts, most, images, tolerance)
    place = int(found.argmax())
    near = np.linspace(grid[max(place - 1, 0)], grid[min(place + 1, _GRID - 1)], _GRID // 4)
    largest = max(found[place], _probability(near, counts, most, images, tolerance).max())
    return float(min(largest + _GAMMA + 2 * _TAIL, 1.0))


def paired_loss_at_most(lost: int, gained: int, images: int, level: float = LEVEL) -> float:
    """Return the end of the one-sided interval of a loss of accuracy.

    It is the smallest tolerance within which `paired_loss_p` shows the loss to be.

    Args:
        lost: number of images that only the first network classifies correctly.
        gained: number of images that only the second network classifies correctly.
        images: number of images.
        level: 1 minus the coverage. Default: 0.05, for 95%.

    Returns:
        The end of the interval as a share, 0 to 1. It is 0 also if accuracy certainly rises, and 1
        without images.
    """
    if not images:
        return 1.0
    low, high = max((lost - gained) / images, 0.0), 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        if paired_loss_p(lost, gained, images, middle) <= level:
            high = middle
        else:
            low = middle
    return 0.0 if high <= 1e-5 else high


def share_at_least(count: int, images: int, level: float = LEVEL) -> float:
    """Return the lower end of the one-sided interval of a share (Clopper and Pearson 1934).

    Args:
        count: number of images that have a property.
        images: number of images.
        level: 1 minus the coverage. Default: 0.05, for 95%.

    Returns:
        The end of the interval, 0 to 1.
    """
    return float(stats.beta.ppf(level, count, images - count + 1)) if count else 0.0


def mean_at_most(values: Float64[Array, " images"], level: float = LEVEL) -> float:
    """Return the upper end of Student's one-sided interval of a mean.

    Args:
        values: one value per image, ``(N,)``.
        level: 1 minus the coverage. Default: 0.05, for 95%.

    Returns:
        The end of the interval; NaN with fewer than two images.
    """
    count = len(values)
    if count < 2:
        return math.nan
    error = values.std(ddof=1) / math.sqrt(count)
    return float(values.mean() + stats.t.isf(level, count - 1) * error)


def fewest_images(tolerance: float) -> int:
    """Return the number of images below which no loss can be shown to be within a tolerance.

    With fewer images, `paired_loss_p` is above 0.05 even if no image changes.

    Args:
        tolerance: a loss of accuracy above 0, as a share up to 1.
    """
    if tolerance >= 1:
        return 1
    # Without a change, p is at least (1 - tolerance)^n, the probability that no image is lost.
    low = math.floor(math.log(LEVEL) / math.log1p(-tolerance))
    high = low + 1
    while paired_loss_p(0, 0, high, tolerance) > LEVEL:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if paired_loss_p(0, 0, middle, tolerance) > LEVEL:
            low = middle
        else:
            high = middle
    return high


def sufficient_images(lost: int, gained: int, images: int, tolerance: float) -> int | None:
    """Return about how many images would show that a loss is within a tolerance.

    The shares lost and gained are taken to be those that were seen. The normal approximation is
    used, with 80% power.

    Args:
        lost: number of images that only the first network classifies correctly.
        gained: number of images that only the second network classifies correctly.
        images: number of images.
        tolerance: a loss of accuracy above 0, as a share up to 1.

    Returns:
        The number of images; None if the loss that was seen is not within the tolerance.
    """
    loss, changed = (lost - gained) / images, (lost + gained) / images
    if loss >= tolerance:
        return None
    quantile = stats.norm.isf(LEVEL) + stats.norm.ppf(_POWER)
    count = float((changed - loss**2) * (quantile / (tolerance - loss)) ** 2)
    return max(math.ceil(count), fewest_images(tolerance))


def _score(
    lost: ArrayLike, gained: ArrayLike, images: int, tolerance: float
) -> NDArray[np.float64]:
    """Return Tango's score statistic: the smaller, the more the result speaks for a small loss.

    The share gained has its maximum likelihood estimate under a loss equal to the tolerance.
    """
    b, c = np.asarray(lost, np.float64), np.asarray(gained, np.float64)
    linear = 2 * tolerance * (images - b) - (b + c) * (1 - tolerance)
    product = 8 * images * c * tolerance * (1 - tolerance)
    share = (np.sqrt(linear**2 + product) - linear) / (4 * images)
    variance = images * (2 * share + tolerance * (1 - tolerance))
    score: NDArray[np.float64] = (b - c - images * tolerance) / np.sqrt(variance)
    return score


def _likely_counts(images: int, low: float, high: float) -> NDArray[np.int64]:
    """Return the counts that have more than a negligible probability under some share."""
    first = int(stats.binom.ppf(_TAIL, images, low))
    last = int(stats.binom.isf(_TAIL, images, high))
    return np.arange(max(first, 0), min(last, images) + 1)


def _most_lost(
    gained: NDArray[np.int64], observed: float, images: int, tolerance: float
) -> NDArray[np.int64]:
    """Return up to which number lost the score is at most the observed one; -1 if there is none.

    The score rises with the number lost as long as it is negative, and so is the observed one.
    """
    limit = observed + _ROUNDING * abs(observed)
    low, high = np.full(len(gained), -1), images - gained + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        within = _score(middle, gained, images, tolerance) <= limit
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return low


def _probability(
    shares: NDArray[np.float64],
    gained: NDArray[np.int64],
    most: NDArray[np.int64],
    images: int,
    tolerance: float,
) -> NDArray[np.float64]:
    """Return the probability of results at least as extreme, for each share gained."""
    column = shares[:, None]
    of_gained = stats.binom.pmf(gained, images, column)
    # The number lost, given that gained, is binomial over the other images.
    share = np.minimum((column + tolerance) / (1 - column), 1)
    of_lost = stats.binom.cdf(most, images - gained, share)
    found: NDArray[np.float64] = (of_gained * of_lost).sum(1)
    return found
