"""Misclassified images, the most confident ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

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
from attnscope.plots.text import as_interval, as_percent, shorten
from attnscope.plots.titles import drawn_names, title_of
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import mean_share_interval

_MISTAKES = 12
_COLUMNS = 6


@dataclass(frozen=True)
class Misclassified:
    """The misclassified images with the highest confidence."""

    of: Identity
    classes: Sequence[str]
    count: int
    """Number of misclassified images."""
    shown: pd.DataFrame
    """The rows of `attnscope.statistics.misclassified` that are drawn."""
    images: Sequence[NDArray[np.uint8]]
    grad_cam: NDArray[np.float32] | None
    """``(images, h, w)``, after the ReLU; None if it was not recorded."""


def compute(recording: Recording) -> Misclassified | Note:
    """Read the misclassified images with the highest confidence."""
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
    """Draw rows of six images, each above its Grad-CAM."""
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
    true, predicted = ([names[c] for c in shown[column]] for column in ("label", "prediction"))
    for k, (image, sure) in enumerate(zip(mistakes.images, shown["confidence"], strict=True)):
        band, column = divmod(k, _COLUMNS)
        ax = axes[band * panels, column]
        title = f"true: {shorten(true[k])}\npred.: {shorten(predicted[k], 14)} ({as_percent(sure)})"
        draw_image(ax, image, title).set_axis_on()
        if cams is not None:
            below = axes[band * panels + 1, column]
            draw_overlay(below, image, cams[k], low=0, high=top).set_axis_on()
            if not cams[k].any():
                draw_blank_reason(below, "0 everywhere")
            heat_axes.append(below)
    if heat_axes:
        draw_colorbar(heat_axes[0], "Grad-CAM after the ReLU", list(axes.ravel()))
    figure.suptitle(f"Misclassified with the highest confidence: {title_of(mistakes.of)}")
    return [figure]


def caption(mistakes: Misclassified) -> str:
    """Count the misclassified images, and say which are shown."""
    shown, total = mistakes.shown, mistakes.of.images
    low, high = mean_share_interval(np.array([mistakes.count / total]), np.array([total]))
    text = (
        f"Misclassified images with the true class, the predicted class and its confidence. "
        f"{mistakes.count:,} of {total:,} images are misclassified "
        f"({as_percent(mistakes.count / total)}, {as_interval(low, high, as_percent)}). The figure "
        f"shows the {len(shown)} with the highest confidence, "
        f"{as_percent(shown['confidence'].max())} to {as_percent(shown['confidence'].min())}."
    )
    if mistakes.grad_cam is not None:
        text += (
            " Below each image: Grad-CAM of the predicted class after the ReLU, interpolated to "
            "the size of the image, on one color scale from 0 to "
            f"{top_of(mistakes.grad_cam):.3g}."
        )
    return text


register_plot(
    Plot(
        name="misclassified",
        title="Misclassified",
        about="Misclassified images, the most confident ones first.",
        subject=Recording,
        compute=compute,
        draw=draw_image,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("shown"),
        heading="Misclassified images",
        place=100,
    )
)
