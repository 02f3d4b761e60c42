"""Class selectivity of channels, and permutation tests, channel by channel."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from attnscope.kinds import PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.statistics.class_sums import class_sums, permuted_class_sums
from attnscope.statistics.inference import FEWEST
from attnscope.statistics.profiles import ClassMoments, bounds_of
from attnscope.statistics.reading import StandardizedGate
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import permutation_p
from attnscope.statistics.splits import (
    checked_groups,
    expect_positive,
    present_classes,
    stratified_folds,
)

_SCORE, _CHOOSE = 0, 1  # with an odd number of images, the scoring half is larger
_CACHED = 2**20
"""Number of class sums from which Welch's F is computed at a time."""
_PRIOR = 0.25
"""Weight of the variance of all images in the variance of a class, in images."""
_ROUNDED_ZERO = 1e-6
"""Means below this value, in standard deviations of the channel, are rounding errors of zero."""


@statistic(
    "Class selectivity of each channel, on held-out images.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def class_selectivity(
    recording: Recording,
    gate: str,
    permutations: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compute the class selectivity of each channel on images not used to choose the class.

    The index is that of Morcos et al. (2018, ICLR), on a held-out half: the images of each class
    are split into two random halves. One half chooses the class with the highest mean. On the other
    half the index is ``(a - b) / (a + b)``, where a is the mean of the chosen class and b the mean
    of the means of all other classes. Without the second half the largest of K noisy means would
    make every channel selective; with it the index of an unselective channel is 0 on average.

    The interval combines the intervals of the class means (`class_profiles`) by the root of the sum
    of squares of the distances by which each moves the index (Zou and Donner 2008, Statistics in
    Medicine 27). It is conditional on the chosen class.

    Null hypothesis: the channel holds no information about the class. p is one-sided, from
    permutations of the labels within each half, with choice and index repeated for each. ``p_max``
    controls the probability of a single false channel under any dependence between channels: the
    index of each channel is standardized by its own null distribution and compared with the largest
    over the channels (Westfall and Young 1993, Resampling-Based Multiple Testing).

    Args:
        recording: recording of one network.
        gate: name of a channel gate.
        permutations: number of permutations of the labels. The smallest possible p is ``1 /
            (permutations + 1)``.
        seed: seed of halves and permutations.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). Splits keep them together, and their labels are permuted
            together. None: no image is a copy.

    Returns:
        One row per channel:

        - ``channel``
        - ``best``: the chosen class.
        - ``selectivity``: -1 to 1. 0 means that the chosen class is like the others, 1 that the
          channel is open for the chosen class only.
        - ``low``, ``high``: 95% CI.
        - ``p``, ``p_max``
        - ``constant``: whether the channel has the same value for all images.
        - ``negative``: whether a value is below 0, where the ratio has neither bounds nor meaning.

        best and all numbers are NaN for constant and for negative channels, and for a channel that
        is zero on the scoring half. Classes of fewer than two images are left out; copies count as
        one image, of the class of the first of them. With fewer than two classes all numbers are
        NaN. low and high are NaN if a class has fewer than ten images in the scoring half.

    Raises:
        InputError: the gate does not exist or is not a channel gate, a value is not finite,
            permutations is below 1, or there is not one group per image (AS717).
    """
    expect_positive("permutations", permutations, 1000)
    copies = checked_groups(groups, len(recording))
    values = StandardizedGate(recording, gate, PER_CHANNEL)
    channels = len(values.mean)
    negative = values.minimum < 0
    known, labels, _ = present_classes(recording.labels, at_least=2, groups=copies)
    best: NDArray[np.object_] = np.full(channels, np.nan, object)
    index, low, high, p, p_max = (np.full(channels, np.nan) for _ in range(5))
    if len(known) >= 2:
        halves = stratified_folds(labels, 2, np.random.default_rng(seed), copies)
        chosen, moments = _scored_half(values, labels, halves, len(known))
        bounds = bounds_of(recording.info(gate))
        index, low, high = _with_interval(chosen, moments, bounds, values.std)
        scored = ~(values.constant | negative | np.isnan(index))
        for column in (index, low, high):
            column[~scored] = np.nan
        best[scored] = np.array(recording.classes, object)[known[chosen[scored]]]
        if scored.any():
            drawn = _permuted_index(values, labels, halves, permutations, seed, copies)
            drawn = drawn[:, scored]
            p[scored] = permutation_p(drawn[1:], drawn[0], scale=1.0)
            spread = drawn.std(0)
            # The observed order is part of the standardization: all orders are treated alike.
            standard = (drawn - drawn.mean(0)) / np.where(spread > 0, spread, 1)
            p_max[scored] = permutation_p(
                standard[1:].max(1, keepdims=True), standard[0], scale=1.0
            )
    return pd.DataFrame(
        {
            "channel": np.arange(channels),
            "best": best,
            "selectivity": index,
            "low": low,
            "high": high,
            "p": p,
            "p_max": p_max,
            "constant": values.constant,
            "negative": negative,
        }
    )


@statistic(
    "Test of each channel for different means of the classes, by permutations.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def permuted_channel_effects(
    recording: Recording,
    gate: str,
    permutations: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Test each channel for different means of the classes, by permutations.

    The statistic is Welch's F (1951, Biometrika 38), in which each class mean is divided by the
    standard error of its own class. Null hypothesis: the channel has the same mean in all classes,
    whatever its spread within each class. The test is exact if the gate holds no information about
    the class at all, and asymptotically valid if only the means are equal (Chung and Romano 2013,
    Annals of Statistics 41; Pauly, Brunner and Konietschke 2015, Journal of the Royal Statistical
    Society B 77). A permutation test of eta² or F does not have the second property: it also
    responds to unequal spreads. The variance of a class is combined with that of all images, with
    the weight of a quarter of an image, so that a class in which the channel is always 0 has a
    standard error.

    Labels are permuted for all channels together, which preserves the dependence between channels.
    ``p_max`` compares each channel with the largest F of any channel (Westfall and Young 1993,
    Resampling-Based Multiple Testing) and so controls the probability of a single false channel.

    Args:
        recording: recording of one network.
        gate: name of a channel gate.
        permutations: number of permutations of the labels. The smallest possible p is ``1 /
            (permutations + 1)``.
        seed: seed of the permutations.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). Splits keep them together, and their labels are permuted
            together. None: no image is a copy.

    Returns:
        One row per channel:

        - ``channel``
        - ``eta_squared``: 0 to 1; over all classes.
        - ``welch``: Welch's F.
        - ``p``, ``p_max``
        - ``classes``: number of tested classes.
        - ``constant``: whether the channel has the same value for all images. Its numbers are NaN.

        Classes of fewer than ten images, whose standard errors are not known well enough, are not
        tested; copies count as one image, of the class of the first of them. With fewer than two
        tested classes welch and the p values are NaN. eta_squared is NaN with fewer than two
        classes, or if every class has one image.

    Raises:
        InputError: the gate does not exist or is not a channel gate, a value is not finite,
            permutations is below 1, or there is not one group per image (AS717).
    """
    expect_positive("permutations", permutations, 1000)
    copies = checked_groups(groups, len(recording))
    values = StandardizedGate(recording, gate, PER_CHANNEL)
    eta, welch, p, p_max = (np.full(len(values.mean), np.nan) for _ in range(4))
    varying = ~values.constant
    known, labels, count = present_classes(recording.labels)
    if 2 <= len(known) < len(labels):
        eta[varying] = _eta_squared(values, labels, count)[varying]
    known, labels, count = present_classes(recording.labels, at_least=FEWEST, groups=copies)
    if len(known) >= 2 and varying.any():
        kept = np.where(labels < 0, -1, 0)
        blocks = permuted_class_sums(
            values, labels, kept, permutations, seed, squares=True, copies=copies
        )
        drawn = np.concatenate([_welch(sums[:, 0], count)[:, varying] for sums in blocks])
        welch[varying] = drawn[0]
        p[varying] = permutation_p(drawn[1:], drawn[0])
        p_max[varying] = permutation_p(drawn[1:].max(1, keepdims=True), drawn[0])
    return pd.DataFrame(
        {
            "channel": np.arange(len(eta)),
            "eta_squared": eta,
            "welch": welch,
            "p": p,
            "p_max": p_max,
            "classes": len(known),
            "constant": values.constant,
        }
    )


def _eta_squared(
    values: StandardizedGate, labels: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.float64]:
    sums = np.zeros((len(count), len(values.mean)))
    for rows, piece in values.read():
        sums += class_sums(labels[rows][None], len(count), piece)[0]
    # The total sum of squares of a standardized channel is the number of images.
    found: NDArray[np.float64] = (sums**2 / count[:, None]).sum(0) / len(labels)
    return found


def _welch(sums: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return Welch's F of standardized channels.

    Args:
        sums: sums of the values and of their squares in each class, ``(B, K, 2C)``.
        count: number of images of each class, ``(K,)``.

    Returns:
        ``(B, C)``
    """
    classes, n = len(count), count[:, None].astype(np.float64)
    block = max(1, _CACHED // sums[0].size)
    if len(sums) > block:  # intermediate results stay in the cache of the processor
        parts = [sums[begin : begin + block] for begin in range(0, len(sums), block)]
        return np.concatenate([_welch(part, count) for part in parts])
    total, square = np.split(sums, 2, axis=2)
    mean = total / n
    # The variance of all images is about 1, whatever the order of the labels.
    variance = np.maximum(square - n * mean**2, 0) + _PRIOR
    variance /= n - 1 + _PRIOR
    weight = n / variance
    whole = weight.sum(1, keepdims=True)
    middle = (weight * mean).sum(1, keepdims=True) / whole
    between = (weight * (mean - middle) ** 2).sum(1) / (classes - 1)
    unsure = ((1 - weight / whole) ** 2 / (n - 1)).sum(1)
    found: NDArray[np.float64] = between / (1 + 2 * (classes - 2) / (classes**2 - 1) * unsure)
    return found


def _scored_half(
    values: StandardizedGate, labels: NDArray[np.int64], halves: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], ClassMoments]:
    """Choose a class for each channel on one half, and compute moments on the other.

    Returns:
        The chosen classes ``(C,)``; counts ``(K,)``, means and standard deviations ``(K, C)`` of
        the scoring half, in units of the gate.
    """
    shape = (2, classes, len(values.mean))
    total, square = np.zeros(shape), np.zeros(shape)
    count = np.zeros((2, classes, 1))
    for rows, piece in values.read():
        for half in range(2):
            inside = (halves[rows] == half) & (labels[rows] >= 0)
            here, own = piece[inside].astype(np.float64), labels[rows][inside][None]
            total[half] += class_sums(own, classes, here)[0]
            square[half] += class_sums(own, classes, here**2)[0]
            count[half, :, 0] += np.bincount(own[0], minlength=classes)
    chosen = (total / count)[_CHOOSE].argmax(0)
    n, sums = count[_SCORE], total[_SCORE]
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN for a class of one image
        variance = np.maximum(square[_SCORE] - sums**2 / n, 0) / (n - 1)
    variance[n[:, 0] < 2] = np.nan
    means = np.maximum(values.mean + values.std * sums / n, np.minimum(values.minimum, 0))
    return chosen, ClassMoments(n[:, 0].astype(np.int64), means, np.sqrt(variance) * values.std)


def _with_interval(
    chosen: NDArray[np.int64],
    moments: ClassMoments,
    bounds: tuple[float, float] | None,
    scale: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the index and its 95% interval, ``(C,)`` each; NaN where all means are zero."""
    means, others = moments.mean, len(moments.mean) - 1
    here = np.arange(len(means))[:, None] == chosen
    own = np.arange(len(chosen))

    def split(of: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return of[chosen, own], np.where(here, 0, of)

    a, rest = split(means)
    b = rest.sum(0) / others
    is_scored = a + b > _ROUNDED_ZERO * scale
    (a_low, rest_low), (a_high, rest_high) = map(split, moments.interval(bounds))
    a_low, rest_low = np.maximum(a_low, 0), np.maximum(rest_low, 0)
    b_low = b - np.sqrt(((rest - rest_low) ** 2).sum(0)) / others
    b_high = b + np.sqrt(((rest_high - rest) ** 2).sum(0)) / others
    index = _index(a, b, is_scored)
    # a increases the index and b decreases it.
    below = [index - _index(a_low, b, is_scored), index - _index(a, b_high, is_scored)]
    above = [_index(a_high, b, is_scored) - index, _index(a, b_low, is_scored) - index]
    low = index - np.sqrt(np.sum(np.square(below), 0))
    high = index + np.sqrt(np.sum(np.square(above), 0))
    return index, np.maximum(low, -1), np.minimum(high, 1)


def _index(
    a: NDArray[np.float64], b: NDArray[np.float64], is_scored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    found = np.full(a.shape, np.nan)
    b = np.maximum(b, 0)
    np.divide(a - b, a + b, out=found, where=is_scored & (a + b > 0))
    # With both at zero the index can be anything: the interval then ends at the index itself.
    return np.where(is_scored & (a + b == 0), 0, found)


def _permuted_index(
    values: StandardizedGate,
    labels: NDArray[np.int64],
    halves: NDArray[np.int64],
    permutations: int,
    seed: int,
    copies: NDArray[np.int64] | None,
) -> NDArray[np.float64]:
    """Return the index, observed and permuted: ``(1 + permutations, C)``, never NaN."""
    count = np.stack([np.bincount(labels[halves == half]) for half in range(2)])[..., None]
    found = []
    # The random stream is separate from that of the halves.
    for sums in permuted_class_sums(values, labels, halves, permutations, seed + 1, copies=copies):
        means = sums / count
        chosen = means[:, _CHOOSE].argmax(1)[:, None]
        scored = values.mean + values.std * means[:, _SCORE]
        a = np.take_along_axis(scored, chosen, 1)[:, 0]
        b = (scored.sum(1) - a) / (scored.shape[1] - 1)
        index = np.zeros(a.shape)
        np.divide(a - b, a + b, out=index, where=a + b > _ROUNDED_ZERO * values.std)
        found.append(index)
    return np.concatenate(found)
