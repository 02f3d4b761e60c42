"""Values of images in the principal axes of some of them, in which linear probes are fitted.

If the values of a gate do not fit into memory, the axes are computed from inner products of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.shapes import Array
from attnscope.statistics.class_sums import class_sums

Rows = Int64[Array, " rows"]
_LARGEST_PRODUCTS = 11_585
"""Number of images to fit on, whose inner products take 1 GB."""
_BLOCK = 1024
"""Number of images whose scores are computed at a time, so that no copy of all scores is made."""
_NOISE = 1e-10
"""Share of the largest variance below which a direction is rounding error of inner products."""


class Rotated:
    """Images to fit on and to score, in the principal axes of the former, which use no labels.

    In these axes each shrinkage d of the covariance is a scale for each axis, which whitens it.
    With the class means M and the class frequencies D, the covariance within classes is ``I - (1 -
    d) M' D M``, and by Woodbury's identity its inverse applied to the means is ``M' (I - (1 - d) D
    M M')^-1``. So no labeling requires the inverse of a matrix larger than K × K.
    """

    def __init__(
        self,
        roots: NDArray[np.float64],
        fit: NDArray[np.float32],
        score: NDArray[np.float32],
    ) -> None:
        """Keep images in principal axes.

        Args:
            roots: variance along each axis, ``(A,)``.
            fit: images to fit on, ``(n, A)``.
            score: images to score, ``(m, A)``.
        """
        self._roots, self._fit, self._score = roots, fit, score

    @classmethod
    def of(cls, fit: Float32[Array, "n units"], score: Float32[Array, "m units"]) -> Rotated:
        """Standardize values on the images to fit on, and rotate them.

        Args:
            fit: values of the images to fit on.
            score: values of the images to score.
        """
        roots = np.zeros(0)
        x, y = _standardized(fit, score)
        if x.shape[1]:
            if x.shape[1] > len(x):
                # A large map has too many pixels for a matrix of all pairs. Directions that the
                # images do not span contain no class mean and do not contribute to any score.
                _, singular, axes = np.linalg.svd(x, full_matrices=False)
                roots, axes = singular**2 / len(x), axes.T
            else:
                roots, axes = np.linalg.eigh(x.T @ x / len(x))
        else:
            axes = np.zeros((0, 0))
        return cls(roots, (x @ axes).astype(np.float32), (y @ axes).astype(np.float32))

    @property
    def is_constant(self) -> bool:
        """Whether no value varies over the images to fit on, so that nothing can be fitted."""
        return not self._fit.shape[1]

    def scores(
        self, labels: NDArray[np.int64], classes: int, shrinkage: float
    ) -> NDArray[np.float64]:
        """Return the discriminant scores of the images to score, ``(m, K)``.

        The class of an image is that of the highest score, and its probabilities are the softmax of
        the scores.

        Args:
            labels: classes of the images to fit on, ``(n,)``, each with at least one image.
            classes: number of classes K.
            shrinkage: weight of the identity in the covariance within classes.
        """
        roots = (1 - shrinkage) * np.maximum(self._roots, 0) + shrinkage
        scale = (1 / np.sqrt(roots)).astype(np.float32)
        count = np.bincount(labels, minlength=classes)[:, None].astype(np.float32)
        means = class_sums(labels[None], classes, self._fit * scale)[0] / np.maximum(count, 1)
        gram = (means @ means.T).astype(np.float64)
        weights = np.linalg.inv(np.eye(classes) - (1 - shrinkage) * count / len(labels) * gram)
        offset = np.einsum("ij,ji->i", gram, weights) / 2
        # There are fewer axes than images: this order of the products needs no image × K × K.
        lines = means.T @ weights
        found = np.empty((len(self._score), classes))
        for start in range(0, len(found), _BLOCK):
            block = slice(start, start + _BLOCK)
            found[block] = (self._score[block] * scale) @ lines - offset
        return found


def rotate_blocks(
    blocks: Iterable[Float32[Array, "images units"]], pairs: Sequence[tuple[Rows, Rows]], gate: str
) -> list[Rotated]:
    """Do what `Rotated.of` does for values of which only some units are in memory at a time.

    The principal axes follow from the inner products of the images to fit on, which are sums over
    the units.

    Args:
        blocks: the values of all images, some units at a time.
        pairs: rows of the images to fit on, and of those to score; each pair is rotated.
        gate: name of the gate, for the error.

    Raises:
        InputError: AS715, there are too many images.
    """
    for fit, _ in pairs:
        if len(fit) > _LARGEST_PRODUCTS:
            raise InputError(
                "AS715",
                f"gate '{gate}' is too large for a linear probe on {len(fit)} images, of which at "
                f"most {_LARGEST_PRODUCTS} can be used; capture fewer images, or leave such gates "
                "out with --kinds",
            )
    within = [np.zeros((len(fit), len(fit))) for fit, _ in pairs]
    between = [np.zeros((len(score), len(fit))) for fit, score in pairs]
    for values in blocks:
        for (fit, score), inner, outer in zip(pairs, within, between, strict=True):
            x, y = _standardized(values[fit], values[score])
            inner += x @ x.T
            outer += y @ x.T
    return [_rotated(inner, outer) for inner, outer in zip(within, between, strict=True)]


def _rotated(inner: NDArray[np.float64], outer: NDArray[np.float64]) -> Rotated:
    """Rotate by inner products: of images to fit on ``(n, n)``, and of others with them."""
    variances, vectors = np.linalg.eigh(inner)
    kept = variances > _NOISE * max(variances[-1], 0)
    singular = np.sqrt(variances[kept])
    vectors = vectors[:, kept]
    x, y = vectors * singular, outer @ vectors / singular
    return Rotated(singular**2 / len(inner), x.astype(np.float32), y.astype(np.float32))


def _standardized(
    fit: NDArray[np.float32], score: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the units that vary in ``fit`` mean 0 and standard deviation 1 there."""
    varying = fit.max(0) > fit.min(0)
    x, y = fit[:, varying].astype(np.float64), score[:, varying].astype(np.float64)
    if varying.any():
        mean, std = x.mean(0), x.std(0)
        for values in (x, y):  # in place: a copy of all images is large
            values -= mean
            values /= std
    return x, y
