"""Resampling: permutations, bootstraps, folds and samples, with their p values and intervals.

The null hypothesis of most statistics is that the gate holds no information about the class, so
that each order of the labels is equally likely. A permutation changes only the sums over the images
of each class, and the sums for many permutations are one product of matrices. scipy's
``permutation_test`` and ``bootstrap``, which make one call per draw, are therefore not used. This
file has more than 400 lines because all random draws of the statistics are in one place.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, stats

from attnscope.errors import InputError
from attnscope.shapes import Array
from attnscope.statistics.inference import ENDS, normal_interval
from attnscope.statistics.ranks import standard_ranks
from attnscope.statistics.reading import StandardizedGate

_CELLS = 2**24
"""Number of class sums that are held at a time, 128 MiB in double precision."""
_INDICATOR = 2**23
"""Number of elements of a matrix that says which image is of which class under which labeling."""
_LABELS = 2**24
"""Number of permuted labels that are held at a time."""
_UNITS = 128
"""Number of units that are summed at a time."""
_SPARSE_UNITS = 8
"""The same for a sparse product, by one thread. It reads images in a random order, and few units of
all images stay in the cache of the processor."""
_DENSE_CLASSES = 64
"""Up to this number of classes a dense product is faster than a sparse one."""
_DRAWS = 2**21
"""Number of images that are drawn at a time for bootstrapped means."""
_SUMMED = 2**22
"""Number of values that are drawn at a time for bootstrapped sums."""
_EXACT_UP_TO = 7
"""Up to this number of classes all orders (7! = 5,040) are enumerated instead of drawn."""
_ORDERS = 9_999
"""Number of random orders for longer lists."""
_TIE = 1e-9
"""Tolerance below the observed value within which a permuted value counts as a tie.

Both are sums in double precision, whose last digits depend on the order.
"""
_TIE_OF_DRAWS = 1e-6
"""The same, as a share of the observed value, for values that a network computed in single
precision.
"""


def present_classes(
    labels: Int64[Array, " images"], at_least: int = 1
) -> tuple[Int64[Array, " classes"], Int64[Array, " images"], Int64[Array, " classes"]]:
    """Renumber the classes that have images from 0.

    Args:
        labels: class of each image, ``(N,)``.
        at_least: minimal number of images of a class.

    Returns:
        The classes ``(K,)``; the new label of each image ``(N,)``, -1 for an image of a class with
        fewer than ``at_least`` images; and the class counts ``(K,)``.
    """
    count = np.bincount(labels)
    known = np.flatnonzero(count >= at_least)
    place = np.full(len(count), -1)
    place[known] = np.arange(len(known))
    return known, place[labels], count[known]


def checked_groups(groups: ArrayLike | None, images: int) -> Int64[Array, " images"] | None:
    """Number the groups of images from 0.

    Args:
        groups: one number or name per image, the same for copies of one image; None if each image
            is a group of its own.
        images: number of images N.

    Raises:
        InputError: AS717, there is not one group per image.
    """
    if groups is None:
        return None
    names = np.asarray(groups)
    if names.shape != (images,):
        raise InputError(
            "AS717",
            f"the groups have the shape {names.shape}, and there are {images} images; pass one "
            "group per image, for example those of image_copies",
        )
    found: NDArray[np.int64] = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return found


def stratified_folds(
    labels: Int64[Array, " images"],
    folds: int,
    rng: np.random.Generator,
    groups: Int64[Array, " images"] | None = None,
) -> Int64[Array, " images"]:
    """Assign each image to a fold, so that each class is distributed evenly over the folds.

    The sizes of a class in the folds differ by at most one, and the first folds are the larger
    ones.

    Args:
        labels: class of each image, ``(N,)``. An image with a negative label is in no fold.
        folds: number of folds.
        rng: random generator.
        groups: group of each image, ``(N,)``. All images of a group are in the same fold, and count
            as one image of the class of the first of them.

    Returns:
        Fold of each image, 0 to ``folds - 1``, or -1, ``(N,)``.
    """
    place = np.full(len(labels), -1)
    kept = np.flatnonzero(labels >= 0)
    if groups is not None and len(kept):
        _, first, of_image = np.unique(groups[kept], return_index=True, return_inverse=True)
        place[kept] = stratified_folds(labels[kept[first]], folds, rng)[of_image]
        return place
    for label in np.unique(labels[kept]):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = np.arange(len(members)) % folds
    return place


def stratified_sample(
    labels: Int64[Array, " images"], images: int, rng: np.random.Generator
) -> Int64[Array, " sampled"]:
    """Sample about ``images`` rows in proportion to the classes, at most half of each class.

    The other half remains for class means and as donors of gates.

    Args:
        labels: class of each image, ``(N,)``.
        images: number of images to sample.
        rng: random generator.

    Returns:
        Sorted row numbers, ``(n,)``; empty if every class has one image.
    """
    share = min(images / len(labels), 0.5)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(share * len(members)), len(members) // 2)
        # Small classes are represented, too.
        count = max(count, min(1, len(members) // 2))
        chosen.append(rng.permutation(members)[:count])
    found: NDArray[np.int64] = np.sort(np.concatenate(chosen))
    return found


def expect_positive(what: str, number: int, usual: int) -> None:
    """Raise an error if a number of permutations or resamples is below 1.

    Args:
        what: ``permutations`` or ``resamples``.
        number: the number.
        usual: number to recommend in the message.

    Raises:
        InputError: the number is below 1.
    """
    if number < 1:
        raise InputError(
            "AS701", f"the number of {what} is {number}; it must be at least 1, for example {usual}"
        )


def permuted_labels(
    labels: Int64[Array, " images"],
    draws: int,
    rng: np.random.Generator,
    groups: Int64[Array, " images"] | None = None,
) -> Int64[Array, "draws images"]:
    """Return random orders of the labels, ``(draws, N)``.

    Args:
        labels: ``(N,)``
        draws: number of orders.
        rng: random generator.
        groups: group of each image, ``(N,)``. The labels of a group move together, to a group of
            the same size, since groups of different sizes are not exchangeable.
    """
    if groups is None:
        return rng.permuted(np.tile(labels, (draws, 1)), axis=1)
    _, of_image, count = np.unique(groups, return_inverse=True, return_counts=True)
    # The images of a group follow each other, and groups of the same size do, too.
    order = np.lexsort((of_image, count[of_image]))
    sizes = count[of_image[order]]
    found = np.empty((draws, len(labels)), labels.dtype)
    for size in np.unique(sizes):
        rows = order[sizes == size].reshape(-1, size)
        moved = rng.permuted(np.tile(np.arange(len(rows)), (draws, 1)), axis=1)
        found[:, rows.ravel()] = labels[rows][moved].reshape(draws, -1)
    return found


def bootstrap_means(
    values: Float64[Array, "images values"],
    resamples: int,
    rng: np.random.Generator,
    groups: Int64[Array, " images"] | None = None,
) -> Float64[Array, "resamples values"]:
    """Return bootstrapped means over images: ``(n, V)`` to ``(resamples, V)``.

    The number of times that each image is drawn is multinomial. The means are these counts times
    the values.

    Args:
        values: ``(n, V)``
        resamples: number of resamples.
        rng: random generator.
        groups: group of each image, ``(n,)``. Whole groups are drawn, and a mean is the sum over
            the drawn images divided by their number.
    """
    if groups is not None:
        _, of_image = np.unique(groups, return_inverse=True)
        sums = np.zeros((int(of_image.max()) + 1, values.shape[1] + 1))
        np.add.at(sums, of_image, np.hstack([values, np.ones((len(values), 1))]))
        drawn = bootstrap_means(sums, resamples, rng)
        return drawn[:, :-1] / drawn[:, -1:]
    return bootstrap_together([values], resamples, rng)[0]


def bootstrap_together(
    values: Sequence[Float64[Array, "images values"]], resamples: int, rng: np.random.Generator
) -> list[Float64[Array, "resamples values"]]:
    """Return the `bootstrap_means` of several arrays of the same images, under the same resamples.

    Drawing takes longer than the means, and is done once.

    Args:
        values: ``(n, V)`` each.
        resamples: number of resamples.
        rng: random generator.
    """
    images = len(values[0])
    block = max(1, _DRAWS // images)
    means: list[list[NDArray[np.float64]]] = [[] for _ in values]
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        # Drawing and counting is faster than Generator.multinomial, which draws a binomial number
        # for each image.
        drawn = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
        count = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        weights = count.astype(np.float64)
        for parts, each in zip(means, values, strict=True):
            parts.append(weights @ each / images)
    return [np.concatenate(parts) for parts in means]


def class_sums(
    labels: Int64[Array, "draws images"], classes: int, values: Float[Array, "images units"]
) -> Float[Array, "draws classes units"]:
    """Sum values over the images of each class under each of B labelings.

    Args:
        labels: ``(B, n)``
        classes: number of classes K.
        values: ``(n, U)``

    Returns:
        ``(B, K, U)``, in the precision of the values.
    """
    parts = [
        np.asarray(_indicator(part, classes, values.dtype) @ values)
        for part in _indicated(labels, classes)
    ]
    found: NDArray[np.floating] = np.concatenate(parts).reshape(len(labels), classes, -1)
    return found


def _indicated(labels: NDArray[np.int64], classes: int) -> list[NDArray[np.int64]]:
    """Return the labelings ``(B, n)`` in parts, for each of which an indicator fits into memory."""
    cells = labels.shape[1] * (1 if classes > _DENSE_CLASSES else classes)
    block = max(1, _INDICATOR // max(cells, 1))
    return [labels[begin : begin + block] for begin in range(0, len(labels), block)]


def _indicator(
    labels: NDArray[np.int64], classes: int, dtype: np.dtype[Any]
) -> NDArray[Any] | sparse.csr_array:
    """Return which image is of which class under each labeling, ``(B * K, n)``."""
    draws, images = labels.shape
    rows = labels + classes * np.arange(draws)[:, None]
    shape = (draws * classes, images)
    if classes <= _DENSE_CLASSES:
        dense = np.zeros(shape, dtype)
        dense[rows, np.arange(images)] = 1
        return dense
    # Sorting the images by their class is quicker than building the matrix from pairs.
    small = labels.astype(np.int16 if classes < 2**15 else np.int64)
    columns = np.argsort(small, axis=1, kind="stable").ravel()
    ends = np.cumsum(np.bincount(rows.ravel(), minlength=draws * classes))
    return sparse.csr_array(
        (
            np.ones(labels.size, dtype),
            columns.astype(np.int32),  # `_INDICATOR` bounds their number
            np.concatenate([[0], ends]).astype(np.int32),
        ),
        shape=shape,
    )


def permuted_class_sums(
    gate: StandardizedGate,
    labels: Int64[Array, " images"],
    groups: Int64[Array, " images"],
    permutations: int,
    seed: int,
    squares: bool = False,
    copies: Int64[Array, " images"] | None = None,
) -> Iterator[Float64[Array, "draws groups classes units"]]:
    """Yield class sums under the true labels, then under random orders of the labels.

    The sums are in double precision, so that equal permuted values are recognized as ties.

    Args:
        gate: the values.
        labels: ``(N,)``, 0 to K - 1.
        groups: ``(N,)``, 0 to G - 1. Labels are permuted within groups. An image of group -1 is
            left out, whatever its label.
        permutations: number of random orders.
        seed: seed of the orders.
        squares: whether to sum the squares of the values, too. They follow the values along the
            last axis, which then has the size 2U.
        copies: which images move together, as ``groups`` of `permuted_labels`.

    Yields:
        ``(b, G, K, U)`` for the next b of the ``1 + permutations`` labelings, the true one first.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in range(int(groups.max()) + 1)]
    classes = int(labels.max()) + 1
    units = len(gate.mean)
    width = classes * len(members) * units * (2 if squares else 1)
    draws = permutations + 1
    block = max(1, min(_CELLS // width, _LABELS // len(labels)))
    for begin in range(0, draws, block):
        size = min(block, draws - begin)
        orders = [
            permuted_labels(labels[rows], size, rng, None if copies is None else copies[rows])
            for rows in members
        ]
        if begin == 0:
            for order, rows in zip(orders, members, strict=True):
                order[0] = labels[rows]
        sums = np.zeros((size, len(members), classes, width // classes // len(members)))
        done = [0] * len(members)
        for piece, values in gate.read():
            for g, order in enumerate(orders):
                inside = values[groups[piece] == g]
                if not len(inside):
                    continue
                here = order[:, done[g] : done[g] + len(inside)]
                done[g] += len(inside)
                _add_sums(sums[:, g], here, classes, inside, squares)
        yield sums


def _add_sums(
    sums: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: int,
    values: NDArray[np.float32],
    squares: bool,
) -> None:
    """Add class sums of ``(n, U)``, and of its squares, to ``(B, K, U or 2U)``."""
    units, first = values.shape[1], 0
    for part in _indicated(labels, classes):
        indicator = _indicator(part, classes, np.dtype(np.float64))
        rows = slice(first, first + len(part))
        first += len(part)

        step = _UNITS if classes <= _DENSE_CLASSES else _SPARSE_UNITS

        def add(
            start: int,
            indicator: NDArray[Any] | sparse.csr_array = indicator,
            rows: slice = rows,
            step: int = step,
        ) -> None:
            some = values[:, start : start + step].astype(np.float64)
            width, count = some.shape[1], rows.stop - rows.start
            both = np.hstack([some, some**2]) if squares else some
            found = np.asarray(indicator @ both).reshape(count, classes, -1)
            sums[rows, :, start : start + width] += found[..., :width]
            if squares:
                sums[rows, :, units + start : units + start + width] += found[..., width:]

        if classes <= _DENSE_CLASSES:  # BLAS has threads of its own
            for start in range(0, units, step):
                add(start)
        else:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(add, range(0, units, step)))


def permutation_p(
    permuted: NDArray[np.float64], observed: NDArray[np.float64], scale: float = 0.0
) -> NDArray[np.float64]:
    """Return the p value of a permutation test.

    ``p = (1 + number of permuted values at least as large as the observed one) / (1 + B)``. The
    observed labeling counts as one of the permutations, so that p is never 0 and the test is exact
    (Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9).

    Args:
        permuted: values under B permutations, ``(B, ...)``.
        observed: observed values ``(...)``, or any shape that broadcasts with ``permuted[0]``.
        scale: size of the terms whose difference the values are, if they can cancel. Values that
            differ by less than a billionth of it, or of the observed value, count as ties.

    Returns:
        One-sided p values, ``(...)``.
    """
    floor = observed - _TIE * np.maximum(np.abs(observed), scale)
    found: NDArray[np.float64] = (1 + (permuted >= floor).sum(0)) / (1 + len(permuted))
    return found


def sequential_p(
    drawn: Float64[Array, " draws"], observed: float, exceedances: int | None, most: int
) -> tuple[float, int, bool]:
    """Return the p value of a Monte Carlo test that stops early (Besag and Clifford 1991).

    Values are drawn from the null one by one, until h of them are at least as large as the observed
    one or n are drawn. If the h-th comes with draw l, then ``p = h / l``; with g < h of n draws,
    ``p = (g + 1) / (n + 1)``. Under the null, P(p <= x) = x for each value x that p can take. Only
    large p values stop early: below ``h / n``, p is that of all draws (`permutation_p`).

    Args:
        drawn: the values drawn so far, ``(B,)``, in their order. Those after draw l are not used.
        observed: the observed value.
        exceedances: h; None draws all.
        most: n.

    Returns:
        p; the number of draws on which it rests; and whether the test has stopped. Until then p is
        not valid.

    Raises:
        InputError: AS716, h is below 1.

    Source: Besag and Clifford 1991, Biometrika 78.
    """
    if exceedances is not None and exceedances < 1:
        raise InputError(
            "AS716",
            f"the number of exceedances is {exceedances}; it must be at least 1, usually 10",
        )
    tried = drawn[:most]
    is_exceeding = tried >= observed - _TIE_OF_DRAWS * abs(observed)
    count = np.cumsum(is_exceeding)
    if exceedances is not None and len(count) and count[-1] >= exceedances:
        used = int(np.searchsorted(count, exceedances)) + 1
        return exceedances / used, used, True
    return (1 + int(is_exceeding.sum())) / (1 + len(tried)), len(tried), len(tried) == most


def null_band(permuted: Float64[Array, " draws"]) -> tuple[float, float]:
    """Return the 95% band of a null distribution from B permuted values.

    The ends are the permuted values at the ranks q (B + 1) for q = 0.025 and 0.975 (Hyndman and Fan
    1996, The American Statistician 50, definition 6). A further value from the null lies outside
    with a probability of 5% for any B such that 40 divides B + 1. Percentiles that interpolate
    otherwise are too narrow: with 99 permutations 6.9% would lie outside. With fewer than 39 values
    the band ends at the smallest and the largest.

    Args:
        permuted: ``(B,)``

    Returns:
        low and high.
    """
    low, high = np.quantile(permuted, ENDS, method="weibull")
    return float(low), float(high)


def bootstrap_interval(
    values: Float64[Array, "images values"],
    resamples: int = 1000,
    seed: int = 0,
    groups: Int64[Array, " images"] | None = None,
) -> tuple[Float64[Array, " values"], Float64[Array, " values"]]:
    """Return the 95% percentile bootstrap interval of means (Efron 1979, Annals of Statistics 7).

    Args:
        values: V values per image, resampled together, ``(N, V)``.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.
        groups: group of each image, ``(N,)``, as in `bootstrap_means`.

    Returns:
        low and high, ``(V,)``; NaN with fewer than two images or groups.

    Raises:
        InputError: resamples is below 1.
    """
    expect_positive("resamples", resamples, 1000)
    if len(values) < 2 or (groups is not None and len(np.unique(groups)) < 2):
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing.copy()
    rng = np.random.default_rng(seed)
    return percentile_interval(bootstrap_means(values, resamples, rng, groups))


def bootstrap_sums(
    values: Float64[Array, "images values"], resamples: int, rng: np.random.Generator
) -> Float64[Array, "draws values"]:
    """Return sums over images: those observed, then bootstrapped: ``(n, V)`` to ``(1 + resamples,
    V)``.
    """
    sums = [values.sum(0)[None]]
    block = max(1, _SUMMED // max(values.size, 1))
    for begin in range(0, resamples, block):
        size = (min(block, resamples - begin), len(values))
        sums.append(values[rng.integers(0, max(len(values), 1), size)].sum(1))
    return np.concatenate(sums)


def percentile_interval(
    drawn: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95% percentile interval of resampled values (Efron 1979, Annals of Statistics 7).

    Args:
        drawn: one value per resample, ``(B, ...)``, none NaN.

    Returns:
        low and high, ``(...)``.
    """
    low, high = np.quantile(drawn, ENDS, axis=0)
    return low, high


def centered_interval(found: float, drawn: Float64[Array, " resamples"]) -> tuple[float, float]:
    """Return a 95% normal interval from a bootstrap whose resamples are biased.

    The bias of the resamples is subtracted once, and their standard deviation is the standard
    error: ``2 found - mean(drawn) ± 1.96 sd(drawn)`` (Davison and Hinkley 1997, Bootstrap Methods
    and Their Application, 5.2.1).

    Args:
        found: observed value.
        drawn: value of each resample, ``(B,)``; NaN where a resample has none.

    Returns:
        low and high.
    """
    return normal_interval(2 * found - float(np.nanmean(drawn)), float(np.nanstd(drawn)))


def mantel(
    x: Float64[Array, "classes classes"],
    y: Float64[Array, "classes classes"],
    permutations: int,
    seed: int,
) -> tuple[float, float]:
    """Run a two-sided Mantel test on two matrices of distances between classes.

    Null hypothesis: the assignment of classes in y is independent of that in x (Mantel 1967, Cancer
    Research 27).

    Args:
        x: symmetric distances, ``(K, K)``, not all equal.
        y: symmetric distances, ``(K, K)``, not all equal.
        permutations: number of random orders of the classes of y if there are more than seven;
            otherwise all orders are enumerated.
        seed: seed of the orders.

    Returns:
        Spearman's rho over the pairs of classes, and p.
    """
    classes = len(x)
    rows, columns = np.triu_indices(classes, 1)
    ranks = standard_ranks(x[rows, columns][None])[0]
    # An order of the classes moves the distances of y but does not change their ranks.
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
    return rho, float(permutation_p(np.abs(drawn), np.array(abs(rho)), scale=1.0))


def order_test(
    x: Float64[Array, " values"], y: Float64[Array, " values"], seed: int
) -> tuple[float, float]:
    """Test Spearman's rho of two lists by permuting the order of one of them.

    Null hypothesis: all orders of y are equally likely. All orders are enumerated for up to seven
    values; 9,999 random orders are drawn for more, and the observed order is counted with them.

    Args:
        x: ``(K,)``
        y: ``(K,)``
        seed: seed of the orders.

    Returns:
        rho and the two-sided p. Both are NaN with fewer than three values, or if all values of a
        list are equal.
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan
    ranks = stats.zscore(stats.rankdata(y))
    # The t distribution is anticonservative: with eight classes p < 0.05 in 5.8% of all orders.
    found = stats.permutation_test(
        (stats.zscore(stats.rankdata(x)),),
        lambda order, axis: (order * ranks).mean(axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_ORDERS,
        rng=np.random.default_rng(seed),
    )
    return float(found.statistic), float(found.pvalue)


def class_partners(labels: Int64[Array, " images"], seed: int) -> Int64[Array, " images"]:
    """Pair each image with another image of its class, each used once; -1 without another image.

    The pairing is one random cycle within each class, as in `derangement`.
    """
    rng = np.random.default_rng([seed, 1])
    partners = np.full(len(labels), -1)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) >= 2:
            partners[members] = np.roll(members, 1)
    return partners


def derangement(count: int, seed: int) -> Int64[Array, " count"]:
    """Return a random order of 0 to ``count - 1`` in which no number keeps its place.

    The count is at least two. The order is a single cycle through all numbers, uniform among such
    cycles, which needs no rejected draws.
    """
    cycle = np.random.default_rng(seed).permutation(count)
    successor = np.empty(count, np.int64)
    successor[cycle] = np.roll(cycle, 1)
    return successor
