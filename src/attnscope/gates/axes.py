"""Which axis of the features is which: images, paths, channels, or pixels.

Told from two looks at a network, on a sample and on a larger one: an axis that grows with the image
is one of pixels, the first one is that of the images where the network takes a batch, and what is
left are channels and, before them, paths. Everything else takes the letters from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def layout_of(
    small: Sequence[int], large: Sequence[int], varies: Sequence[bool], batched: bool
) -> str | None:
    """A letter of `attnscope.kinds.AXES` for each axis of some features, as ``NCHW``.

    Args:
        small: shape of the features on the sample.
        large: their shape on the larger sample; the same where there was none.
        varies: whether the gate varies along each of their axes, on the larger sample.
        batched: whether the network takes a batch, so that the first axis is that of the images.

    Returns:
        None where it cannot be told.
    """
    start = int(batched)
    grows = [a != b for a, b in zip(small, large, strict=True)] if len(small) == len(large) else []
    if not any(grows[start:]):
        if batched and len(large) == 3:  # a row of pixels, and nothing that tells where
            return "NLC" if tuple(varies)[1:] == (False, True) else None
        grows = [i >= len(large) - 2 for i in range(len(large))]
        if min(large[-2:]) == 1:
            return None
    moving = iter({1: "L", 2: "HW"}.get(sum(grows[start:]), ""))
    fixed = iter({1: "C", 2: "BC"}.get(len(large) - start - sum(grows[start:]), ""))
    letters = [next(moving if grows[i] else fixed, "") for i in range(start, len(large))]
    return "N" * start + "".join(letters) if all(letters) else None


def is_plain(features: Sequence[int], varies: Sequence[bool], batched: bool) -> bool:
    """Whether there is one reading of the axes only, if the channels stand where PyTorch's do.

    Args:
        features: their shape.
        varies: whether the gate varies along each of their axes.
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
    """Rows and columns of pixels that stand in one row: a square where that can be."""
    side = math.isqrt(pixels)
    return (side, side) if side * side == pixels else (1, pixels)
