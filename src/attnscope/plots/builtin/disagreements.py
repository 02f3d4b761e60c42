"""Images that only one of two networks classifies correctly, with Grad-CAM and gates of both."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.kinds import MAP, Gate
from attnscope.plots.images import (
    draw_blank_reason,
    draw_colorbar,
    draw_image,
    draw_map,
    draw_note,
    draw_overlay,
    scale_of,
)
from attnscope.plots.maps import gate_of, grad_cam_of
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Comparison, no_gate, no_grad_cam
from attnscope.plots.text import shorten
from attnscope.plots.titles import drawn_names, short_pair, title_lines, two_names
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.recording import Recording

_ALONE = 6  # number of images to show for each network


@dataclass(frozen=True)
class Strip:
    """One map for each image in the figure, all on one color scale."""

    side: int
    """0 for the first network, 1 for the second."""
    gate: Gate | None
    """The gate, or None for Grad-CAM. Grad-CAM is drawn over the image; a gate is drawn alone, so
    that its low values are visible."""
    maps: Mapping[int, NDArray[Any]]
    """Row of the recording -> ``(h, w)``."""
    low: float
    high: float


@dataclass(frozen=True)
class Disagreements:
    """Images that only one of two networks classifies correctly."""

    names: tuple[str, str]
    classes: Sequence[str]
    count: int
    """Number of images."""
    both: int
    """Number of images that both networks classify correctly."""
    alone: tuple[int, int]
    """Number of images that only the first, and only the second, classifies correctly."""
    shown: tuple[Sequence[Mapping[Hashable, Any]], Sequence[Mapping[Hashable, Any]]]
    """The rows of `attnscope.statistics.disagreements` that are drawn, for each network."""
    images: Mapping[int, NDArray[np.uint8]]
    """Row of the recording -> ``(H, W, 3)``."""
    strips: Sequence[Strip]
    """Grad-CAM of both networks, then their last spatial gates, if there are any."""
    missing: Sequence[str]
    """Sentences about those that are missing."""


def compute(pair: Comparison) -> Disagreements:
    """Find the images, and read those on which both networks are most confident."""
    return between(pair, pair.names)


def between(pair: Comparison, names: tuple[str, str]) -> Disagreements:
    """Do the same as `compute`, with other names for the two networks.

    Raises:
        InputError: the recordings are not of the same images.
    """
    a, b = pair.a, pair.b
    different = statistics.disagreements(a, b)
    # Some images for each network: if one is much better, the top rows would be all its own.
    alone_a, alone_b = (different[different["right"] == side] for side in "ab")
    shown = alone_a.head(_ALONE).to_dict("records"), alone_b.head(_ALONE).to_dict("records")
    rows = [int(image["row"]) for images in shown for image in images]
    strips, missing = _strips((a, b), rows) if rows else ([], [])
    return Disagreements(
        names,
        a.classes,
        len(a),
        int((a.right & b.right).sum()),
        (len(alone_a), len(alone_b)),
        shown,
        {row: a.image(row) for row in rows},
        strips,
        missing,
    )


def draw(ax: Axes, strip: Strip, row: int, image: NDArray[np.uint8]) -> Axes:
    """Draw one map of one image.

    Args:
        ax: the Axes to draw on.
        strip: of `Disagreements`.
        row: row of the recording.
        image: the image below Grad-CAM.
    """
    heat = strip.maps[row]
    if strip.gate is not None:
        return draw_map(ax, heat, low=strip.low, high=strip.high)
    draw_overlay(ax, image, heat, low=strip.low, high=strip.high)
    if not heat.any():
        draw_blank_reason(ax, "0 everywhere")
    return ax


def lay_out(found: Disagreements) -> list[Figure]:
    """Draw a band for each network: its images above their maps."""
    names = two_names(*found.names)
    if not found.images:
        figure = Figure(figsize=(7, 2), layout="constrained")
        draw_note(figure.subplots(), caption(found))
        return [figure]
    short = short_pair(names)
    bands = [(name, shown) for name, shown in zip(short, found.shown, strict=True) if shown]
    panels = 1 + len(found.strips)
    columns = max(len(shown) for shown in found.shown)
    width = max(5.5, 2 + 1.25 * columns)
    text = [
        f"Images that only one network classifies correctly: {names[0]} and {names[1]}",
        *found.missing,
    ]
    title = title_lines(text, int(11 * width))
    height = 0.3 + 0.2 * (1 + title.count("\n")) + len(bands) * (0.5 + 1.25 * panels)
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots(len(bands) * panels, columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    drawn = drawn_names(found.classes)
    for band, (name, shown) in enumerate(bands):
        grid = axes[band * panels : (band + 1) * panels]
        for column, about in zip(grid.T, shown, strict=False):
            for ax in column:
                ax.set_axis_on()
            wrong = drawn[about["prediction_b" if about["right"] == "a" else "prediction_a"]]
            words = f"true: {shorten(drawn[about['label']], 14)}\nwrong: {shorten(wrong, 14)}"
            row = int(about["row"])
            draw_image(column[0], found.images[row], words)
            for ax, strip in zip(column[1:], found.strips, strict=True):
                draw(ax, strip, row, found.images[row])
        grid[0, 0].set_ylabel(f"only {name}\nis correct", fontsize=7)
        for line, strip in zip(grid[1:], found.strips, strict=True):
            what = "Grad-CAM" if strip.gate is None else f"last {noun_of([strip.gate], MAP)}"
            line[0].set_ylabel(f"{what}\n{short[strip.side]}", fontsize=7)
            draw_colorbar(line[0], "", list(line))
    figure.suptitle(title)
    return [figure]


def table(shown: Disagreements) -> pd.DataFrame:
    """Return the images that are drawn."""
    return pd.DataFrame([dict(image) for images in shown.shown for image in images])


def caption(found: Disagreements) -> str:
    """Count the images that only one network classifies correctly."""
    names = two_names(*found.names)
    if not found.images:
        return (
            f"No image is classified correctly by only one network: {names[0]} and {names[1]} are "
            f"correct on the same {found.both:,} of {found.count:,} images."
        )
    only_a, only_b = found.alone
    shown = " and ".join(f"{len(images)}" for images in found.shown)
    sentences = [
        f"Images that only one network classifies correctly: of {found.count:,} images, only "
        f"{names[0]} is correct on {only_a:,}, only {names[1]} on {only_b:,}. The figure shows the "
        f"{shown} images on which both networks are most confident, with the true class and the "
        "wrong prediction of the other network."
    ]
    cams = [
        f"{names[strip.side]} from 0 to {strip.high:.3g}"
        for strip in found.strips
        if strip.gate is None
    ]
    if cams:
        # The Grad-CAM of two networks have no common unit, and here they explain different classes.
        sentences.append(
            "Grad-CAM after the ReLU explains the class that each network predicts, so the two "
            f"networks explain different classes; each has its own color scale: {'; '.join(cams)}."
        )
    gates = [
        f"{strip.gate.name} of {names[strip.side]} (bounds {strip.low:g} to {strip.high:g}, values "
        f"{min(each.min() for each in strip.maps.values()):.3g} to "
        f"{max(each.max() for each in strip.maps.values()):.3g})"
        for strip in found.strips
        if strip.gate is not None
    ]
    if gates:
        drawn = [strip.gate for strip in found.strips if strip.gate is not None]
        sentences.append(
            f"Last {noun_of(drawn, MAP, plural=True)}, raw values on the scale of their bounds: "
            f"{'; '.join(gates)}. {view_note(drawn, MAP)}".rstrip()
        )
    return " ".join([*sentences, *found.missing])


def _strips(
    pair: tuple[Recording, Recording], rows: Sequence[int]
) -> tuple[list[Strip], list[str]]:
    """Read Grad-CAM and the last spatial gate of both networks, and say what is missing."""
    cams, gates, missing = [], [], []
    for side, recording in enumerate(pair):
        cam = grad_cam_of(recording, rows)
        if cam is None:
            missing.append(no_grad_cam(recording))
        else:
            top = max(1e-6, float(cam.max()))
            cams.append(Strip(side, None, dict(zip(rows, cam, strict=True)), 0, top))
        maps = recording.gates_with(MAP)
        if maps:
            last = maps[-1]
            values = dict(zip(rows, gate_of(recording, last.name, rows), strict=True))
            gates.append(Strip(side, last, values, *scale_of(last, values.values())))
        else:
            missing.append(no_gate(recording, MAP))
    return [*cams, *gates], list(dict.fromkeys(missing))  # networks may have the same name


register_plot(
    Plot(
        name="disagreements",
        title="Disagreements",
        about="Images that only one network classifies correctly, with Grad-CAM and gates of both.",
        subject=Comparison,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=table,
        place=50,
    )
)
