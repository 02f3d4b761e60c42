"""What a test could have seen, for sentences that report no difference. No matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attnscope.plots.text import as_count, as_plain_points
from attnscope.statistics.inference import LEVEL
from attnscope.statistics.paired import detectable_loss


def seen_in_classes(counts: Sequence[int], tests: int) -> str:
    """Say which difference in accuracy would have been seen in the classes; starts with a space.

    Args:
        counts: number of images of each tested class.
        tests: number of tests over which p values are corrected.

    Returns:
        A sentence; empty if no class was tested. It holds where one network alone is right about
        some images (`attnscope.statistics.paired.detectable_loss`).
    """
    if not len(counts):
        return ""
    most, fewest = int(max(counts)), int(min(counts))
    best, worst = (detectable_loss(count, LEVEL / tests) for count in (most, fewest))
    if np.isnan(best):
        return (
            f" With at most {as_count(most, 'image')} per class, no difference could have been "
            "significant."
        )
    # This is what `detectable_loss` assumes.
    seen = "would have been seen with a power of 80% if all disagreements favored one network"
    at_best = " With disagreements in both directions, it must be larger."
    if most == fewest:
        return (
            f" With {as_count(most, 'image')} per class, a difference of {as_plain_points(best)} "
            f"percentage points {seen}.{at_best}"
        )
    text = (
        f" In the largest class ({as_count(most, 'image')}), a difference of "
        f"{as_plain_points(best)} percentage points {seen}"
    )
    if np.isnan(worst):
        return (
            f"{text}; the smallest ({as_count(fewest, 'image')}) has too few images for any "
            f"difference to be significant.{at_best}"
        )
    smallest = f"in the smallest ({as_count(fewest, 'image')}), {as_plain_points(worst)}"
    return f"{text}; {smallest}.{at_best}"
