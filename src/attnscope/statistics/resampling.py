"""What is drawn at random, and what is made of the draws: permutations, bootstrap, folds, samples.

The null of most statistics here is that the gate knows nothing of the class: then each order of the
labels was as likely as the one found. All that a permutation changes are the sums over the images
of each class, and those of many permutations are one product of matrices, which is why scipy's
``permutation_test`` and ``bootstrap``, one call a draw, do neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from attnscope.errors import InputError
from attnscope.statistics.inference import ENDS, normal_interval
from attnscope.statistics.ranks import standard_ranks
from attnscope.statistics.reading import StandardizedGate

_CELLS = 2**23
"""Class sums that are held at a time, 64 MiB in double precision."""
_LABELS = 2**24
"""Permuted labels that are held at a time."""
_DENSE_CLASSES = 64
"""Up to so many classes a dense product is quicker than a sparse one."""
_DRAWS = 2**21
"""Images that are drawn at a time, for bootstrapped means."""
_SUMMED = 2**22
"""Values that are drawn at a time, for bootstrapped sums."""
_EXACT_UP_TO = 7
"""Classes whose 7! = 5,040 orders are counted instead of drawn."""
_ORDERS = 9_999
"""Orders that are drawn of a longer list."""
_TIE = 1e-6
"""A permuted value this little below the observed one, relative to it, ties with it: both are sums
in single precision, whose last digits depend on the order."""


def present_classes(
    labels: NDArray[np.int64], at_least: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The classes that have images, counted anew from 0.

    Returns:
        The classes ``(K,)``, the new label of each image ``(N,)``, -1 for an image of a class of
        fewer than ``at_least``, and the counts ``(K,)``.
    """
    count = np.bincount(labels)
    known = np.flatnonzero(count >= at_least)
    place = np.full(len(count), -1)
    place[known] = np.arange(len(known))
    return known, place[labels], count[known]


def stratified_folds(
    labels: NDArray[np.int64], folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Of each image its fold, 0 to ``folds - 1``; of each class as many in each, or one more.

    The first folds get the one more. An image whose label is below 0 is in none: -1.
    """
    place = np.full(len(labels), -1)
    for label in np.unique(labels[labels >= 0]):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = np.arange(len(members)) % folds
    return place


def stratified_sample(
    labels: NDArray[np.int64], images: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of about ``images`` images, of each class its share, and never more than half of it.

    The other half is left, for means and donors that come from other images.

    Returns:
        ``(n,)``, sorted; empty where every class has one image.
    """
    share = min(images / len(labels), 0.5)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(share * len(members)), len(members) // 2)
        # A class is not left out for being small.
        count = max(count, min(1, len(members) // 2))
        chosen.append(rng.permutation(members)[:count])
    found: NDArray[np.int64] = np.sort(np.concatenate(chosen))
    return found


def expect_positive(what: str, number: int, usual: int) -> None:
    """Refuses a number of permutations or resamples below 1.

    Raises:
        InputError: it is.
    """
    if number < 1:
        raise InputError(f"at least one of the {what} is needed, not {number}; take {usual}")


def permuted_labels(
    labels: NDArray[np.int64], draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """``draws`` random orders of the labels, ``(draws, N)``."""
    return rng.permuted(np.tile(labels, (draws, 1)), axis=1)


def bootstrap_means(
    values: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means over as many images, drawn with replacement: ``(n, V)`` to ``(resamples, V)``.

    How often each image is drawn is multinomial; the means are those counts times the values.
    """
    images = len(values)
    block = max(1, _DRAWS // images)
    means = []
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        # Drawn and counted: Generator.multinomial would draw a binomial number for each image.
        drawn = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
        count = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        means.append(count.astype(np.float64) @ values / images)
    return np.concatenate(means)


def class_sums(
    labels: NDArray[np.int64], classes: int, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sums over the images of each class under each of B labelings.

    Args:
        labels: ``(B, n)``
        classes: K
        values: ``(n, U)``

    Returns:
        ``(B, K, U)``, in single precision.
    """
    draws, images = labels.shape
    rows = labels + classes * np.arange(draws)[:, None]
    columns = np.arange(images)
    shape = (draws * classes, images)
    if classes > _DENSE_CLASSES:
        ones = np.ones(labels.size, np.float32)
        where = (rows.ravel(), np.tile(columns, draws))
        sums = sparse.csr_array((ones, where), shape=shape) @ values
    else:
        indicator = np.zeros(shape, np.float32)
        indicator[rows, columns] = 1
        sums = indicator @ values
    found: NDArray[np.float32] = sums.reshape(draws, classes, values.shape[1])
    return found


def permuted_class_sums(
    gate: StandardizedGate,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    permutations: int,
    seed: int,
) -> Iterator[NDArray[np.float64]]:
    """Class sums under the labels as they are, then under ``permutations`` random orders of them.

    Args:
        gate: the values.
        labels: ``(N,)``, 0 to K - 1.
        groups: ``(N,)``, 0 to G - 1: labels change places within a group only. An image of group
            -1 is left out, whatever its label.
        permutations: their number.
        seed: of the orders.

    Yields:
        ``(b, G, K, U)``, the next b of the ``1 + permutations`` labelings, the found one first.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in range(int(groups.max()) + 1)]
    classes = int(labels.max()) + 1
    width = classes * len(members) * len(gate.mean)
    draws = permutations + 1
    block = max(1, min(_CELLS // width, _LABELS // len(labels)))
    for begin in range(0, draws, block):
        size = min(block, draws - begin)
        orders = [permuted_labels(labels[rows], size, rng) for rows in members]
        if begin == 0:
            for order, rows in zip(orders, members, strict=True):
                order[0] = labels[rows]
        sums = np.zeros((size, len(members), classes, len(gate.mean)))
        done = [0] * len(members)
        for piece, values in gate.read():
            for g, order in enumerate(orders):
                inside = values[groups[piece] == g]
                if len(inside):
                    here = order[:, done[g] : done[g] + len(inside)]
                    sums[:, g] += class_sums(here, classes, inside)
                    done[g] += len(inside)
        yield sums


def permutation_p(
    permuted: NDArray[np.float64], observed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``(1 + number of permuted values at least as large as the observed one) / (1 + B)``.

    The labels as they are count as one of the orders, so that p is never 0 and the test is exact
    (Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9).

    Args:
        permuted: ``(B, ...)``
        observed: ``(...)``, or of any shape that ``permuted[0]`` is broadcast to.
    """
    floor = observed - _TIE * np.abs(observed)
    found: NDArray[np.float64] = (1 + (permuted >= floor).sum(0)) / (1 + len(permuted))
    return found


def null_band(permuted: NDArray[np.float64]) -> tuple[float, float]:
    """Between which 95 % of what chance gives lies: the B permuted values at ranks q (B + 1).

    Of a value that is one of them, 5 % lie outside whatever B is (but for B + 1 that 40 does not
    divide). Interpolated percentiles lie further inside: of 99 permutations 6.9 % would be outside.
    Hyndman and Fan 1996, The American Statistician 50, definition 6. Of fewer than 39 values it is
    the least and the largest.

    Args:
        permuted: ``(B,)``
    """
    low, high = np.quantile(permuted, ENDS, method="weibull")
    return float(low), float(high)


def bootstrap_interval(
    values: NDArray[np.float64], resamples: int = 1000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % percentile interval of the means over images (Efron 1979, Annals of Statistics 7).

    Args:
        values: ``(N, V)``, V values of each image, resampled together.
        resamples: how many.
        seed: of the draws.

    Returns:
        low and high, ``(V,)``. NaN with fewer than two images.

    Raises:
        InputError: resamples is below 1.
    """
    expect_positive("resamples", resamples, 1000)
    if len(values) < 2:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing.copy()
    return percentile_interval(bootstrap_means(values, resamples, np.random.default_rng(seed)))


def bootstrap_sums(
    values: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Sums over the images ``(n, V)`` as they are and resampled, ``(1 + resamples, V)``."""
    sums = [values.sum(0)[None]]
    block = max(1, _SUMMED // max(values.size, 1))
    for begin in range(0, resamples, block):
        size = (min(block, resamples - begin), len(values))
        sums.append(values[rng.integers(0, max(len(values), 1), size)].sum(1))
    return np.concatenate(sums)


def percentile_interval(
    drawn: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % percentile interval of resampled values (Efron 1979, Annals of Statistics 7).

    Args:
        drawn: ``(B, ...)``, one for each resample, none NaN.

    Returns:
        low and high, ``(...)``.
    """
    low, high = np.quantile(drawn, ENDS, axis=0)
    return low, high


def centered_interval(found: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
    """95 % normal interval of a bootstrap whose resamples are biased.

    What the resamples lie off the found value is taken away once, and their deviation put about
    what is left (Davison and Hinkley 1997, Bootstrap Methods and Their Application, 5.2.1).

    Args:
        found: the value on the images as they are.
        drawn: ``(B,)``, that on each resample; NaN where it has none.
    """
    return normal_interval(2 * found - float(np.nanmean(drawn)), float(np.nanstd(drawn)))


def mantel(
    x: NDArray[np.float64], y: NDArray[np.float64], permutations: int, seed: int
) -> tuple[float, float]:
    """Mantel's test (1967, Cancer Research 27) of two matrices of distances between classes.

    Args:
        x, y: ``(K, K)``, symmetric; neither with the same distance for all pairs.
        permutations: orders of the classes of y, where there are more than 7! = 5,040; else each is
            counted once.
        seed: of the orders.

    Returns:
        Spearman's rho over the pairs, and p, two-sided, whose null is that which class is which in
        y has nothing to do with x.
    """
    classes = len(x)
    rows, columns = np.triu_indices(classes, 1)
    ranks = standard_ranks(x[rows, columns][None])[0]
    # An order of the classes moves the distances of y and leaves their ranks what they are.
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
    return rho, float(permutation_p(np.abs(drawn), np.array(abs(rho))))


def order_test(x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Spearman's rho of two lists, and its p over the orders of one of them.

    All orders of up to seven values are counted; with more 9,999 are drawn, and the found one is
    counted with them.

    Args:
        x, y: ``(K,)``
        seed: of the orders.

    Returns:
        rho, and p, two-sided, whose null is that each order of y is as likely. NaN with fewer than
        three values, or where those of a list are all the same.
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan
    ranks = stats.zscore(stats.rankdata(y))
    # The t distribution is too ready: of eight classes it calls 5.8 % of all orders p < 0.05.
    found = stats.permutation_test(
        (stats.zscore(stats.rankdata(x)),),
        lambda order, axis: (order * ranks).mean(axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_ORDERS,
        rng=np.random.default_rng(seed),
    )
    return float(found.statistic), float(found.pvalue)


def class_partners(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Of each image another one of its class, each once; -1 for the only one of a class.

    One random cycle within each class, as in ``derangement``.
    """
    rng = np.random.default_rng([seed, 1])
    partners = np.full(len(labels), -1)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) >= 2:
            partners[members] = np.roll(members, 1)
    return partners


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A random order of 0 to ``count - 1``, at least two, in which none keeps its place.

    It is one cycle through all: uniform among the cycles, and free of rejected draws.
    """
    cycle = np.random.default_rng(seed).permutation(count)
    successor = np.empty(count, np.int64)
    successor[cycle] = np.roll(cycle, 1)
    return successor
