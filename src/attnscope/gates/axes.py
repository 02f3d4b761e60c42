"""Determine the axes of a feature map: images, branches, channels, and spatial axes.

Two forwards are compared, one on a sample and one on a larger sample. An axis that grows with the
image is spatial. The first axis is the batch if the network takes a batch. The remaining axes are
the channels and, before them, the branches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def layout_of(
    small: Sequence[int], large: Sequence[int], varies: Sequence[bool], batched: bool
) -> str | None:
    """Return one letter of `attnscope.kinds.AXES` per axis of a feature map, such as ``NCHW``.

    Args:
        small: shape of the features on the sample.
        large: shape of the features on the larger sample, or ``small`` if there is none.
        varies: for each axis of the features, whether the gate varies along it on the larger
            sample.
        batched: whether the network takes a batch, which is then the first axis.

    Returns:
        The letters, or None if they cannot be determined.
    """
    start = int(batched)
    grows = [a != b for a, b in zip(small, large, strict=True)] if len(small) == len(large) else []
    if not any(grows[start:]):
        if batched and len(large) == 3:  # tokens, and no axis is known to grow
            return "NLC" if tuple(varies)[1:] == (False, True) else None
        grows = [i >= len(large) - 2 for i in range(len(large))]
        if min(large[-2:]) == 1:
            return None
    moving = iter({1: "L", 2: "HW"}.get(sum(grows[start:]), ""))
    fixed = iter({1: "C", 2: "BC"}.get(len(large) - start - sum(grows[start:]), ""))
    letters = [next(moving if grows[i] else fixed, "") for i in range(start, len(large))]
    return "N" * start + "".join(letters) if all(letters) else None


def is_plain(features: Sequence[int], varies: Sequence[bool], batched: bool) -> bool:
    """Return whether the axes are unambiguous if the channels are where PyTorch puts them.

    Args:
        features: shape of the features.
        varies: for each axis of the features, whether the gate varies along it.
        batched: whether the network takes a batch.
    """
    if not batched:
        varies, features = (False, *varies), (1, *features)
    if min(features[-2:]) == 1 or len(features) not in (4, 5):
        return False
    along = tuple(varies[1:])
    if len(features) == 5:
        return not any(along[-2:])
    return along in ((True, False, False), (False, True, True), (True, True, True))


def grid_of_row(pixels: int) -> tuple[int, int]:
    """Return rows and columns of flattened positions: a square if possible, else one row."""
    side = math.isqrt(pixels)
    return (side, side) if side * side == pixels else (1, pixels)
