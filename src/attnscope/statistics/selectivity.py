"""Which class a channel opens for, and whether that is more than chance, channel by channel."""

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

_SCORE, _CHOOSE = 0, 1  # the half that scores is the one that gets a class's odd image
_NOTHING = 1e-6
"""Means this small, in standard deviations of the channel, are rounded zeros."""


@statistic(
    "For which class each channel opens, and how selectively.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def class_selectivity(
    recording: Recording, gate: str, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Class selectivity of each channel (Morcos et al. 2018, ICLR), on images that did not choose.

    The images of each class are halved at random. The class of the highest mean is chosen on one
    half; on the other ``(a - b) / (a + b)`` is taken, a being the mean of the chosen class, b the
    mean of the other classes' means. Without the second half, the largest of K noisy means would
    make every channel selective; with it, an unselective channel is 0 on average.

    The interval is the delta method's, by the standard errors of a and b over images and Student's
    t with Welch and Satterthwaite's degrees of freedom; it is of the chosen class. The null of p,
    one-sided: the channel knows nothing of the class; choice and score are repeated under
    permutations of the labels within each half. p_max is the same for the largest over the channels
    (Westfall and Young 1993, Resampling-Based Multiple Testing), each standardised by its own null,
    which controls the chance of a single false channel, however the channels depend on each other.

    Args:
        recording: what to read.
        gate: a channel gate.
        permutations: orders of the labels; the least p is ``1 / (permutations + 1)``.
        seed: of the halves and the orders.

    Returns:
        One row a channel: channel, best (the chosen class), selectivity (-1 to 1: 0 where the
        chosen class is as the others, 1 where the channel opens for it alone), low, high, p, p_max,
        constant, negative. Where constant (one value for all images) or negative (some value is
        below 0, where the ratio has no bounds and no meaning) is True all else is NaN;
        so it is where the other half holds zeros alone. Classes of fewer than two images are
        left out, and with fewer than two classes all is NaN; low and high are NaN where a class has
        fewer than two images in the half that scores.

    Raises:
        InputError: there is no such gate, it is no channel gate, or permutations is below 1.
    """
    expect_positive("permutations", permutations, 1000)
    recording.channel(gate, slice(0, 0))  # says what is wrong with the name
    values = StandardizedGate(recording, gate)
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
            # The found order is one of those that standardise: all are treated alike.
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
    "How much of each channel's variance lies between the classes (permutations).",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def permuted_channel_effects(
    recording: Recording, gate: str, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Whether a channel's mean differs between classes, without supposing a distribution.

    The null: the gate knows nothing of the class, so that each order of the labels was as likely.
    The statistic is eta squared; for one recording F and omega squared rise and fall with it, so
    that theirs is the same p. Labels are permuted for all channels together, which keeps what ties
    the channels to each other; p_max compares each channel with the largest of all channels
    (Westfall and Young 1993, Resampling-Based Multiple Testing), which controls the chance of a
    single false channel.

    Args:
        recording: what to read.
        gate: a channel gate.
        permutations: orders of the labels; the least p is ``1 / (permutations + 1)``.
        seed: of the orders.

    Returns:
        One row a channel: channel, eta_squared (share of variance, 0 to 1), p, p_max, constant. A
        channel with one value for all images has constant True and NaN. With images of fewer than
        two classes, or of one image a class, all is NaN.

    Raises:
        InputError: there is no such gate, it is no channel gate, or permutations is below 1.
    """
    expect_positive("permutations", permutations, 1000)
    recording.channel(gate, slice(0, 0))  # says what is wrong with the name
    values = StandardizedGate(recording, gate)
    eta, p, p_max = (np.full(len(values.mean), np.nan) for _ in range(3))
    varying = ~values.constant
    known, labels, count = present_classes(recording.labels)
    if 2 <= len(known) < len(labels) and varying.any():
        one = np.zeros(len(labels), np.int64)
        blocks = permuted_class_sums(values, labels, one, permutations, seed)
        # Standardised, a channel's total sum of squares is the number of images.
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
    """The class chosen for each channel, and of the other half the means and their errors.

    Returns:
        The choice ``(C,)``; means ``(K, C)`` and squared standard errors ``(K, C)``, in units of
        the gate; images less one ``(K,)``.
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
    with np.errstate(invalid="ignore", divide="ignore"):  # one image has no deviation: NaN
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
    """The index and its 95 % interval, ``(C,)`` each; NaN where all means are zero."""
    others = len(means) - 1
    here = np.arange(len(means))[:, None] == chosen
    a = means[here.argmax(0), np.arange(len(chosen))]
    b = np.where(here, 0, means).sum(0) / others
    total = np.where(a + b > _NOTHING * scale, a + b, np.nan)
    index = (a - b) / total
    # d index / da = 2b / (a + b)², d index / db = -2a / (a + b)², and b is a mean of `others`.
    slope = np.where(here, 2 * b, 2 * a / others) / total**2
    parts = slope**2 * errors
    variance = parts.sum(0)
    # Where nothing varies there are no degrees of freedom, and the interval is a point.
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
    """The index as found and under each permutation, ``(1 + permutations, C)``; no NaN."""
    count = np.stack([np.bincount(labels[halves == half]) for half in range(2)])[..., None]
    found = []
    # Another stream than that of the halves.
    for sums in permuted_class_sums(values, labels, halves, permutations, seed + 1):
        means = sums / count
        chosen = means[:, _CHOOSE].argmax(1)[:, None]
        scored = values.mean + values.std * means[:, _SCORE]
        a = np.take_along_axis(scored, chosen, 1)[:, 0]
        b = (scored.sum(1) - a) / (scored.shape[1] - 1)
        index = np.zeros(a.shape)
        np.divide(a - b, a + b, out=index, where=a + b > _NOTHING * values.std)
        found.append(index)
    return np.concatenate(found)
