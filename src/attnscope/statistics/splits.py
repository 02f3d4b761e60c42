"""Which images belong together, and random folds, samples and pairs of images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike, NDArray

from attnscope.errors import InputError
from attnscope.shapes import Array


def present_classes(
    labels: Int64[Array, " images"],
    at_least: int = 1,
    groups: Int64[Array, " images"] | None = None,
) -> tuple[Int64[Array, " classes"], Int64[Array, " images"], Int64[Array, " classes"]]:
    """Renumber the classes that have images from 0.

    Args:
        labels: class of each image, ``(N,)``.
        at_least: minimal number of images of a class.
        groups: group of each image, ``(N,)``, as in `stratified_folds`. All images of a group count
            as one image of the class of the first of them, so that a class with ``at_least``
            images has one in each of as many folds.

    Returns:
        The classes ``(K,)``; the new label of each image ``(N,)``, -1 for an image of a class with
        fewer than ``at_least`` images; and the number of images of each class ``(K,)``, of which
        copies count.
    """
    count = np.bincount(labels)
    first = slice(None) if groups is None else np.unique(groups, return_index=True)[1]
    apart = np.bincount(labels[first], minlength=len(count))
    known = np.flatnonzero((apart >= at_least) & (count > 0))
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
