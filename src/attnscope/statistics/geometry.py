"""Which classes a gate treats alike, and whether two networks agree about that."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images, shared_channel_gates
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.ranks import rank_correlation, standard_ranks
from attnscope.statistics.reading import gate_rows
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import (
    centered_interval,
    expect_positive,
    mantel,
    stratified_sample,
)

_CELLS = 2**22
"""Resampled class means that are held at a time."""


@statistic(
    "How unlike a gate's profiles of two classes are.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def class_distances(recording: Recording | Moments, gate: str) -> pd.DataFrame:
    """How unlike a channel gate's profiles of two classes are: 1 less Pearson's correlation.

    A class's profile is the mean of each channel over the images of the class, and the correlation
    is over the channels (representational dissimilarity, Kriegeskorte et al. 2008, Frontiers in
    Systems Neuroscience 2). Noise of the means makes a distance larger, by about the ratio of their
    squared standard errors to the variance over the channels.

    Returns:
        ``K × K``, both axes in the order of ``recording.classes``; 0 to 2, 0 on the diagonal. NaN
        for a class without images, or whose profile is the same in all channels.

    Raises:
        InputError: there is no such gate, or it is no channel gate.
    """
    if isinstance(recording, Moments):
        means = recording.channels(gate).mean
    else:
        values = recording.channel(gate)
        means = class_moments(values, recording.labels, len(recording.classes)).mean
    return pd.DataFrame(
        _distances(means),
        index=pd.Index(recording.classes, name="class"),
        columns=pd.Index(recording.classes, name="other"),
    )


@statistic("Whether two networks find the same classes alike.", takes=("recording", "recording"))
def compare_geometry(
    a: Recording, b: Recording, permutations: int = 1000, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Whether two networks find the same classes alike, in the channel gates both have.

    Spearman's rho between the two networks' ``class_distances``, over the pairs of classes. Each
    network's distances are over its own channels: channels of two networks are never matched by
    number, and their numbers may differ.

    The null of p, two-sided: which class is which in b has nothing to do with a; the classes of b
    are permuted, rows and columns together, which keeps what ties the distances of one class to
    each other (Mantel 1967, Cancer Research 27). All orders are counted up to seven classes. With
    three classes p cannot be below 1/6, with four below 1/24.

    The interval is of the bootstrap over images, drawn within each class and the same for both
    networks: noise makes the distances of a resample less alike than those found, as it made those
    less alike than the true ones, so that this bias is taken away and the deviation of the
    resamples put about what is left (Davison and Hinkley 1997, section 5.2.1). A percentile
    interval would lie far too low. It is conditional on the two trained networks, and with fewer
    than ten classes, where rho jumps, it is too narrow (docs/metrics.md).

    Args:
        a: the one network.
        b: the other, on the same images.
        permutations: orders of the classes, above seven of them.
        resamples: of the images.
        seed: of both.

    Returns:
        One row a gate: gate, classes (those with a distance in both), spearman (-1 to 1), low, high
        (95 %), p. With fewer than three classes, or where all distances of a network are the same,
        all but classes is NaN; low and high also where a class has one image.

    Raises:
        InputError: the recordings are not of the same images, no channel gate has the same name in
            both, or permutations or resamples is below 1.
    """
    expect_positive("permutations", permutations, 1000)
    expect_positive("resamples", resamples, 1000)
    expect_same_images(a, b)
    shared = shared_channel_gates(a, b)
    rows = []
    for name in shared:
        first, second = (class_distances(recording, name).to_numpy() for recording in (a, b))
        known = np.flatnonzero(~np.isnan(first.diagonal() + second.diagonal()))
        row: dict[str, object] = {"gate": name, "classes": len(known)}
        pairs = np.triu_indices(len(known), 1)
        x, y = (found[np.ix_(known, known)] for found in (first, second))
        if len(known) >= 3 and np.ptp(x[pairs]) > 0 and np.ptp(y[pairs]) > 0:
            rho, p = mantel(x, y, permutations, seed)
            low, high = _interval(a, b, name, known, rho, resamples, seed)
            row |= {"spearman": rho, "low": low, "high": high, "p": p}
        rows.append(row)
    return pd.DataFrame(rows, columns=["gate", "classes", "spearman", "low", "high", "p"])


def _distances(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - Pearson between the rows of ``(..., K, C)``: ``(..., K, K)``."""
    offset = means - means.mean(-1, keepdims=True)
    length = np.sqrt((offset**2).sum(-1, keepdims=True))
    # Means of equal values differ in their last bits, and those are no profile.
    floor = 1e-12 * np.abs(means).max(-1, keepdims=True) * math.sqrt(means.shape[-1])
    unit = offset / np.where(length > floor, length, np.nan)
    distances: NDArray[np.float64] = np.clip(1 - unit @ unit.swapaxes(-1, -2), 0, 2)
    own = np.arange(means.shape[-2])
    distances[..., own, own] = np.where(np.isnan(unit[..., 0]), np.nan, 0)
    return distances


def _interval(
    a: Recording,
    b: Recording,
    gate: str,
    known: NDArray[np.int64],
    rho: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    values = [recording.channel(gate) for recording in (a, b)]
    members = [np.flatnonzero(a.labels == k) for k in known]
    if min(len(rows) for rows in members) < 2:
        return float("nan"), float("nan")
    # About the mean of all images, so that single precision is enough.
    middles = [v.mean(0, dtype=np.float64) for v in values]
    pairs = np.triu_indices(len(known), 1)
    rng = np.random.default_rng(seed + 1)
    block = max(1, _CELLS // (len(known) * max(v.shape[1] for v in values)))
    found = []
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        means = [np.zeros((size, len(known), v.shape[1])) for v in values]
        for k, rows in enumerate(members):
            count = len(rows)
            weight = rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float32)
            for mean, v, middle in zip(means, values, middles, strict=True):
                offset = (v[rows] - middle).astype(np.float32)
                drawn = (weight - 1) @ offset / count
                # A resample spreads about the mean by (n - 1) / n of what the sample does.
                mean[:, k] = middle + offset.mean(0) + drawn * math.sqrt(count / (count - 1))
        x, y = (standard_ranks(_distances(mean)[:, *pairs]) for mean in means)
        found.append((x * y).sum(1))
    drawn = np.concatenate(found)
    low, high = centered_interval(rho, drawn)
    return max(low, -1.0), min(high, 1.0)


@statistic(
    "How alike the gates of two networks are on the same images.", takes=("recording", "recording")
)
def compare_gates(a: Recording, b: Recording, images: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How alike what two networks' gates say of the same images is, gate by gate.

    Of spatial gates on one grid it is Spearman's rho over the pixels, averaged over the images. Of
    every other kind it is linear CKA (Kornblith et al. 2019, ICML), which needs no channel of one
    network to be any of the other's, with the unbiased estimator of HSIC (Song et al. 2012, Journal
    of Machine Learning Research 13): 1 for gates that are rotations of each other, about 0 for
    unrelated ones however many channels they have.

    Args:
        a, b: of the same images, for instance two seeds of one training.
        images: on how many of them at most, of each class its share and never more than half.
        seed: of which.

    Returns:
        One row a gate that both have under one name: gate, kind, similarity, images (that could be
        scored: a constant map has no ranks). NaN where there are none, or a gate is constant.

    Raises:
        InputError: the recordings are not of the same images.
    """
    expect_same_images(a, b)
    rows = np.arange(len(a))
    if images < len(a):
        rows = stratified_sample(a.labels, images, np.random.default_rng(seed))
    names = {gate.name for gate in b.gates}
    found = []
    for gate in a.gates:
        if gate.name in names:
            x, y = (gate_rows(recording, gate.name, rows) for recording in (a, b))
            similarity, count = gate_similarity(x, y, gate)
            found.append(
                {"gate": gate.name, "kind": gate.kind, "similarity": similarity, "images": count}
            )
    return pd.DataFrame(found, columns=["gate", "kind", "similarity", "images"])


def gate_similarity(
    x: NDArray[np.float32], y: NDArray[np.float32], gate: Gate
) -> tuple[float, int]:
    """That of `compare_gates` for the values of one gate, and how many images were scored.

    Args:
        x, y: ``(n, C)`` and ``(n, D)``, or ``(n, H, W)``, of the same images.
        gate: whose values they are; those of a map on one grid are compared as maps.
    """
    if gate.has(MAP) and x.shape == y.shape:
        first, second = (values.reshape(len(values), -1) for values in (x, y))
        scored = (first.max(1) > first.min(1)) & (second.max(1) > second.min(1))
        if not scored.any():
            return float("nan"), 0
        return float(rank_correlation(first[scored], second[scored]).mean()), int(scored.sum())
    return linear_cka(x.reshape(len(x), -1), y.reshape(len(y), -1)), len(x)


def linear_cka(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Linear CKA with the unbiased HSIC, of ``(n, C)`` and ``(n, D)``; NaN below four images.

    It may fall a little below 0. NaN where one of the two is constant.
    """
    n = len(x)
    if n < 4:
        return float("nan")
    grams = []
    for values in (x, y):
        centered = np.asarray(values, np.float64)
        centered = centered - centered.mean(0)
        scale = np.sqrt((centered**2).sum() / n)
        # Rounding leaves something of a constant gate.
        if scale <= 1e-7 * max(float(np.abs(values).max()), 1e-30):
            return float("nan")
        gram = (centered / scale) @ (centered / scale).T
        np.fill_diagonal(gram, 0)
        grams.append(gram)
    k, m = grams
    both, first, second = _hsic(k, m), _hsic(k, k), _hsic(m, m)
    return float(both / np.sqrt(first * second)) if first > 0 and second > 0 else float("nan")


def _hsic(k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    """Song et al. 2012, eq. 5, of Gram matrices whose diagonals are zero."""
    n = len(k)
    rows_k, rows_m = k.sum(0), m.sum(0)
    found = (k * m).sum() + rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2))
    return float((found - 2 * (rows_k @ rows_m) / (n - 2)) / (n * (n - 3)))
