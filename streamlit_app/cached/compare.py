"""Comparisons of two recordings, or of two configurations over seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import layouts
import matrices
import numpy as np
import pandas as pd
from matrices import Look
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.comparison import Comparison
from attnscope.errors import InputError
from attnscope.plots.text import shorten
from attnscope.plots.theme import SIGNED_MAP, drawable_names
from cached import confusion, tables
from cached.caching import drawing, picture, slow, small
from cached.found import Run
from cached.pictures import GRAD_CAM, heat

EVERY, ONLY_A, ONLY_B, NEITHER = "All", "Only first correct", "Only second correct", "Both wrong"


@slow
def accuracy(a: Run, b: Run) -> pd.DataFrame:
    """``Comparison.accuracy``"""
    return Comparison(a.recording, b.recording).accuracy


@slow
def confusion_table(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_confusion``"""
    return statistics.compare_confusion(a.recording, b.recording)


def confusion_cells(a: Run, b: Run, by: str) -> tuple[dict[str, NDArray[Any]], Look]:
    """Return the matrices of `confusion_table`, each ``(K, K)``, and the colors of differences.

    Args:
        a: first recording.
        b: second recording.
        by: order of the classes of the first recording, as in `cached.confusion.values`.
    """
    placed = confusion.order(a, by)
    both = [confusion.counts(run)[np.ix_(placed, placed)] for run in (a, b)]
    totals = both[0].sum(1, keepdims=True).astype(np.float64)  # of the same images in both
    rates = [counts / np.where(totals > 0, totals, np.nan) for counts in both]
    difference = rates[1] - rates[0]
    reach = float(np.nanmax(np.abs(difference), initial=0)) or 1.0
    look = Look("difference (second − first)", -reach, reach, "redblue", SIGNED_MAP, "+.1~%", True)
    cells = {
        "value": difference,
        "rate_a": rates[0],
        "rate_b": rates[1],
        "count_a": both[0],
        "count_b": both[1],
    }
    return cells, look


@picture
def confusion_overview(a: Run, b: Run, by: str) -> bytes:
    """Draw all differences of two confusion matrices as PNG."""
    cells, look = confusion_cells(a, b, by)
    return matrices.picture(cells["value"], look)


@small
def images_of(run: Run) -> str:
    """Return a SHA-256 of the paths and labels of all images."""
    digest = hashlib.sha256("\0".join(run.recording.rows["path"]).encode())
    digest.update(run.recording.rows["label"].to_numpy().tobytes())
    return digest.hexdigest()


def could_match(a: Run, b: Run) -> bool:
    """Return whether two recordings can be of the same images, without reading their rows."""
    first, second = a.recording, b.recording
    return len(first) == len(second) and first.classes == second.classes


def others(run: Run, found: Mapping[str, Run]) -> list[str]:
    """Return the labels of the other recordings, those that can be of the same images first.

    No rows are read: there may be hundreds of recordings.
    """
    rest = [label for label in found if label != run.label]
    split = run.recording.split
    return sorted(
        rest,
        key=lambda label: (
            not could_match(run, found[label]),
            found[label].recording.split != split,
        ),
    )


def first_match(run: Run, found: Mapping[str, Run], labels: Sequence[str]) -> str | None:
    """Return the first label whose recording is of the same images; None if there is none."""
    for label in labels:
        if not could_match(run, found[label]):
            continue
        try:
            if images_of(found[label]) == images_of(run):
                return label
        except InputError:  # it cannot be read; the page says so if it is chosen
            continue
    return None


def configurations(found: Mapping[str, Run]) -> tuple[dict[str, list[Run]], list[str]]:
    """Return the configurations of which the folder has several seeds, and what is left out.

    Returns:
        Name -> its recordings in the order of their seeds, and one line for each problem.
    """
    by_split: dict[str | None, list[Run]] = {}
    for run in found.values():
        if isinstance(run.recording.about.get("seed"), int):
            by_split.setdefault(run.recording.split, []).append(run)
    kinds: dict[str, list[Run]] = {}
    problems = []
    for split, runs in by_split.items():
        of_recording = {id(run.recording): run for run in runs}
        try:
            groups = statistics.group_by_kind([run.recording for run in runs])
        except InputError as error:  # such as a copy of a run
            problems.append(str(error))
            continue
        for name, recordings in groups.items():
            if len(recordings) > 1:
                label = name if len(by_split) == 1 else f"{name} ({split})"
                kinds[label] = [of_recording[id(recording)] for recording in recordings]
    return kinds, problems


def seed_pairs(a: Sequence[Run], b: Sequence[Run]) -> tuple[list[Run], list[Run], list[int]]:
    """Return the recordings of the seeds that both configurations have, and these seeds."""
    of_a, of_b = ({run.recording.about["seed"]: run for run in kind} for kind in (a, b))
    seeds = sorted(of_a.keys() & of_b.keys())
    return [of_a[seed] for seed in seeds], [of_b[seed] for seed in seeds], seeds


def can_pair(a: Sequence[Run], b: Sequence[Run]) -> bool:
    """Return whether two configurations have at least two seeds in common, of like images."""
    return (
        a is not b
        and a[0].recording.split == b[0].recording.split
        and could_match(a[0], b[0])
        and len(seed_pairs(a, b)[2]) > 1
    )


@slow
def over_seeds(a: list[Run], b: list[Run]) -> pd.DataFrame:
    """``statistics.compare_seeds``"""
    return statistics.compare_seeds([run.recording for run in a], [run.recording for run in b])


def rows_where(a: Run, b: Run, which: str) -> NDArray[np.bool_]:
    """Return which images are of one of `EVERY`, `ONLY_A`, `ONLY_B` and `NEITHER`, ``(N,)``."""
    right_a, right_b = a.recording.right, b.recording.right
    if which == ONLY_A:
        return right_a & ~right_b
    if which == ONLY_B:
        return right_b & ~right_a
    return ~right_a & ~right_b if which == NEITHER else np.ones(len(right_a), bool)


@drawing
def side_by_side(a: Run, b: Run, rows: list[int]) -> bytes:
    """Draw some images with the Grad-CAM of two networks, as far as it was recorded.

    Each network has its own color scale.
    """
    columns = []
    for run in (a, b):
        if not run.recording.grad_cam_layers:
            continue
        cams = np.stack([heat(run, row, GRAD_CAM) for row in rows])
        top = float(cams[np.isfinite(cams)].max(initial=0)) or 1.0
        title = f"{GRAD_CAM}, {shorten(drawable_names([run.label])[0], 16)}"
        columns.append(layouts.Column(title, cams, 0, top, grad_cam=True))
    classes = [shorten(name, 16) for name in drawable_names(a.recording.classes)]
    names = []
    for row in rows:
        lines = [f"{row}: {classes[a.recording.labels[row]]}"]
        for run in (a, b):
            share = tables.confidence(run)[row]
            lines.append(f"→ {classes[run.recording.predictions[row]]} {share:.2f}")
        names.append("\n".join(lines))
    return layouts.map_grid(names, [a.recording.image(row) for row in rows], columns)
