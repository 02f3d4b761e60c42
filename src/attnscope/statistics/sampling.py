"""How images are drawn: stretches that fit into memory, folds, labels that are permuted.

The null of most statistics here is that the gate knows nothing of the class: then each order of the
labels was as likely as the one found. All that a permutation changes are the sums over the images
of each class, and those of many permutations are one product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from attnscope.errors import InputError
from attnscope.recording.recording import Recording

_STRETCH = 1024
"""Images that are read at a time."""
_CELLS = 2**23
"""Class sums that are held at a time, 64 MiB in double precision."""
_LABELS = 2**24
"""Permuted labels that are held at a time."""
_DENSE_CLASSES = 64
"""Up to so many classes a dense product is quicker than a sparse one."""
_DRAWS = 2**21
"""Images that are drawn at a time, for a bootstrap."""
_TIE = 1e-6
"""A permuted value this little below the observed one, relative to it, ties with it: both are sums
in single precision, whose last digits depend on the order."""


class StandardizedGate:
    """The values of one gate, read stretch by stretch, each unit with mean 0 and deviation 1.

    A unit is a channel of a channel gate, a pixel of a spatial one. Standardised, sums over images
    can be taken in single precision whatever the unit's own scale is.
    """

    def __init__(self, recording: Recording, gate: str) -> None:
        """Goes once over the images.

        Raises:
            InputError: there is no such gate, or a value of it is not finite.
        """
        self._recording, self._gate = recording, gate
        origin: NDArray[np.float64] | None = None
        for _, values in self._raw():
            if origin is None:
                origin = values[0].copy()
                total, square = np.zeros_like(origin), np.zeros_like(origin)
                low, high = origin.copy(), origin.copy()
            expect_finite(values, f"'{gate}'", recording)
            np.minimum(low, values.min(0), out=low)
            np.maximum(high, values.max(0), out=high)
            values -= origin
            total += values.sum(0)
            square += (values**2).sum(0)
        assert origin is not None  # no recording is without images
        count = len(recording)
        self.mean: NDArray[np.float64] = origin + total / count
        """``(U,)``, in units of the gate."""
        self.constant: NDArray[np.bool_] = low == high
        """``(U,)``: the same for all images, to the last bit. Standardised it is 0."""
        self.minimum: NDArray[np.float64] = low
        """``(U,)``"""
        variance = np.where(self.constant, 0.0, np.maximum(square - total**2 / count, 0) / count)
        self.std: NDArray[np.float64] = np.sqrt(variance)
        """``(U,)``, with N below the sum; 0 for a constant unit."""

    def _raw(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for rows in stretches(len(self._recording)):
            values = self._recording.gate(self._gate, rows)
            yield rows, values.reshape(len(values), -1).astype(np.float64)

    def read(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows and their values, ``(n, U)``."""
        scale = np.where(self.std > 0, self.std, 1)
        for rows, values in self._raw():
            values -= self.mean
            values /= scale
            values[:, self.constant] = 0
            yield rows, values.astype(np.float32)


def expect_finite(values: NDArray[np.floating], what: str, recording: Recording) -> None:
    """Refuses NaN, which is above and below nothing, so that its rank would look like the first.

    Raises:
        InputError: a value is NaN or infinite.
    """
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise InputError(
            f"{wrong} values of {what} are not finite; attnscope verify {recording.folder} lists "
            "them"
        )


def stretches(images: int) -> Iterator[slice]:
    """The rows of a recording in pieces that fit into memory."""
    for start in range(0, images, _STRETCH):
        yield slice(start, min(start + _STRETCH, images))


def gate_rows(recording: Recording, gate: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """A gate of some images, in any order, read stretch by stretch: ``(n, C)``, ``(n, H, W)``."""
    first = recording.gate(gate, slice(0, 1))
    found = np.empty((len(rows), *first.shape[1:]), np.float32)
    for stretch in stretches(len(recording)):
        inside = np.flatnonzero((rows >= stretch.start) & (rows < stretch.stop))
        if len(inside):
            found[inside] = recording.gate(gate, stretch)[rows[inside] - stretch.start]
    return found


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
    """Sums over the images of each class under each of B labellings.

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
        ``(b, G, K, U)``, the next b of the ``1 + permutations`` labellings, the found one first.
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
    low, high = np.quantile(permuted, [0.025, 0.975], method="weibull")
    return float(low), float(high)
