"""Projections of images on the lines between class means of a gate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.reading import expect_finite, read_units, unit_blocks, units_of
from attnscope.statistics.splits import stratified_folds

_FOLDS = 5


@dataclass(frozen=True)
class Lines:
    """Lines from the mean of one class to that of another, and the images projected on them.

    Projections are computed for the images for which they are needed, because those of all images
    on the lines to all classes do not fit into memory for many classes.
    """

    labels: NDArray[np.int64]
    """True class of each image, ``(N,)``."""
    folds: NDArray[np.int64]
    """``(N,)``: an image is projected on means over the other folds."""
    product: NDArray[np.float64]
    """Inner products of each image with the class means, ``(N, K)``."""
    gram: NDArray[np.float64]
    """Inner products of the class means, ``(F, K, K)``."""
    noise: NDArray[np.float64]
    """Squared standard errors of the class means, ``(F, K)``. NaN for fewer than two images."""

    def along(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the inner products of the offsets of some images with the lines to all means.

        They are unbiased, ``(n, K)``, and NaN where a mean is over fewer than two images.
        """
        fold, own, product = self.folds[rows], self.labels[rows], self.product[rows]
        square = self.gram[fold, own, own]
        # (g - m_t) · (m_c - m_t), in which only |m_t|² is biased, by the noise of m_t.
        found: NDArray[np.float64] = (
            product
            - product[np.arange(len(rows)), own][:, None]
            - self.gram[fold, own]
            + (square - self.noise[fold, own])[:, None]
        )
        return found

    def length(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the squared lengths of the lines, ``(n, K)``, unbiased.

        They can be negative if the means do not differ.
        """
        fold, own = self.folds[rows], self.labels[rows]
        bare = np.diagonal(self.gram, axis1=1, axis2=2) - self.noise
        found: NDArray[np.float64] = (
            bare[fold, own][:, None] + bare[fold] - 2 * self.gram[fold, own]
        )
        return found


def project(
    recording: Recording, gate: str, seed: int, copies: NDArray[np.int64] | None = None
) -> Lines:
    """Compute the means of the correct images of each class, in five folds, and all products.

    Args:
        recording: recording of one network.
        gate: name of a gate of any kind.
        seed: seed of the folds.
        copies: group of each image, ``(N,)``, the same for copies, which are in one fold; None if
            there are none.

    Raises:
        InputError: the gate does not exist, or a value is not finite.
    """
    images, classes = len(recording), len(recording.classes)
    labels, right = recording.labels, recording.right
    folds = stratified_folds(labels, _FOLDS, np.random.default_rng(seed), copies)
    # All three are sums over the units, of which only some are in memory at a time.
    gram = np.zeros((_FOLDS, classes, classes))
    noise = np.zeros((_FOLDS, classes))  # squared standard errors
    product = np.zeros((images, classes))
    read = partial(recording.gate, gate)
    correct = [np.flatnonzero(right & (labels == k)) for k in range(classes)]
    for units in unit_blocks(images, units_of(recording, gate)):
        values = read_units(read, images, units).astype(np.float64)
        expect_finite(values, f"gate '{gate}'", recording)
        values -= values.mean(0)  # otherwise the common mean would dominate the inner products
        for fold in range(_FOLDS):
            inside = folds == fold
            means = np.full((classes, values.shape[1]), np.nan)
            for k in range(classes):
                members = values[correct[k][~inside[correct[k]]]]
                if len(members) >= 2:
                    means[k] = members.mean(0)
                    noise[fold, k] += members.var(0, ddof=1).sum() / len(members)
                else:
                    noise[fold, k] = np.nan
            gram[fold] += means @ means.T
            product[inside] += values[inside] @ means.T
    return Lines(labels, folds, product, gram, noise)
