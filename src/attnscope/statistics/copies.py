"""Images that are held twice or more, or nearly so, by their pictures in the recording."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from jaxtyping import Int64
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.reading import row_chunks
from attnscope.statistics.registry import statistic

_FINE = (16, 16)
"""Rows and columns of the mean gray values by which two pictures are compared."""
_COARSE = (8, 9)
"""Rows and columns of those whose horizontal differences are the bits of the hash."""
_SMALL = (8, 8)
"""Rows and columns of the mean gray values of `small_pictures`."""
_BANDS = 4
"""Number of parts of the hash. Two pictures are compared if one part is equal."""
_NEXT = 20
"""Of pictures with an equal part, each is compared with this number of the next brighter ones."""
_NEAR = 0.1
"""Largest root mean square difference of near copies, as a share of the contrast of a picture."""
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@statistic("Images that are copies of one another, exactly or nearly.")
def image_copies(recording: Recording) -> pd.DataFrame:
    """Find images that are held twice or more, exactly or nearly.

    Copies are not independent images: p values and intervals over images are too small if they
    count as such. Pass the column ``group`` as ``groups=`` to the statistics that take it.

    Pictures are compared as they are in the recording. Exact copies are equal in all pixels. Near
    copies agree in at least one of four parts of a difference hash (64 bits that say whether a mean
    of gray values is larger than its neighbor), and differ by at most 10% of their contrast: the
    root mean square difference of 16 × 16 mean gray values, over their standard deviation. This
    finds an image that was compressed or scaled again, and not two images of one thing. Copies of
    copies are in one group.

    Args:
        recording: recording of one network.

    Returns:
        One row per image:

        - ``row``: row in the recording.
        - ``group``: number of the group, from 0.
        - ``images``: number of images of the group; 1 for an image without copies.
        - ``exact``: whether another image is equal in all pixels.
    """
    digests, fine, hashes = _describe(recording)
    _, exact, count = np.unique(digests, return_inverse=True, return_counts=True)
    links = [_in_chains(exact), *(_near(fine, part) for part in hashes.T)]
    first, second = (np.concatenate([link[end] for link in links]) for end in range(2))
    shape = (len(recording), len(recording))
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=shape)
    group = csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    return pd.DataFrame(
        {
            "row": np.arange(len(recording)),
            "group": group,
            "images": np.bincount(group)[group],
            "exact": count[exact] > 1,
        }
    )


def copy_groups(recording: Recording) -> Int64[Array, " images"] | None:
    """Return the group of each image of `image_copies`.

    Returns:
        ``(N,)``; None if no image is a copy, or if the recording has no pictures.
    """
    if not recording.has_pictures:
        return None
    found = image_copies(recording)
    if int(found["images"].max()) == 1:
        return None
    groups: NDArray[np.int64] = found["group"].to_numpy()
    return groups


def describe_copies(recording: Recording) -> str | None:
    """Return a sentence on the copies in a recording; None if there are none."""
    found = image_copies(recording)
    held = found[found["images"] > 1]
    if not len(held):
        return None
    exact, groups = int(held["exact"].sum()), held["group"].nunique()
    rows = held["row"][held["group"] == held["group"].iloc[0]].to_numpy()[:2]
    paths = recording.rows["path"].to_numpy()[rows]
    return (
        f"{len(held)} of {len(found)} images are copies of one another ({exact} exactly, "
        f"the others nearly) in {groups} groups, such as {paths[0]} and {paths[1]}; interventions "
        "count them once, other p values and intervals count them as independent: remove copies, "
        "or pass groups= to the statistics"
    )


def small_pictures(recording: Recording) -> NDArray[np.float32]:
    """Return 8 × 8 mean gray values of each picture, ``(N, P)``; fewer of smaller pictures."""
    found = []
    for rows in row_chunks(len(recording), 4 * recording.image(0).size):
        gray = recording.pictures(rows).astype(np.float32) @ _GRAY
        found.append(_reduced(gray, _SMALL).reshape(len(gray), -1))
    return np.concatenate(found)


def _describe(
    recording: Recording,
) -> tuple[NDArray[np.bytes_], NDArray[np.float32], NDArray[np.int64]]:
    """Return digests ``(N,)``, gray values ``(N, P)``, and parts of hashes ``(N, 4)``."""
    digests, fine, hashes = [], [], []
    size = recording.image(0).size
    for rows in row_chunks(len(recording), 4 * size):
        pictures = recording.pictures(rows)
        digests += [hashlib.blake2b(each.tobytes(), digest_size=16).digest() for each in pictures]
        gray = pictures.astype(np.float32) @ _GRAY
        fine.append(_reduced(gray, _FINE).reshape(len(gray), -1))
        coarse = _reduced(gray, _COARSE)
        bits = (np.diff(coarse, axis=2) > 0).reshape(len(gray), -1)
        hashes.append(np.stack([part @ 2 ** np.arange(part.shape[1]) for part in _parts(bits)], 1))
    # A digest may contain zeros, which NumPy would cut off the end of a string.
    return (
        np.array([digest.hex().encode() for digest in digests]),
        np.concatenate(fine),
        np.concatenate(hashes),
    )


def _parts(bits: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    return np.array_split(bits, _BANDS, axis=1)


def _reduced(gray: NDArray[np.float32], most: tuple[int, int]) -> NDArray[np.float32]:
    """Average ``(n, H, W)`` over blocks, at most so many along each axis."""
    for axis, number in zip((1, 2), most, strict=True):
        length = gray.shape[axis]
        ends = np.unique(np.linspace(0, length, min(number, length) + 1).astype(np.int64))
        shape = [1, 1, 1]
        shape[axis] = -1
        sums = np.add.reduceat(gray, ends[:-1], axis)
        gray = (sums / np.diff(ends).reshape(shape)).astype(np.float32)
    return gray


def _in_chains(names: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of images that link all images of the same name."""
    order = np.argsort(names, kind="stable")
    same = names[order[1:]] == names[order[:-1]]
    return order[:-1][same], order[1:][same]


def _near(
    fine: NDArray[np.float32], part: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of near copies among the images whose part of the hash is equal."""
    order = np.lexsort((fine.mean(1), part))
    contrast = fine.std(1)
    first, second = [], []
    for lag in range(1, min(_NEXT, len(order) - 1) + 1):
        a, b = order[:-lag], order[lag:]
        same = part[a] == part[b]
        a, b = a[same], b[same]
        for rows in row_chunks(len(a), fine.shape[1]):
            apart = np.sqrt(((fine[a[rows]] - fine[b[rows]]) ** 2).mean(1))
            # Pictures without contrast are copies only if they are equal.
            near = apart <= _NEAR * np.minimum(contrast[a[rows]], contrast[b[rows]])
            near &= contrast[a[rows]] > 0
            first.append(a[rows][near])
            second.append(b[rows][near])
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *first]), np.concatenate([none, *second])
