"""Sums over the images of each class, under the true labels and under permuted ones.

The null hypothesis of most statistics is that the gate holds no information about the class, so
that each order of the labels is equally likely. A permutation changes only the sums over the images
of each class, and the sums for many permutations are one product of matrices. scipy's
``permutation_test``, which makes one call per draw, is therefore not used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from scipy import sparse

from attnscope.shapes import Array
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
"""The same for a sparse product, by one thread. It adds to the classes in a random order, and few
units of all classes stay in the cache of the processor."""
_DENSE_CLASSES = 64
"""Up to this number of classes a dense product is faster than a sparse one."""


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
        _sums(_indicator(part, classes, values.dtype), values)
        for part in _indicated(labels, classes)
    ]
    found: NDArray[np.floating] = np.concatenate(parts).reshape(len(labels), classes, -1)
    return found


_Indicator = NDArray[Any] | list[sparse.csc_array]
"""Which image is of which class under each labeling: ``(B * K, n)``, or B times ``(K, n)``."""


def _sums(indicator: _Indicator, values: NDArray[Any]) -> NDArray[Any]:
    """Return the class sums of ``(n, U)`` under each labeling, ``(B * K, U)``."""
    if isinstance(indicator, np.ndarray):
        return np.asarray(indicator @ values)
    return np.concatenate([np.asarray(one @ values) for one in indicator])


def _indicated(labels: NDArray[np.int64], classes: int) -> list[NDArray[np.int64]]:
    """Return the labelings ``(B, n)`` in parts, for each of which an indicator fits into memory."""
    cells = labels.shape[1] * (1 if classes > _DENSE_CLASSES else classes)
    block = max(1, _INDICATOR // max(cells, 1))
    return [labels[begin : begin + block] for begin in range(0, len(labels), block)]


def _indicator(labels: NDArray[np.int64], classes: int, dtype: np.dtype[Any]) -> _Indicator:
    """Return which image is of which class under each labeling."""
    draws, images = labels.shape
    if classes <= _DENSE_CLASSES:
        dense = np.zeros((draws * classes, images), dtype)
        dense[labels + classes * np.arange(draws)[:, None], np.arange(images)] = 1
        return dense
    # By columns: a product reads the images in their order, once for each labeling.
    ones, ends = np.ones(images, dtype), np.arange(images + 1, dtype=np.int32)
    return [
        sparse.csc_array((ones, order.astype(np.int32), ends), shape=(classes, images))
        for order in labels
    ]


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
            indicator: _Indicator = indicator,
            rows: slice = rows,
            step: int = step,
        ) -> None:
            some = values[:, start : start + step].astype(np.float64)
            width, count = some.shape[1], rows.stop - rows.start
            both = np.hstack([some, some**2]) if squares else some
            found = _sums(indicator, both).reshape(count, classes, -1)
            sums[rows, :, start : start + width] += found[..., :width]
            if squares:
                sums[rows, :, units + start : units + start + width] += found[..., width:]

        if classes <= _DENSE_CLASSES:  # BLAS has threads of its own
            for start in range(0, units, step):
                add(start)
        else:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(add, range(0, units, step)))
