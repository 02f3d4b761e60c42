"""Distances of class means without what the noise of the means adds, and their reliability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.class_sums import class_sums, permuted_labels
from attnscope.statistics.ranks import standard_ranks
from attnscope.statistics.reading import expect_finite
from attnscope.statistics.resampling import permutation_p

_SPLITS = 20
"""Number of splits from which the reliability of distances is estimated."""
_ORDERS = 99
"""Number of orders of the labels by which it is tested whether the classes differ at all."""
_CELLS = 2**22
"""Number of class means that are held in memory at a time."""


@dataclass(frozen=True)
class ClassMeans:
    """Class means of some images in one network."""

    offset: NDArray[np.float64]
    """``(n, C)``, relative to the mean of all these images."""
    labels: NDArray[np.int64]
    """``(n,)``, 0 to K - 1."""

    @classmethod
    def of(
        cls, recording: Recording, gate: str, labels: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> ClassMeans:
        """Read the channels of a gate for some images.

        Args:
            recording: recording of one network.
            gate: name of a channel gate.
            labels: class of each image of the recording, 0 to K - 1, ``(N,)``.
            rows: the images, ``(n,)``, at least two of each class.

        Raises:
            InputError: a value is not finite.
        """
        values = recording.channel(gate)[rows].astype(np.float64)
        expect_finite(values, f"gate '{gate}'", recording)
        values -= values.mean(0)
        return cls(values, labels[rows])

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return int(self.labels.max()) + 1

    def moments(
        self, rows: NDArray[np.int64] | slice = slice(None)
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return means ``(K, C)``, squared standard errors ``(K,)`` and counts of some rows."""
        labels, offset = self.labels[rows], self.offset[rows]
        count = np.bincount(labels, minlength=self.classes)
        means = class_sums(labels[None], self.classes, offset)[0] / count[:, None]
        spread = np.bincount(labels, _squares(offset)) - count * _squares(means)
        return means, spread / (count - 1) / count, count

    def distances(self, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64]:
        """Return the unbiased squared distances of all pairs of classes, ``(pairs,)``."""
        means, errors, _ = self.moments(rows)
        return squared_distances(means) - noise_of(errors)

    def reliability(self, seed: int) -> float:
        """Return the mean rank correlation of two parts, for the length of both together."""
        rng = np.random.default_rng([seed, 1])
        images, classes = len(self.labels), self.classes
        # A random order within each class, whose places alternate.
        order = np.argsort(self.labels + rng.random((_SPLITS, images)), axis=1)
        listed = np.sort(self.labels)
        place = np.arange(images) - np.searchsorted(listed, listed)
        part = np.empty((_SPLITS, images), np.int64)
        np.put_along_axis(part, order, (place % 2)[None], 1)
        joint = 2 * self.labels + part
        count = np.bincount(joint[0], minlength=2 * classes)
        squares = _squares(self.offset)[:, None]
        block = max(1, _CELLS // (2 * classes * max(self.offset.shape[1], classes)))
        agreement = []
        for begin in range(0, _SPLITS, block):
            split = joint[begin : begin + block]
            means = class_sums(split, 2 * classes, self.offset) / count[:, None]
            square = class_sums(split, 2 * classes, squares)[..., 0]
            errors = (square - count * _squares(means)) / (count - 1) / count
            x, y = (
                standard_ranks(squared_distances(means[:, j::2]) - noise_of(errors[:, j::2]))
                for j in range(2)
            )
            agreement.append((x * y).sum(1))
        # Without a rank order in a part nothing is reliable.
        mean = max(float(np.nan_to_num(np.concatenate(agreement).mean())), 0.0)
        return 2 * mean / (1 + mean)

    def difference_p(self, seed: int) -> float:
        """Test whether the classes differ at all, by permutations of the labels of the images.

        The statistic is the sum of squares between the classes (Anderson 2001, Austral Ecology 26,
        with Euclidean distance). Null hypothesis: the gate holds no information about the class.

        Returns:
            p, one-sided, at least 1 / 100.
        """
        rng = np.random.default_rng([seed, 2])  # a random stream separate from that of the splits
        count = np.bincount(self.labels)[:, None]
        width = self.classes * max(self.offset.shape[1], self.classes)
        block = max(1, min(_CELLS // width, _CELLS // len(self.labels)))
        orders = permuted_labels(self.labels, _ORDERS, rng)
        between = [
            (class_sums(part, self.classes, self.offset) ** 2 / count).sum((1, 2))
            for part in (
                self.labels[None],
                *(orders[begin : begin + block] for begin in range(0, _ORDERS, block)),
            )
        ]
        drawn = np.concatenate(between)
        return float(permutation_p(drawn[1:], drawn[0]))


def _squares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of squares of the rows of ``(..., C)``, without a copy of their size."""
    found: NDArray[np.float64] = np.einsum("...i,...i->...", values, values)
    return found


def squared_distances(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared distances of the rows of ``(..., K, C)`` over the pairs: ``(..., pairs)``."""
    first, second = np.triu_indices(means.shape[-2], 1)
    gram = means @ means.swapaxes(-1, -2)
    own = np.diagonal(gram, axis1=-2, axis2=-1)
    found: NDArray[np.float64] = own[..., first] + own[..., second] - 2 * gram[..., first, second]
    return found


def noise_of(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the squared errors of two means add to their distance: ``(..., pairs)``."""
    first, second = np.triu_indices(errors.shape[-1], 1)
    found: NDArray[np.float64] = errors[..., first] + errors[..., second]
    return found
