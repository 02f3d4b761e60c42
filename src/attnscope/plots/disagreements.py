"""The images that one of two networks alone gets right, and where both look in them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
)
from attnscope.plots.maps import gate_of, grad_cam_of
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Pair, no_gate, no_grad_cam
from attnscope.plots.text import shorten
from attnscope.plots.titles import drawn_names, short_pair, title_lines, two_names
from attnscope.recording.recording import Recording

_ALONE = 6  # images shown of those that one network alone gets right, for each network


@dataclass(frozen=True)
class Strip:
    """A map of each image that is shown, all on one scale."""

    side: int
    """0 for the first network, 1 for the second."""
    gate: Gate | None
    """None is Grad-CAM. It lies over the image; a gate stands by itself, where its low values are
    seen."""
    maps: Mapping[int, NDArray[Any]]
    """Row of the recording -> ``(h, w)``."""
    low: float
    high: float


@dataclass(frozen=True)
class Disagreements:
    """Images that one network alone gets right."""

    names: tuple[str, str]
    classes: Sequence[str]
    count: int
    """Images in all."""
    both: int
    """How many of them both networks get right."""
    alone: tuple[int, int]
    """How many each network alone gets right."""
    shown: tuple[Sequence[Mapping[Hashable, Any]], Sequence[Mapping[Hashable, Any]]]
    """Of `attnscope.statistics.disagreements` the rows that are drawn, for each network."""
    images: Mapping[int, NDArray[np.uint8]]
    """Row of the recording -> ``(H, W, 3)``."""
    strips: Sequence[Strip]
    """Grad-CAM of both networks, then their last spatial gates; those that there are."""
    missing: Sequence[str]
    """Sentences about those that there are not."""


def compute(pair: Pair) -> Disagreements:
    """Finds the images, and reads those of which both networks are most certain."""
    return between(pair, (pair.a.name, pair.b.name))


def between(pair: Pair, names: tuple[str, str]) -> Disagreements:
    """As `compute`, under names of one's own.

    Raises:
        InputError: the recordings are not of the same images.
    """
    a, b = pair.a, pair.b
    different = statistics.disagreements(a, b)
    # Some of each network: where one is much better, few of the other's would be among the first.
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
    """One map of one image.

    Args:
        ax: where.
        strip: of `Disagreements`.
        row: of the recording.
        image: below Grad-CAM.
    """
    heat = strip.maps[row]
    if strip.gate is not None:
        return draw_map(ax, heat, low=strip.low, high=strip.high)
    draw_overlay(ax, image, heat, low=strip.low, high=strip.high)
    if not heat.any():
        draw_blank_reason(ax, "nowhere above 0")
    return ax


def lay_out(found: Disagreements) -> list[Figure]:
    """A band for each network, of its images above their maps."""
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
    text = [f"Right in one network alone: {names[0]} and {names[1]}", *found.missing]
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
            said = about["prediction_b" if about["right"] == "a" else "prediction_a"]
            words = f"is {shorten(drawn[about['label']])}\ntaken for {shorten(drawn[said], 14)}"
            row = int(about["row"])
            draw_image(column[0], found.images[row], words)
            for ax, strip in zip(column[1:], found.strips, strict=True):
                draw(ax, strip, row, found.images[row])
        grid[0, 0].set_ylabel(f"only {name}\nis right", fontsize=7)
        for line, strip in zip(grid[1:], found.strips, strict=True):
            what = "Grad-CAM" if strip.gate is None else "last spatial gate"
            line[0].set_ylabel(f"{what}\n{short[strip.side]}", fontsize=7)
            draw_colorbar(line[0], "", list(line))
    figure.suptitle(title)
    return [figure]


def caption(found: Disagreements) -> str:
    """How many images one network alone gets right; also that there is none."""
    names = two_names(*found.names)
    if not found.images:
        return (
            f"Of {found.count:,} images none is right in one network alone: {names[0]} and "
            f"{names[1]} are right in the same {found.both:,}."
        )
    only_a, only_b = (f"{count:,}" if count else "none" for count in found.alone)
    shown = " and ".join(str(len(images) or "none") for images in found.shown)
    sentences = [
        f"Of {found.count:,} images {names[0]} alone gets {only_a} right, {names[1]} alone "
        f"{only_b}. Shown are {shown}, those first of which both networks are most certain."
    ]
    cams = [
        f"{names[strip.side]} from 0 to {strip.high:.3g}"
        for strip in found.strips
        if strip.gate is None
    ]
    if cams:
        # Two networks' Grad-CAM have no common unit, and here they name different classes.
        sentences.append(
            "Grad-CAM after its ReLU is of the class that the network itself names, so that the "
            f"two explain different classes; each has its own scale: {'; '.join(cams)}."
        )
    gates = [
        f"{strip.gate.name} of {names[strip.side]}, bounds {strip.low:g} to {strip.high:g}, here "
        f"{min(each.min() for each in strip.maps.values()):.3g} to "
        f"{max(each.max() for each in strip.maps.values()):.3g}"
        for strip in found.strips
        if strip.gate is not None
    ]
    if gates:
        sentences.append(f"Last spatial gates, raw on their own bounds: {'; '.join(gates)}.")
    return " ".join([*sentences, *found.missing])


def _strips(
    pair: tuple[Recording, Recording], rows: Sequence[int]
) -> tuple[list[Strip], list[str]]:
    """Both networks' Grad-CAM and last spatial gates; what is missing of them."""
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
            gates.append(Strip(side, last, values, last.lo, last.hi))
        else:
            missing.append(no_gate(recording, MAP))
    return [*cams, *gates], missing


register_plot(
    Plot(
        name="disagreements",
        title="Disagreements",
        about="The images that one network alone gets right, and where both look in them.",
        subject=Pair,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        place=50,
    )
)
