"""Least-squares concept erasure (LEACE) in closed form, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray

from attnscope.shapes import Array

_RANK_TOLERANCE = 1e-6
"""Singular values below this share of the largest one count as 0."""
_NO_VARIANCE = 1e-12
"""Variances below this share of the largest one count as 0."""


@dataclass(frozen=True)
class Eraser:
    """Removes all linear information on a class from values, with the smallest change.

    With the covariance Σ of the values, shrunk by Ledoit and Wolf (2004, Journal of Multivariate
    Analysis 88), the whitening ``W = Σ^(-1/2)``, the cross-covariance C with the indicators of the
    classes, and the orthogonal projection P on the column space of ``W C``, a value x becomes
    ``x - W⁻¹ P W (x - mean)`` (Belrose et al. 2023, LEACE, NeurIPS). Afterwards the means of all
    classes are equal on the values on which it was fitted, so that no linear classifier does better
    than one that ignores the values.
    """

    mean: Float64[Array, " units"]
    whitening: Float64[Array, "units units"]
    """W"""
    coloring: Float64[Array, "units units"]
    """W⁻¹"""
    basis: Float64[Array, "units rank"]
    """Orthonormal columns that span the column space of ``W C``."""
    spanned: int
    """Number of directions along which the values vary: the rank of their covariance."""

    @classmethod
    def fit(cls, values: Float[Array, "images units"], labels: Int64[Array, " images"]) -> Self:
        """Fit on values and classes of some images.

        Args:
            values: ``(N, U)``, at least two images.
            labels: ``(N,)``.
        """
        from sklearn.covariance import ledoit_wolf  # its import takes a second

        values = np.asarray(values, np.float64)
        mean = values.mean(0)
        centered = values - mean
        covariance, _ = ledoit_wolf(centered, assume_centered=True)
        variances, axes = np.linalg.eigh(covariance)
        # Units without any variance are not changed.
        known = variances > variances.max(initial=0.0) * _NO_VARIANCE
        scales = np.sqrt(variances[known])
        whitening = (axes[:, known] / scales) @ axes[:, known].T
        coloring = (axes[:, known] * scales) @ axes[:, known].T
        indicators = (labels[:, None] == np.unique(labels)).astype(np.float64)
        cross = centered.T @ (indicators - indicators.mean(0)) / len(values)
        left, sizes, _ = np.linalg.svd(whitening @ cross, full_matrices=False)
        rank = int((sizes > _RANK_TOLERANCE * sizes.max(initial=0.0)).sum())
        # Not of the shrunk covariance, in which a unit without variance has some.
        own = np.linalg.eigvalsh(centered.T @ centered / len(values))
        spanned = int((own > own.max(initial=0.0) * _NO_VARIANCE).sum())
        return cls(mean, whitening, coloring, left[:, :rank], spanned)

    @property
    def rank(self) -> int:
        """Number of directions that are erased: at most the number of classes minus one."""
        return int(self.basis.shape[1])

    def change(
        self,
        values: Float[Array, "images units"],
        basis: Float64[Array, "units rank"] | None = None,
    ) -> Float64[Array, "images units"]:
        """Return what is added to values to erase a subspace, ``(N, U)``.

        Args:
            values: ``(N, U)``.
            basis: Orthonormal columns in whitened values. Default: those of the class.
        """
        basis = self.basis if basis is None else basis
        white = (np.asarray(values, np.float64) - self.mean) @ self.whitening
        found: NDArray[np.float64] = -((white @ basis) @ basis.T) @ self.coloring
        return found

    def random_basis(self, rng: np.random.Generator) -> Float64[Array, "units rank"]:
        """Return a random subspace of the same rank in whitened values, uniformly distributed."""
        drawn = rng.normal(size=self.basis.shape)
        found: NDArray[np.float64] = np.linalg.qr(drawn)[0]
        return found
