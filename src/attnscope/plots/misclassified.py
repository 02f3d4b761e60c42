"""The images that the network gets wrong, the most confident first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.plots.images import (
    draw_blank_reason,
    draw_colorbar,
    draw_image,
    draw_overlay,
    top_of,
)
from attnscope.plots.maps import grad_cam_of
from attnscope.plots.registry import Note, Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.text import as_percent, shorten
from attnscope.plots.titles import drawn_names, title_of
from attnscope.recording.recording import Recording

_MISTAKES = 12
_COLUMNS = 6


@dataclass(frozen=True)
class Misclassified:
    """The most confident mistakes."""

    of: Identity
    classes: Sequence[str]
    count: int
    """How many images are misclassified."""
    shown: pd.DataFrame
    """Of `attnscope.statistics.misclassified` the rows that are drawn."""
    images: Sequence[NDArray[np.uint8]]
    grad_cam: NDArray[np.float32] | None
    """``(images, h, w)``, after the ReLU."""


def compute(recording: Recording) -> Misclassified | Note:
    """Reads the most confident mistakes."""
    wrong = statistics.misclassified(recording)
    if wrong.empty:
        text = f"None of the {len(recording):,} images is misclassified."
        return Note(text, identity(recording))
    shown = wrong.head(_MISTAKES)
    rows = shown["row"].tolist()
    return Misclassified(
        identity(recording),
        recording.classes,
        len(wrong),
        shown,
        [recording.image(i) for i in rows],
        grad_cam_of(recording, rows),
    )


def lay_out(mistakes: Misclassified) -> list[Figure]:
    """Bands of six images, each above its Grad-CAM."""
    cams = mistakes.grad_cam
    top = top_of(cams) if cams is not None else 1.0
    bands = -(-len(mistakes.images) // _COLUMNS)
    panels = 1 if cams is None else 2
    figure = Figure(figsize=(9.5, 0.5 + bands * (0.42 + 1.4 * panels)), layout="compressed")
    axes = figure.subplots(bands * panels, _COLUMNS, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    heat_axes: list[Axes] = []
    names, shown = drawn_names(mistakes.classes), mistakes.shown
    true, said = ([names[c] for c in shown[column]] for column in ("label", "prediction"))
    for k, (image, sure) in enumerate(zip(mistakes.images, shown["confidence"], strict=True)):
        band, column = divmod(k, _COLUMNS)
        ax = axes[band * panels, column]
        title = f"is {shorten(true[k])}\nsaid {shorten(said[k])}, {as_percent(sure)}"
        draw_image(ax, image, title).set_axis_on()
        if cams is not None:
            below = axes[band * panels + 1, column]
            draw_overlay(below, image, cams[k], low=0, high=top).set_axis_on()
            if not cams[k].any():
                draw_blank_reason(below, "nowhere above 0")
            heat_axes.append(below)
    if heat_axes:
        draw_colorbar(heat_axes[0], "Grad-CAM after its ReLU", list(axes.ravel()))
    figure.suptitle(f"The most confident mistakes of {title_of(mistakes.of)}")
    return [figure]


def caption(mistakes: Misclassified) -> str:
    """How many there are, and which are shown."""
    shown, total = mistakes.shown, mistakes.of.images
    text = (
        f"{mistakes.count:,} of {total:,} images are misclassified "
        f"({as_percent(mistakes.count / total)}); shown are the {len(shown)} with the highest "
        f"confidence, from {as_percent(shown['confidence'].max())} down to "
        f"{as_percent(shown['confidence'].min())}."
    )
    if mistakes.grad_cam is not None:
        text += (
            " Below each: Grad-CAM of the predicted class after its ReLU, all on one scale from 0 "
            f"to {top_of(mistakes.grad_cam):.3g}, interpolated to the picture."
        )
    return text


register_plot(
    Plot(
        name="misclassified",
        title="Misclassified",
        about="The images that the network gets wrong, the most confident first.",
        subject=Recording,
        compute=compute,
        draw=draw_image,
        lay_out=lay_out,
        caption=caption,
        heading="Misclassified images",
        place=100,
    )
)
