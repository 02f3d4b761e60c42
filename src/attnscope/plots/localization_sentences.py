"""Sentences about where maps lie, from the table `attnscope.statistics.localization_summary`.

No matplotlib. A sentence names the number of images and maps, the effect with its interval and p
value, and the difference that would have been seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.plots.frames import highest
from attnscope.plots.text import (
    as_count,
    as_interval,
    as_p,
    as_percent,
    as_plain_points,
    as_points,
    method_name,
)
from attnscope.recording.masks import MaskFacts
from attnscope.statistics.inference import LEVEL, significant
from attnscope.statistics.localization import ATTRIBUTION, BLOCK
from attnscope.statistics.localizing import CENTER, ENERGY, NULLS, OTHER, POINTING

_MEASURES = {ENERGY: "Energy inside the mask", POINTING: "Pointing game"}
_NULLS = {CENTER: "a Gaussian at the image center", OTHER: "the maps of other images"}
_KINDS = {
    "masks": "masks",
    "boxes": "boxes",
    "ink": "the ink of the drawings as masks",
}


@dataclass(frozen=True)
class Counts:
    """How many maps of a table lie on the object, by both nulls."""

    tested: int
    """Number of maps with a test against at least one null."""
    both: int
    """Higher than both nulls."""
    only_other: int
    """Higher than the maps of other images, not shown to be higher than the Gaussian."""
    only_center: int
    """Higher than the Gaussian, not shown to be higher than the maps of other images."""
    neither: int
    below: dict[str, int]
    """Null -> number of maps whose score is lower."""


def count(rows: pd.DataFrame) -> Counts:
    """Count the maps in the rows of one measure.

    A difference counts if its p value, corrected over all maps, is below the significance level.
    """
    found = {null: significant(rows[f"p_{null}_holm"]) for null in NULLS}
    up = {null: found[null] & (rows[f"over_{null}"].to_numpy(float) > 0) for null in NULLS}
    down = {null: found[null] & (rows[f"over_{null}"].to_numpy(float) < 0) for null in NULLS}
    tested = _has_test(rows)
    return Counts(
        int(tested.sum()),
        int((up[OTHER] & up[CENTER]).sum()),
        int((up[OTHER] & ~up[CENTER]).sum()),
        int((up[CENTER] & ~up[OTHER]).sum()),
        int((tested & ~up[OTHER] & ~up[CENTER]).sum()),
        {null: int(down[null].sum()) for null in NULLS},
    )


def describe_masks(facts: MaskFacts) -> str:
    """Return a sentence that counts the images with and without a usable mask."""
    parts = [
        (facts.missing, "without a mask"),
        (facts.empty, "with an empty mask"),
        (facts.full, "with a mask that covers the whole image"),
    ]
    left_out = [f"{number:,} {what}" for number, what in parts if number]
    images = as_count(facts.images, "image")
    text = f"{facts.used:,} of {images} are used, with {_KINDS[facts.kind]}"
    return text + (f"; left out: {', '.join(left_out)}." if left_out else ".")


def describe_localization(summary: pd.DataFrame, measure: str) -> str:
    """Return the sentences about one measure.

    Args:
        summary: of `attnscope.statistics.localization_summary`.
        measure: ``energy`` or ``pointing``.
    """
    rows = summary[(summary["measure"] == measure) & (summary["kind"] != BLOCK)]
    head = _MEASURES[measure]
    counts = count(rows)
    if not counts.tested:
        most = int(rows["images"].max()) if len(rows) else 0
        return (
            f"{head}: too few images differ for a test ({as_count(most, 'image')} at most are "
            "scored)."
        )
    tested = rows[_has_test(rows)]
    # Means of blocks are tested with the maps, and not counted here.
    has_blocks = (summary["kind"] == BLOCK).any()
    family = "the maps and the means of blocks" if has_blocks else "the maps"
    text = f"{head}: {_counted(counts, family)}{_below(counts)}"
    if untested := len(rows) - counts.tested:
        text += f" {as_count(untested, 'map')} cannot be tested, because too few images differ."
    for null in NULLS:
        if without := int(tested[f"p_{null}"].isna().sum()):
            verb = "is" if without == 1 else "are"
            text += f" {as_count(without, 'map')} {verb} not tested against {_NULLS[null]}."
    text += f" The highest score is that of {_effect(highest(tested, 'value'))}"
    if counts.both < counts.tested:
        text += f" {_detectable(tested)}"
    return text


def _has_test(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows have a test against at least one null."""
    tested: NDArray[np.bool_] = np.logical_or.reduce([rows[f"p_{null}"].notna() for null in NULLS])
    return tested


def _counted(counts: Counts, family: str) -> str:
    parts = [
        (counts.both, "above both nulls"),
        (counts.only_other, "above the maps of other images only"),
        (counts.only_center, "above the Gaussian only"),
        (counts.neither, "not shown to be above either null"),
    ]
    listed = [
        f"{number} {'is' if number == 1 else 'are'} {what}" for number, what in parts if number
    ]
    return (
        f"of {as_count(counts.tested, 'tested map')}, {_enumerated(listed)} (p below {LEVEL:g} by "
        f"Holm's correction over {family})."
    )


def _below(counts: Counts) -> str:
    parts = [
        f"{number} {'is' if number == 1 else 'are'} below {_NULLS[null]}"
        for null, number in counts.below.items()
        if number
    ]
    return f" {_enumerated(parts)}." if parts else ""


def _effect(row: pd.Series) -> str:
    text = (
        f"{name_of(row)}: {as_percent(row['value'])} "
        f"({as_interval(row['low'], row['high'], as_percent)}) over "
        f"{as_count(int(row['images']), 'image')}, whose masks cover {as_percent(row['area'])} on "
        "average"
    )
    for null in (OTHER, CENTER):
        difference = row[f"over_{null}"]
        if np.isfinite(difference):
            ends = (row[f"over_{null}_low"], row[f"over_{null}_high"])
            text += (
                f"; the difference from {_NULLS[null]} is {as_points(difference)} points "
                f"({as_interval(*ends, as_plain_points)}; {as_p(row[f'p_{null}_holm'])})"
            )
    return f"{text}."


def _detectable(rows: pd.DataFrame) -> str:
    """Return which difference would have been seen for each of the tested maps."""
    parts = []
    for null in (OTHER, CENTER):
        seen = rows.loc[rows[f"p_{null}"].notna(), f"detectable_{null}"].max()
        if np.isfinite(seen):
            parts.append(f"{as_plain_points(seen)} points from {_NULLS[null]}")
    return (
        f"With a power of 80%, a difference of {' and of '.join(parts)} would have been seen in "
        "every tested map."
    )


def name_of(row: pd.Series) -> str:
    """Return the name of a row's map: that of the gate, or of the attribution method."""
    return method_name(str(row["map"])) if row["kind"] == ATTRIBUTION else str(row["map"])


def _enumerated(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
