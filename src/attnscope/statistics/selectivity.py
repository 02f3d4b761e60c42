"""Class selectivity of channels, and permutation tests, channel by channel."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.kinds import PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import t_interval
from attnscope.statistics.reading import StandardizedGate
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import (
    expect_positive,
    permutation_p,
    permuted_class_sums,
    present_classes,
    stratified_folds,
)

_SCORE, _CHOOSE = 0, 1  # with an odd number of images, the scoring half is larger
_ROUNDED_ZERO = 1e-6
"""Means below this value, in standard deviations of the channel, are rounding errors of zero."""


@statistic(
    "Class selectivity of each channel, on held-out images.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def class_selectivity(
    recording: Recording, gate: str, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compute the class selectivity of each channel on images not used to choose the class.

    The index is that of Morcos et al. (2018, ICLR), on a held-out half: the images of each class
    are split into two random halves. One half chooses the class with the highest mean. On the other
    half the index is ``(a - b) / (a + b)``, where a is the mean of the chosen class and b the mean
    of the means of all other classes. Without the second half the largest of K noisy means would
    make every channel selective; with it the index of an unselective channel is 0 on average.

    The interval is from the delta method, with the standard errors of a and b over images and
    Student's t with Welch-Satterthwaite degrees of freedom. It is conditional on the chosen class.

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
        is zero on the scoring half. Classes of fewer than two images are left out; with fewer than
        two classes all numbers are NaN. low and high are NaN if a class has fewer than two images
        in the scoring half.

    Raises:
        InputError: the gate does not exist or is not a channel gate, a value is not finite, or
            permutations is below 1.
    """
    expect_positive("permutations", permutations, 1000)
    values = StandardizedGate(recording, gate, PER_CHANNEL)
    channels = len(values.mean)
    negative = values.minimum < 0
    known, labels, _ = present_classes(recording.labels, at_least=2)
    best: NDArray[np.object_] = np.full(channels, np.nan, object)
    index, low, high, p, p_max = (np.full(channels, np.nan) for _ in range(5))
    if len(known) >= 2:
        halves = stratified_folds(labels, 2, np.random.default_rng(seed))
        chosen, means, errors, degrees = _scored_half(values, labels, halves, len(known))
        index, low, high = _with_interval(chosen, means, errors, degrees, values.std)
        scored = ~(values.constant | negative | np.isnan(index))
        for column in (index, low, high):
            column[~scored] = np.nan
        best[scored] = np.array(recording.classes, object)[known[chosen[scored]]]
        if scored.any():
            drawn = _permuted_index(values, labels, halves, permutations, seed)[:, scored]
            p[scored] = permutation_p(drawn[1:], drawn[0])
            spread = drawn.std(0)
            # The observed order is part of the standardization: all orders are treated alike.
            standard = (drawn - drawn.mean(0)) / np.where(spread > 0, spread, 1)
            p_max[scored] = permutation_p(standard[1:].max(1, keepdims=True), standard[0])
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
    "Share of each channel's variance between classes (permutation test).",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def permuted_channel_effects(
    recording: Recording, gate: str, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Test each channel for differences between classes by permutations.

    The statistic is eta², the share of variance between classes. F and omega² are increasing
    functions of it and have the same p. Null hypothesis: the gate holds no information about the
    class, so that each order of the labels is equally likely; no distribution is assumed. Labels
    are permuted for all channels together, which preserves the dependence between channels.
    ``p_max`` compares each channel with the largest eta² of any channel (Westfall and Young 1993,
    Resampling-Based Multiple Testing) and so controls the probability of a single false channel.

    Args:
        recording: recording of one network.
        gate: name of a channel gate.
        permutations: number of permutations of the labels. The smallest possible p is ``1 /
            (permutations + 1)``.
        seed: seed of the permutations.

    Returns:
        One row per channel:

        - ``channel``
        - ``eta_squared``: 0 to 1.
        - ``p``, ``p_max``
        - ``constant``: whether the channel has the same value for all images. Its numbers are NaN.

        All numbers are NaN with fewer than two classes, or if every class has one image.

    Raises:
        InputError: the gate does not exist or is not a channel gate, a value is not finite, or
            permutations is below 1.
    """
    expect_positive("permutations", permutations, 1000)
    values = StandardizedGate(recording, gate, PER_CHANNEL)
    eta, p, p_max = (np.full(len(values.mean), np.nan) for _ in range(3))
    varying = ~values.constant
    known, labels, count = present_classes(recording.labels)
    if 2 <= len(known) < len(labels) and varying.any():
        one = np.zeros(len(labels), np.int64)
        blocks = permuted_class_sums(values, labels, one, permutations, seed)
        # The total sum of squares of a standardized channel is the number of images.
        drawn = np.concatenate(
            [(sums[:, 0] ** 2 / count[:, None]).sum(1)[:, varying] for sums in blocks]
        ) / len(labels)
        eta[varying] = drawn[0]
        p[varying] = permutation_p(drawn[1:], drawn[0])
        p_max[varying] = permutation_p(drawn[1:].max(1, keepdims=True), drawn[0])
    return pd.DataFrame(
        {
            "channel": np.arange(len(eta)),
            "eta_squared": eta,
            "p": p,
            "p_max": p_max,
            "constant": values.constant,
        }
    )


def _scored_half(
    values: StandardizedGate, labels: NDArray[np.int64], halves: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Choose a class for each channel on one half, and compute means and errors on the other.

    Returns:
        The chosen classes ``(C,)``; means ``(K, C)`` and squared standard errors ``(K, C)``, in
        units of the gate; degrees of freedom, images minus one, ``(K,)``.
    """
    shape = (2, classes, len(values.mean))
    total, square = np.zeros(shape), np.zeros(shape)
    count = np.zeros((2, classes, 1))
    for rows, piece in values.read():
        for half in range(2):
            for k in range(classes):
                members = piece[(halves[rows] == half) & (labels[rows] == k)].astype(np.float64)
                total[half, k] += members.sum(0)
                square[half, k] += (members**2).sum(0)
                count[half, k] += len(members)
    chosen = (total / count)[_CHOOSE].argmax(0)
    n, sums = count[_SCORE], total[_SCORE]
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN for a class of one image
        variance = np.maximum(square[_SCORE] - sums**2 / n, 0) / (n - 1)
    variance[n[:, 0] < 2] = np.nan
    means = np.maximum(values.mean + values.std * sums / n, np.minimum(values.minimum, 0))
    return chosen, means, variance * values.std**2 / n, (n[:, 0] - 1).astype(np.int64)


def _with_interval(
    chosen: NDArray[np.int64],
    means: NDArray[np.float64],
    errors: NDArray[np.float64],
    degrees: NDArray[np.int64],
    scale: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the index and its 95% interval, ``(C,)`` each; NaN where all means are zero."""
    others = len(means) - 1
    here = np.arange(len(means))[:, None] == chosen
    a = means[here.argmax(0), np.arange(len(chosen))]
    b = np.where(here, 0, means).sum(0) / others
    total = np.where(a + b > _ROUNDED_ZERO * scale, a + b, np.nan)
    index = (a - b) / total
    # d index / da = 2b / (a + b)², d index / db = -2a / (a + b)², and b is a mean of `others`.
    slope = np.where(here, 2 * b, 2 * a / others) / total**2
    parts = slope**2 * errors
    variance = parts.sum(0)
    # Without any variance the degrees of freedom are undefined, and the interval is a point.
    ratio = (parts**2 / np.maximum(degrees, 1)[:, None]).sum(0)
    freedom = variance**2 / np.where(ratio > 0, ratio, 1)
    low, high = t_interval(index, np.sqrt(variance), np.maximum(freedom, 1))
    return index, np.maximum(low, -1), np.minimum(high, 1)


def _permuted_index(
    values: StandardizedGate,
    labels: NDArray[np.int64],
    halves: NDArray[np.int64],
    permutations: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return the index, observed and permuted: ``(1 + permutations, C)``, never NaN."""
    count = np.stack([np.bincount(labels[halves == half]) for half in range(2)])[..., None]
    found = []
    # The random stream is separate from that of the halves.
    for sums in permuted_class_sums(values, labels, halves, permutations, seed + 1):
        means = sums / count
        chosen = means[:, _CHOOSE].argmax(1)[:, None]
        scored = values.mean + values.std * means[:, _SCORE]
        a = np.take_along_axis(scored, chosen, 1)[:, 0]
        b = (scored.sum(1) - a) / (scored.shape[1] - 1)
        index = np.zeros(a.shape)
        np.divide(a - b, a + b, out=index, where=a + b > _ROUNDED_ZERO * values.std)
        found.append(index)
    return np.concatenate(found)
