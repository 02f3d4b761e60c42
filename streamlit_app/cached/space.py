"""Gates as points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.dashboard.gate_space import Places, placed_images
from attnscope.data.label_kinds import CLASS
from attnscope.statistics.embedding import Components, principal_components, sampled_rows
from cached.caching import slow
from cached.channels import can_keep as can_keep
from cached.found import Run

SHOWN = 3_000
"""Most points that are sent to the browser."""
COMPONENTS = 6
BY_TRUE, BY_PREDICTED, BY_ERROR = "True class", "Predicted class", "Right or wrong"
RIGHT, WRONG, ANY, OTHER = "right", "wrong", "image", "all others"


@slow
def components(run: Run, gate: str) -> Components:
    """``statistics.embedding.principal_components``"""
    return principal_components(run.recording, gate, COMPONENTS)


def places(run: Run, gate: str) -> Places | None:
    """Return what t-SNE gave and was kept in the folder of the dashboard, or None.

    Raises:
        InputError: the file cannot be read.
    """
    return placed_images(run.recording, gate) if can_keep(run) else None


def colorings(run: Run) -> list[str]:
    """Return by what points can be colored."""
    recording = run.recording
    return [
        *([BY_TRUE] if recording.label_kind == CLASS else []),
        *([BY_PREDICTED] if recording.has_scores else []),
        *([BY_ERROR] if recording.has_accuracy else []),
    ]


def points(
    run: Run,
    rows: NDArray[np.int64],
    places: NDArray[np.float64],
    by: str | None,
    only: Sequence[str],
) -> tuple[pd.DataFrame, list[str]]:
    """Return a sample of points with what they are, and the groups by which they are colored.

    Args:
        run: the recording.
        rows: rows of the recording, ``(n,)``.
        places: ``(n, 2)``.
        by: one of `colorings`; None: nothing is known of the images.
        only: the classes that have colors of their own; empty for all.

    Returns:
        The columns x, y, image, group and, as far as they are known, true and predicted, of at most
        `SHOWN` images; and the groups that have points, in the order of the classes.
    """
    recording = run.recording
    chosen = sampled_rows(len(rows), SHOWN)
    images = rows[chosen]
    frame = pd.DataFrame({"x": places[chosen, 0], "y": places[chosen, 1], "image": images})
    names = np.array(recording.classes, object)
    if recording.label_kind == CLASS:
        frame["true"] = names[recording.labels[images]]
    if recording.has_scores:
        frame["predicted"] = names[recording.predictions[images]]
    if by == BY_TRUE:
        frame["group"], groups = frame["true"], list(recording.classes)
    elif by == BY_PREDICTED:
        frame["group"], groups = frame["predicted"], list(recording.classes)
    elif by == BY_ERROR:
        frame["group"] = np.where(recording.right[images], RIGHT, WRONG)
        groups = [RIGHT, WRONG]
    else:
        frame["group"], groups = ANY, [ANY]
    if only and by in (BY_TRUE, BY_PREDICTED):
        frame["group"] = frame["group"].where(frame["group"].isin(only), OTHER)
        # Those with colors lie above the others.
        order = np.argsort(frame["group"] != OTHER, kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
        groups = [*(name for name in groups if name in only), OTHER]
    there = set(frame["group"])
    return frame, [name for name in groups if name in there]
