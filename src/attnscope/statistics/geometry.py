"""Similarity of classes within a gate, and similarity of gates between networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import squareform

from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.comparison import expect_same_images, shared_channel_gates
from attnscope.statistics.distances import ClassMeans, noise_of, squared_distances
from attnscope.statistics.inference import significant
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.ranks import rank_correlation, standard_ranks
from attnscope.statistics.reading import gate_rows
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import centered_interval, mantel
from attnscope.statistics.splits import (
    checked_groups,
    expect_positive,
    present_classes,
    stratified_folds,
    stratified_sample,
)

_CELLS = 2**22
"""Number of resampled class means that are held in memory at a time."""
_FEWEST = 8
"""Smallest number of images of a class: two in each half of the half of a network."""
_RELIABLE = 0.5
"""Smallest reliability of the distances of a network with which they are compared."""


@statistic(
    "Distances between the class profiles of a gate.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def class_distances(recording: Recording | Moments, gate: str) -> pd.DataFrame:
    """Compute the distances between the class profiles of a channel gate.

    The profile of a class is the mean of each channel over the images of the class. The distance of
    two classes is 1 minus Pearson's correlation of their profiles over the channels
    (representational dissimilarity; Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2).
    Sampling noise increases a distance by about the ratio of the squared standard errors of the
    means to the variance over the channels. There is no test: `compare_geometry` tests whether two
    networks agree, by distances without this noise.

    Args:
        recording: recording or moments of one network.
        gate: name of a channel gate.

    Returns:
        ``K × K`` table without unit, 0 to 2, with 0 on the diagonal. Index and columns are the
        class names in the order of ``recording.classes``. NaN for a class without images, and for a
        class whose profile is the same in all channels.

    Raises:
        InputError: the gate does not exist or is not a channel gate.
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


@statistic(
    "Whether the same classes are similar in two networks.", takes=("recording", "recording")
)
def compare_geometry(
    a: Recording,
    b: Recording,
    permutations: int = 1000,
    resamples: int = 200,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Test whether the same classes are similar in two networks, gate by gate.

    The statistic is Spearman's rho between the distances of classes in the two networks, over the
    pairs of classes (representational similarity analysis; Kriegeskorte et al. 2008, Frontiers in
    Systems Neuroscience 2). Each distance is over the channels of its own network: channels of two
    networks are never matched by number, and the networks may have different numbers of channels.

    The images of each class are split into two random halves, one for each network. On the same
    images the class means of two networks share the nuisances of these images, such as their
    brightness, and so look similar without any class information. The distance of two classes is
    the squared Euclidean distance of their mean gates without the squared standard errors of the
    means, ``|m_i - m_j|² - v_i - v_j``. This is the mean over all pairs of different images of the
    cross-validated distance (Walther et al. 2016, NeuroImage 137), and 0 on average for classes
    with the same mean, whatever the number of their images.

    Null hypothesis: the assignment of classes in b is independent of that in a. p is that of the
    two-sided Mantel test (Mantel 1967, Cancer Research 27): the classes of b are permuted, rows and
    columns together, which preserves the dependence between the distances of one class. All orders
    are enumerated for up to seven classes. p cannot be below 1/6 with three classes, nor below 1/24
    with four. Where distances are mostly noise, classes of few images or of large spread are not
    exchangeable with others. The test is therefore refused where a network's distances are not
    reliable: its half is split further into two parts, 20 times, and ``reliability`` is the mean
    rank correlation between the distances of both parts, for the length of the half (Spearman 1910
    and Brown 1910, British Journal of Psychology 3). Distances of noise alone can be reliable by
    chance, so that it is also refused unless the classes differ in both networks: by a permutation
    test of the sum of squares between classes in its half (Anderson 2001, Austral Ecology 26), at
    5%.

    The interval is a bootstrap over images, drawn within each class. Resampling adds noise to the
    distances and lowers rho once more, as sampling did, so that the bias is subtracted: ``2 rho -
    mean(rho*) ± 1.96 sd(rho*)`` (Davison and Hinkley 1997, Bootstrap Methods and Their Application,
    section 5.2.1). A percentile interval would lie far too low. The interval is conditional on the
    two trained networks. With fewer than ten classes, where rho takes few values, it is too narrow
    (docs/reference/metrics.md gives its coverage).

    Args:
        a: recording of the first network.
        b: recording of the second network, of the same images.
        permutations: number of random orders of the classes if there are more than seven.
        resamples: number of bootstrap resamples.
        seed: seed of halves, orders and resamples.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). The first of them is used. None: no image is a copy.

    Returns:
        One row per channel gate that both networks have:

        - ``gate``
        - ``classes``: number of classes with at least eight images; others are left out.
        - ``spearman``: -1 to 1.
        - ``low``, ``high``: 95% CI.
        - ``ceiling``: the rho that two networks with the same true distances would reach with these
          numbers of images: the root of the product of the two reliabilities, 0 to 1.
        - ``p``

        low, high and p are NaN if the reliability of a network is below 0.5, or if the classes do
        not differ in a network. All numbers except
        classes are NaN with fewer than three classes, or if all distances of a network are equal.

    Raises:
        InputError: the recordings do not hold the same images, no channel gate has the same name in
            both networks, a value is not finite, permutations or resamples is below 1, or there is
            not one group per image (AS717).
    """
    expect_positive("permutations", permutations, 1000)
    expect_positive("resamples", resamples, 200)
    expect_same_images(a, b)
    shared = shared_channel_gates(a, b)
    copies = checked_groups(groups, len(a))
    is_first = np.ones(len(a), bool)
    if copies is not None:
        is_first[:] = False
        is_first[np.unique(copies, return_index=True)[1]] = True
    rows_of = np.flatnonzero(is_first)
    known, kept, _ = present_classes(a.labels[rows_of], at_least=_FEWEST)
    labels = np.full(len(a), -1)
    labels[rows_of] = kept
    halves = stratified_folds(labels, 2, np.random.default_rng(seed))
    rows = []
    for name in shared:
        row: dict[str, object] = {"gate": name, "classes": len(known)}
        if len(known) >= 3:
            row |= _compared(
                [
                    ClassMeans.of(recording, name, labels, np.flatnonzero(halves == half))
                    for half, recording in enumerate((a, b))
                ],
                permutations,
                resamples,
                seed,
            )
        rows.append(row)
    columns = ["gate", "classes", "spearman", "low", "high", "ceiling", "p"]
    return pd.DataFrame(rows, columns=columns)


def _compared(
    networks: Sequence[ClassMeans], permutations: int, resamples: int, seed: int
) -> dict[str, float]:
    """Return rho, its interval, its ceiling and p of one gate."""
    distances = [network.distances() for network in networks]
    if min(map(np.ptp, distances)) == 0:
        return {}
    x, y = (squareform(found, checks=False) for found in distances)
    rho, p = mantel(x, y, permutations, seed)
    reliable = [network.reliability(seed + i) for i, network in enumerate(networks)]
    found = {"spearman": rho, "ceiling": math.sqrt(reliable[0] * reliable[1])}
    if min(reliable) < _RELIABLE:
        return found
    # Distances that are noise alone can be reliable by chance, where the smallest classes happen to
    # be far from all others. If that happens in both networks, they look alike.
    if not all(significant(net.difference_p(seed + i)) for i, net in enumerate(networks)):
        return found
    low, high = _interval(networks, rho, resamples, seed)
    return {**found, "low": low, "high": high, "p": p}


def _interval(
    networks: Sequence[ClassMeans], rho: float, resamples: int, seed: int
) -> tuple[float, float]:
    rng = np.random.default_rng(seed + 1)
    moments = [network.moments() for network in networks]
    classes = networks[0].classes
    widest = max(network.offset.shape[1] for network in networks)
    block = max(1, _CELLS // (classes * max(widest, classes)))
    found = []
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        ranks = []
        for network, (means, errors, _) in zip(networks, moments, strict=True):
            mean = np.repeat(means[None], size, 0)
            for k in range(classes):
                offset = network.offset[network.labels == k] - means[k]
                count = len(offset)
                weight = rng.multinomial(count, np.full(count, 1 / count), size)
                # The variance of resampled means is (n - 1) / n of the unbiased estimate.
                mean[:, k] += weight @ offset / count * math.sqrt(count / (count - 1))
            # The noise of sampling and that of resampling both add to the distances.
            ranks.append(standard_ranks(squared_distances(mean) - 2 * noise_of(errors)))
        found.append((ranks[0] * ranks[1]).sum(1))
    low, high = centered_interval(rho, np.concatenate(found))
    return max(low, -1.0), min(high, 1.0)


def _distances(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 - Pearson's correlation between the rows of ``(..., K, C)``: ``(..., K, K)``."""
    offset = means - means.mean(-1, keepdims=True)
    length = np.sqrt((offset**2).sum(-1, keepdims=True))
    # Means of equal values differ in their last bits; a profile of such differences is constant.
    floor = 1e-12 * np.abs(means).max(-1, keepdims=True) * math.sqrt(means.shape[-1])
    unit = offset / np.where(length > floor, length, np.nan)
    distances: NDArray[np.float64] = np.clip(1 - unit @ unit.swapaxes(-1, -2), 0, 2)
    own = np.arange(means.shape[-2])
    distances[..., own, own] = np.where(np.isnan(unit[..., 0]), np.nan, 0)
    return distances


@statistic(
    "Similarity of the gates of two networks on the same images.", takes=("recording", "recording")
)
def compare_gates(a: Recording, b: Recording, images: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Measure how similar the gates of two networks are on the same images.

    Spatial gates on the same grid are compared by Spearman's rho over the pixels, averaged over the
    images. All other gates are compared by linear CKA (Kornblith et al. 2019, ICML) with the
    unbiased HSIC estimator (Song et al. 2012, Journal of Machine Learning Research 13), which needs
    no matching of channels: it is 1 for gates that are rotations of each other, and about 0 for
    unrelated gates, whatever their number of channels. There is no interval and no test.

    Args:
        a: recording of the first network.
        b: recording of the second network, of the same images.
        images: maximal number of images. They are sampled in proportion to the classes, at most
            half of each class.
        seed: seed of the sample.

    Returns:
        One row per gate that both networks have:

        - ``gate``, ``kind``
        - ``similarity``: Spearman's rho or CKA; NaN if no image can be scored, or if a gate is
          constant.
        - ``images``: number of scored images. An image with a constant map has no ranks and is not
          scored.

    Raises:
        InputError: the recordings do not hold the same images.
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
    x: Float32[Array, "images ..."], y: Float32[Array, "images ..."], gate: Gate
) -> tuple[float, int]:
    """Compute the similarity of `compare_gates` from the values of one gate in two networks.

    Args:
        x: values of the gate in the first network, ``(n, C)`` or ``(n, H, W)``.
        y: values in the second network for the same images, ``(n, D)`` or ``(n, H, W)``.
        gate: the gate. Values of a spatial gate on the same grid are compared as maps.

    Returns:
        The similarity, and the number of images that were scored.
    """
    if gate.has(MAP) and x.shape == y.shape:
        first, second = (values.reshape(len(values), -1) for values in (x, y))
        scored = (first.max(1) > first.min(1)) & (second.max(1) > second.min(1))
        if not scored.any():
            return float("nan"), 0
        return float(rank_correlation(first[scored], second[scored]).mean()), int(scored.sum())
    return linear_cka(x.reshape(len(x), -1), y.reshape(len(y), -1)), len(x)


def linear_cka(x: Float[Array, "images x"], y: Float[Array, "images y"]) -> float:
    """Compute linear CKA with the unbiased HSIC estimator.

    Sources: Kornblith et al. 2019, ICML; Song et al. 2012, Journal of Machine Learning Research 13.

    Args:
        x: ``(n, C)``
        y: ``(n, D)``, of the same images.

    Returns:
        At most 1 up to rounding, and possibly slightly below 0. NaN with fewer than four images, or
        if one of the two arrays is constant.
    """
    n = len(x)
    if n < 4:
        return float("nan")
    grams = []
    for values in (x, y):
        centered = np.asarray(values, np.float64)
        centered = centered - centered.mean(0)
        scale = np.sqrt((centered**2).sum() / n)
        # Rounding leaves a small spread in a constant gate.
        if scale <= 1e-7 * max(float(np.abs(values).max()), 1e-30):
            return float("nan")
        gram = (centered / scale) @ (centered / scale).T
        np.fill_diagonal(gram, 0)
        grams.append(gram)
    k, m = grams
    both, first, second = _hsic(k, m), _hsic(k, k), _hsic(m, m)
    return float(both / np.sqrt(first * second)) if first > 0 and second > 0 else float("nan")


def _hsic(k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    """Return the unbiased HSIC of Gram matrices with zero diagonals (Song et al. 2012, eq. 5)."""
    n = len(k)
    rows_k, rows_m = k.sum(0), m.sum(0)
    found = (k * m).sum() + rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2))
    return float((found - 2 * (rows_k @ rows_m) / (n - 2)) / (n * (n - 3)))
