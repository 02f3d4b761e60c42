"""Gates as points: images with similar gates lie close together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from scipy.sparse import linalg

from attnscope.kinds import PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.reading import expect_finite, gate_chunks

MOST = 20_000
"""Largest number of images whose principal components are computed."""
_DENSE = 600
"""Up to this number of units, all components are computed, and above it the first ones."""


@dataclass(frozen=True)
class Components:
    """The first principal components of a gate."""

    rows: NDArray[np.int64]
    """Rows of the recording whose gates were used, ``(n,)``, sorted."""
    scores: NDArray[np.float64]
    """Place of each of these images, ``(n, k)``, in units of the gate."""
    explained: NDArray[np.float64]
    """Share of the variance of all units along each component, ``(k,)``; 0 for a constant gate."""


def sampled_rows(images: int, at_most: int, seed: int = 0) -> Int64[Array, " rows"]:
    """Return the rows of a random sample of images without replacement, sorted; all if few.

    Args:
        images: number of images.
        at_most: largest number of images in the sample.
        seed: random seed.
    """
    if images <= at_most:
        return np.arange(images)
    drawn = np.random.default_rng([seed, *b"images of a gate space"]).permutation(images)[:at_most]
    found: NDArray[np.int64] = np.sort(drawn)
    return found


def gate_vectors(
    recording: Recording, gate: str, rows: Int64[Array, " rows"]
) -> Float32[Array, "rows units"]:
    """Read the gate of some images as one vector for each.

    Args:
        recording: recording of one network.
        gate: name of a gate.
        rows: sorted rows of the recording, ``(n,)``.

    Returns:
        ``(n, U)``: the channels of a gate that has channels (`Recording.channel`), else all values.

    Raises:
        InputError: there is no gate of that name, or a value is not finite (AS704).
    """
    info = recording.info(gate)
    read = recording.channel if info.offers(PER_CHANNEL) else recording.gate
    pieces = []
    for chunk in gate_chunks(recording, gate):
        inside = rows[(rows >= chunk.start) & (rows < chunk.stop)] - chunk.start
        if len(inside):
            values = read(gate, chunk)
            pieces.append(values.reshape(len(values), -1)[inside])
    vectors = np.concatenate(pieces) if pieces else np.empty((0, 0), np.float32)
    expect_finite(vectors, f"gate '{gate}'", recording)
    return vectors


def principal_components(
    recording: Recording, gate: str, components: int = 2, at_most: int = MOST, seed: int = 0
) -> Components:
    """Compute the first principal components of the gates of images.

    The units (channels, or positions of a spatial gate) are centered and not scaled, so the
    distances between images are those of their gates. They are the singular vectors of the centered
    values (Jolliffe 2002, Principal Component Analysis). The sign of a component is chosen so that
    its largest weight is positive.

    Args:
        recording: recording of one network.
        gate: name of a gate.
        components: number of components.
        at_most: number of images that are used: a random sample if there are more.
        seed: seed of the sample.

    Returns:
        Components beyond the number of images or units are 0 for all images.

    Raises:
        InputError: there is no gate of that name, or a value is not finite (AS704).
    """
    rows = sampled_rows(len(recording), at_most, seed)
    values = gate_vectors(recording, gate, rows).astype(np.float64)
    values -= values.mean(0)
    total = float((values**2).sum())
    units = values.shape[1]
    scores, explained = np.zeros((len(rows), components)), np.zeros(components)
    # Rounding leaves a constant gate with about 1e-16 of its squared size.
    if total > 1e-18 * max(values.size, 1):
        squares, vectors = _axes(values, min(components, units))
        vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
        found = vectors.shape[1]
        scores[:, :found] = values @ vectors
        explained[:found] = squares / total
    return Components(rows, scores, explained)


def _axes(
    values: NDArray[np.float64], components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest squared singular values and their right singular vectors, ``(U, k)``."""
    if min(values.shape) <= _DENSE:
        # The smaller of the two matrices of products; both have the same eigenvalues but zeros.
        if values.shape[1] <= values.shape[0]:
            squares, vectors = np.linalg.eigh(values.T @ values)
        else:
            squares, left = np.linalg.eigh(values @ values.T)
            vectors = values.T @ left / np.sqrt(np.maximum(squares, squares.max() * 1e-14))
        order = np.argsort(-squares)[:components]
        return np.maximum(squares[order], 0), vectors[:, order]
    start = np.random.default_rng(0).normal(size=min(values.shape)).astype(np.float32)
    # Single precision is three times as fast, and right to six digits.
    _, singular, right = linalg.svds(values.astype(np.float32), k=components, v0=start)
    order = np.argsort(-singular)
    return singular[order].astype(np.float64) ** 2, right[order].T.astype(np.float64)


def neighbor_embedding(vectors: Float32[Array, "rows units"], seed: int = 0) -> NDArray[np.float64]:
    """Place vectors in the plane so that neighbors stay neighbors: t-SNE.

    The method is that of van der Maaten and Hinton (2008, JMLR 9), as in scikit-learn, started from
    the first two principal components, with a perplexity of 30, or a third of the number of vectors
    if there are fewer than 91. Distances between groups, and their sizes, have no meaning.

    Args:
        vectors: ``(n, U)`` with at least 4 rows.
        seed: random seed.

    Returns:
        ``(n, 2)``, without units.
    """
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    init = "pca" if min(vectors.shape) >= 2 else "random"
    found: NDArray[np.float64] = TSNE(
        2, perplexity=perplexity, init=init, random_state=seed
    ).fit_transform(np.asarray(vectors, np.float32))
    return found
