"""What a number of images can show: the smallest change of accuracy that can be significant."""

from __future__ import annotations

import math

from attnscope.statistics.inference import LEVEL

_WISHED = 0.05
"""A change of accuracy that interventions should be able to show, of 0 to 1."""
_COARSE = 0.10
"""From this change on, a user is told that there are few images."""


def fewest_changes(tests: int) -> int:
    """Return how many predictions must change from right to wrong to be significant.

    This is the best case: all changes have one direction. The two-sided exact McNemar test of k
    such changes has p = 2^(1-k), and Holm's method compares the smallest of several p values with
    the level divided by their number (Holm 1979, Scandinavian Journal of Statistics 6).

    Args:
        tests: Number of p values that are corrected together, at least 1: of replaced gates, two
            for each target, of accuracy and of log loss.
    """
    return 1 + math.ceil(math.log2(tests / LEVEL))


def advise_images(images: int, tests: int, most: int) -> str | None:
    """Return a line if a number of images can only show large changes of accuracy, else None.

    Args:
        images: Number of images that are scored.
        tests: Number of p values that are corrected together.
        most: Number of images of the recording that can be scored.
    """
    needed = fewest_changes(tests)
    smallest = needed / images
    if smallest < _COARSE:
        return None
    shown = (
        "no change of accuracy can be significant"
        if smallest > 1
        else f"only changes of accuracy of at least {math.ceil(100 * smallest)} points can be "
        "significant"
    )
    some = f"{images} image{'' if images == 1 else 's'}"
    enough = math.ceil(needed / _WISHED)
    remedy = f"--images {enough}" if enough <= most else f"a recording of {2 * enough} images"
    return (
        f"on {some}, {shown} (that takes {needed} changed predictions); {remedy} could show "
        f"{100 * _WISHED:g} points"
    )
