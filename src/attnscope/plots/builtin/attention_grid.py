"""Example images with their spatial gates and Grad-CAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope.data.label_kinds import CLASS
from attnscope.kinds import MAP, Gate
from attnscope.plots.images import (
    bounds_of,
    draw_blank_reason,
    draw_colorbar,
    draw_image,
    draw_map,
    draw_overlay,
    row_name,
    shared_scale,
    top_of,
)
from attnscope.plots.maps import SEED, gate_of, grad_cam_of, some_gates
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity, no_gate
from attnscope.plots.tables import maps_table
from attnscope.plots.text import as_count, short_names, shorten
from attnscope.plots.theme import GRAD_CAM_MAP, drawable_names
from attnscope.plots.titles import title_lines, title_of
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.recording import Recording

_IMAGES = 10


@dataclass(frozen=True)
class AttentionGrid:
    """Images and their maps."""

    of: Identity
    how: str
    """How the images were chosen."""
    rows: Sequence[int]
    """Row of each image in the recording."""
    labels: Sequence[int]
    """Label of each image; empty if the images have no class labels."""
    classes: Sequence[str]
    images: Sequence[NDArray[np.uint8]]
    gates: Sequence[Gate]
    maps: Mapping[str, NDArray[np.float32]]
    """Gate -> ``(images, h, w)``."""
    grad_cam: NDArray[np.float32] | None
    """``(images, h, w)``, after the ReLU; None if it was not recorded."""
    left_out: str
    """A sentence if not all gates are drawn, else empty."""
    without: str
    """A sentence if the network has no spatial gate, else empty."""


def compute(recording: Recording) -> AttentionGrid:
    """Choose images at random and read their maps."""
    gates, left_out = some_gates(recording.gates_with(MAP))
    rows, how = _sample(recording)
    return AttentionGrid(
        identity(recording),
        how,
        rows,
        [int(recording.labels[i]) for i in rows] if recording.label_kind == CLASS else [],
        recording.classes,
        [recording.image(i) for i in rows],
        gates,
        {gate.name: gate_of(recording, gate.name, rows) for gate in gates},
        grad_cam_of(recording, rows),
        left_out,
        "" if gates else no_gate(recording, MAP),
    )


def lay_out(shown: AttentionGrid) -> list[Figure]:
    """Draw one row for each image: the image, every gate, Grad-CAM, and Grad-CAM over the image."""
    gates, cams = shown.gates, shown.grad_cam
    low, high = shared_scale(shown.maps.values()) if gates else (0.0, 1.0)
    top = top_of(cams) if cams is not None else 1.0
    short = short_names([gate.name for gate in gates])
    columns = 1 + len(gates) + 2 * (cams is not None)
    size = (max(5.5, 2 + 0.82 * columns), 1.0 + 0.78 * len(shown.images))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(shown.images), columns, squeeze=False)
    classes = drawable_names(shown.classes)
    names = [classes[label] for label in shown.labels] or [f"image {i}" for i in shown.rows]
    for row, image in enumerate(shown.images):
        first = row == 0
        draw_image(axes[row, 0], image, "image" if first else "")
        row_name(axes[row, 0], names[row])
        for ax, gate, text in zip(axes[row, 1:], gates, short, strict=False):
            title = shorten(text, 16) if first else ""
            draw_map(ax, shown.maps[gate.name][row], low=low, high=high, title=title)
        if cams is not None:
            cam, over = axes[row, -2:]
            title = "Grad-CAM" if first else ""
            draw_map(cam, cams[row], low=0, high=top, title=title, cmap=GRAD_CAM_MAP)
            draw_overlay(over, image, cams[row], low=0, high=top, title="overlay" if first else "")
            if not cams[row].any():
                draw_blank_reason(cam, "0\neverywhere")
    if gates:
        label = f"{noun_of(gates, MAP)} ({bounds_of(gates)})"
        draw_colorbar(axes[0, 1], label, list(axes[:, 1 : 1 + len(gates)].ravel()))
    if cams is not None:
        draw_colorbar(axes[0, -2], "Grad-CAM after the ReLU", list(axes[:, -2:].ravel()))
    parts = ["image"]
    parts += [noun_of(gates, MAP, plural=True)] if gates else []
    parts += ["Grad-CAM"] if cams is not None else []
    what = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "image"
    what = what[:1].upper() + what[1:] + ("" if gates else " (no spatial gates)")
    figure.suptitle(title_lines([f"{what}: {title_of(shown.of)}", shown.how], int(12 * size[0])))
    return [figure]


def table(grid: AttentionGrid) -> pd.DataFrame:
    """Return the values of the maps."""
    maps = {**grid.maps, "Grad-CAM": grid.grad_cam}
    return maps_table(maps, [str(row) for row in grid.rows], "row")


def caption(shown: AttentionGrid) -> str:
    """Describe the choice of images and the color scales."""
    text = f"{shown.how[0].upper()}{shown.how[1:]}. "
    if shown.gates:
        low, high = shared_scale(shown.maps.values())
        text += (
            f"{noun_of(shown.gates, MAP, plural=True).capitalize()} are raw values on one color "
            f"scale from {low:.3g} to {high:.3g} ({bounds_of(shown.gates)}). {shown.left_out}"
            f"{view_note(shown.gates, MAP)}"
        )
    else:
        text += f"{shown.without} "
    cams = shown.grad_cam
    if cams is None:
        return f"{text}Grad-CAM was not recorded."
    blank = int((~cams.any(axis=(1, 2))).sum())
    none = f" It has no value above 0 in {blank} of {len(cams)} images." if blank else ""
    return (
        f"{text}Grad-CAM of the predicted class after the ReLU is on one color scale from 0 to "
        f"{top_of(cams):.3g}, the largest value shown.{none} The overlay interpolates Grad-CAM to "
        "the size of the image."
    )


def _sample(recording: Recording) -> tuple[list[int], str]:
    """Return the rows of one correctly classified image per class, and how they were chosen.

    Without class scores or class labels, any images are chosen.
    """
    random = np.random.default_rng(SEED)
    if not recording.has_accuracy:
        some = np.sort(random.permutation(len(recording))[:_IMAGES])
        return some.tolist(), f"{len(some)} images, chosen at random with seed {SEED}"
    right = recording.labels == recording.predictions
    classes = np.unique(recording.labels[right])
    if not len(classes):
        some = np.sort(random.permutation(len(recording))[:_IMAGES])
        return (
            some.tolist(),
            f"{len(some)} images, chosen at random with seed {SEED} (no image is classified "
            "correctly)",
        )
    if len(classes) > _IMAGES:
        classes = np.sort(random.permutation(classes)[:_IMAGES])
    rows = [
        int(random.choice(np.flatnonzero(right & (recording.labels == label)))) for label in classes
    ]
    how = (
        f"one correctly classified image from each of {len(rows)} classes"
        if len(rows) > 1
        else "one correctly classified image of the only class that has some"
    )
    how += f", chosen at random with seed {SEED}"
    without = len(recording.classes) - len(np.unique(recording.labels[right]))
    if without:
        how += f" ({as_count(without, 'other class', 'other classes')} without one)"
    return rows, how


register_plot(
    Plot(
        name="attention_grid",
        title="Attention grid",
        about="Example images with their spatial gates and Grad-CAM.",
        subject=Recording,
        compute=compute,
        draw=draw_map,
        lay_out=lay_out,
        caption=caption,
        table=table,
        place=80,
    )
)
