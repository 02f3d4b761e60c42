"""Paired comparisons of two edits on the same images: tests, intervals, and what could be seen.

An edit may take its gates from several donors per image; then the outcome of an image is the mean
over its donors. A donor that serves several images makes their outcomes depend on each other, and
the variance includes these dependences. Methods that do not depend on donors are in
`attnscope.statistics.inference`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy import sparse, stats

from attnscope.shapes import Array

POWER = 0.8
"""Power at which the smallest effect that would have been seen is stated."""
FEWEST_DONORS = 10
"""With fewer distinct donors, of which some are used several times, there is no test."""
FEWEST_MOVED = 10
"""With fewer images whose log loss moves, the log losses are not tested."""
_MOVED = 0.01
"""An image has moved if its change is larger than this share of the largest one."""
_MOST_CONNECTED = 0.5
"""Largest share of pairs of images that share a donor with which a variance is estimated."""


@dataclass(frozen=True)
class Sharing:
    """Which images share a donor."""

    connected: sparse.csr_array
    """``(N, N)``, 1 for each pair of two images that share a donor, 0 on the diagonal."""
    donors: int
    """Number of distinct donors."""

    @property
    def is_enough(self) -> bool:
        """Whether there are enough donors for an estimate of the variance."""
        images = self.connected.shape[0]
        return self.donors >= FEWEST_DONORS and self._share(images) <= _MOST_CONNECTED

    def inflation(self, difference: Float64[Array, " images"]) -> float:
        """Return the variance of the mean, relative to that of independent images; at least 1.

        The products of the deviations of every two images that share a donor are added to the
        squares (the estimator for dyadic data: Aronow, Samii and Assenova 2015, Political Analysis
        23). The sum is divided by one minus the share of pairs, because the deviations from a mean
        add up to 0.

        Args:
            difference: the difference of each image, ``(N,)``.
        """
        deviation = difference - difference.mean()
        plain = float((deviation**2).sum())
        if not plain:
            return 1.0
        whole = plain + float(deviation @ (self.connected @ deviation))
        return max(whole / plain / (1 - self._share(len(difference))), 1.0)

    def _share(self, images: int) -> float:
        return float((self.connected.nnz + images) / images**2)


def find_sharing(
    image: Int64[Array, " rows"], donor: Int64[Array, " rows"], images: int
) -> Sharing | None:
    """Return which images share a donor; None if no donor is used for two images.

    Args:
        image: the position of the image of each outcome, 0 to ``images - 1``, ``(R,)``.
        donor: its donor, ``(R,)``; negative if it has none.
        images: number of images N.
    """
    known = donor >= 0
    pairs = np.unique(np.stack([image[known], donor[known]]), axis=1)
    donors, place = np.unique(pairs[1], return_inverse=True)
    if len(donors) == pairs.shape[1]:
        return None
    uses = sparse.csr_array(
        (np.ones(pairs.shape[1], np.int32), (pairs[0], place)), shape=(images, len(donors))
    )
    both = sparse.coo_array(uses @ uses.T)
    apart = both.row != both.col
    ones = np.ones(int(apart.sum()))
    connected = sparse.csr_array((ones, (both.row[apart], both.col[apart])), shape=both.shape)
    return Sharing(connected, len(donors))


def sign_flip(steps: Int64[Array, " images"]) -> float:
    """Return the two-sided p value of the exact sign-flip test of paired differences.

    Null hypothesis: the two conditions are exchangeable within each image, so that its difference
    is equally likely to have either sign (Fisher 1935, The Design of Experiments). For differences
    of -1, 0 and 1 this is the exact McNemar test.

    Args:
        steps: differences as whole numbers of equal steps, ``(N,)``.

    Returns:
        p; 1 if all differences are 0.
    """
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    spread = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        # The sum of `count` signs times `size` is 2 size k - size count for binomial k.
        signs = np.zeros(2 * size * count + 1)
        signs[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        spread = np.convolve(spread, signs)
    reach = len(spread) // 2
    sums = np.arange(-reach, reach + 1)
    return float(min(spread[np.abs(sums) >= abs(int(steps.sum()))].sum(), 1.0))


def shared_t(difference: Float64[Array, " images"], sharing: Sharing) -> float:
    """Return the two-sided p value of the t test of a mean difference of images that share donors.

    Null hypothesis: the mean difference is 0. Without shared donors the test is
    `attnscope.statistics.inference.paired_t`.

    Args:
        difference: the difference of each image, ``(N,)``.
        sharing: which images share a donor.

    Returns:
        p; NaN with fewer than two images or too few donors. If all differences are equal, p is 1
        for differences of 0 and 0 otherwise.
    """
    images = len(difference)
    if images < 2 or not sharing.is_enough:
        return np.nan
    error = difference.std(ddof=1) / np.sqrt(images)
    if not error:
        return float(difference[0] == 0)
    t = difference.mean() / error / np.sqrt(sharing.inflation(difference))
    return float(2 * stats.t.sf(abs(t), min(images, sharing.donors) - 1))


def moved(difference: Float64[Array, " images"]) -> int:
    """Return how many images move: by more than a hundredth of the largest difference.

    A t test on few moving images is anticonservative: four of equal size and sign have p < 0.05
    although one in eight such sets has equal signs.

    Args:
        difference: the difference of each image, ``(N,)``.
    """
    size = np.abs(difference)
    largest = size.max(initial=0.0)
    return int((size > _MOVED * largest).sum()) if largest else 0


def accuracy_interval(
    difference: Float64[Array, " images"], inflation: float = 1.0, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a mean difference in accuracy, where images may have several donors.

    With differences of -1, 0 and 1 and no shared donor it is that of
    `attnscope.statistics.inference.paired_accuracy_change` (Bonett and Price 2012): the Wald
    interval after an image of each kind of change, +1 and -1, is added.

    Args:
        difference: the difference of each image, -1 to 1, ``(N,)``.
        inflation: variance of the mean, relative to that of independent images.
        level: level of the interval.

    Returns:
        low and high, -1 to 1; NaN without images.
    """
    count = len(difference)
    if not count:
        return np.nan, np.nan
    middle = difference.sum() / (count + 2)
    variance = ((difference**2).sum() + 2) / (count + 2) - middle**2
    half = stats.norm.ppf(0.5 + level / 2) * np.sqrt(inflation * variance / (count + 2))
    return max(float(middle - half), -1.0), min(float(middle + half), 1.0)


def mean_interval(
    difference: Float[Array, " images"], sharing: Sharing | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Return Student's t interval of a mean difference.

    Args:
        difference: the difference of each image, ``(N,)``.
        sharing: which images share a donor; None if none do.
        level: level of the interval.

    Returns:
        low and high; NaN with fewer than two images or too few donors.
    """
    values = np.asarray(difference, np.float64)
    count = len(values)
    if count < 2 or (sharing is not None and not sharing.is_enough):
        return np.nan, np.nan
    error, degrees = values.std(ddof=1) / np.sqrt(count), count - 1
    if sharing is not None:
        error *= np.sqrt(sharing.inflation(values))
        degrees = min(count, sharing.donors) - 1
    half = float(stats.t.ppf(0.5 + level / 2, degrees) * error)
    return float(values.mean()) - half, float(values.mean()) + half


def equivalence_t(difference: Float[Array, " images"], smallest: float) -> float:
    """Return the p value of two one-sided t tests of a mean difference.

    Null hypothesis: the mean difference is at least ``smallest`` in either direction.

    Args:
        difference: the difference of each image, ``(N,)``.
        smallest: the smallest difference that matters, above 0.

    Returns:
        p, the larger of the two. It is 1 if fewer than `FEWEST_MOVED` images move: where the losses
        are 0 with and without an edit, they do not tell how much the edit changes.
    """
    values = np.asarray(difference, np.float64)
    count = len(values)
    if count < 2 or moved(values) < FEWEST_MOVED:
        return 1.0
    error = values.std(ddof=1) / np.sqrt(count)
    return float(stats.t.cdf((abs(values.mean()) - smallest) / error, count - 1))


def detectable_loss(images: int, level: float) -> float:
    """Return the smallest loss of accuracy that is found with a power of 80%.

    It follows from the number of images and the level alone, and not from what was found. The edit
    is taken to make correct images wrong and none correct: then the exact McNemar test needs a
    number of lost images that makes ``2^(1 - lost)`` at most the level, and the number of lost
    images is binomial. If images are gained as well, the loss must be larger.

    Args:
        images: number of images N.
        level: level of the two-sided test, after correction for the number of tests.

    Returns:
        A share of the images, 0 to 1; NaN if no loss would be significant.
    """
    if not 0 < level < 1:
        return np.nan
    least = int(np.ceil(1 - np.log2(level)))
    if least > images:
        return np.nan
    # P(binomial(N, s) >= k) = P(beta(k, N - k + 1) <= s).
    return float(stats.beta.ppf(POWER, least, images - least + 1))


def detectable_shift(images: int, level: float) -> float:
    """Return the smallest mean change in log loss that is found with a power of 80%.

    Args:
        images: number of images N.
        level: level of the two-sided test, after correction for the number of tests.

    Returns:
        The change in standard deviations (over images) of the change; NaN with fewer than two
        images. ``(z(1 - level / 2) + z(0.8)) / √N``.
    """
    if images < 2 or not 0 < level < 1:
        return np.nan
    return float((stats.norm.isf(level / 2) + stats.norm.ppf(POWER)) / np.sqrt(images))
