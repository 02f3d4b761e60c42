"""Training images as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from attnscope.errors import InputError, first_line
from attnscope.layout import TRAINING_IMAGES
from attnscope.plots import needs
from attnscope.plots.images import draw_image
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.text import shorten
from attnscope.plots.theme import drawable_names
from attnscope.plots.titles import name_of
from attnscope.recording.recording import Recording
from attnscope.runs import Run

_COLUMNS = 8


@dataclass(frozen=True)
class TrainingImages:
    """Images after augmentation, before normalization."""

    name: str
    images: NDArray[np.uint8]
    """``(N, H, W, 3)``"""
    labels: NDArray[Any]
    """``(N,)``"""
    classes: Sequence[str]
    """Names of the classes; empty if the run does not say them, and labels are shown instead."""


def compute(recording: Recording) -> TrainingImages:
    """Read the images that training saved."""
    run = Run.holding(recording)
    assert run is not None  # otherwise the need of its file is not met
    file = run.training_images_file
    try:
        arrays = load_file(file)
        images = arrays["images"].transpose(0, 2, 3, 1)
        if images.shape[-1] != 3:  # gray, or of more channels, the first three of which are shown
            images = images[..., [0, 0, 0] if images.shape[-1] < 3 else [0, 1, 2]]
        labels = arrays["labels"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            "AS913",
            f"{file} cannot be read ({first_line(error)}); restore it or train the run again",
        ) from None
    classes = run.config.get("classes", [])
    return TrainingImages(recording.name, images, labels, classes)


def lay_out(shown: TrainingImages) -> list[Figure]:
    """Draw the images in rows, each under the name of its class."""
    rows = -(-len(shown.images) // _COLUMNS)
    figure = Figure(figsize=(8.5, 0.5 + 1.15 * rows), layout="compressed")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for ax in axes[len(shown.images) :]:
        ax.set_axis_off()
    classes = drawable_names(shown.classes)
    for ax, image, label in zip(axes, shown.images, shown.labels, strict=False):
        draw_image(ax, image, shorten(classes[label] if label < len(classes) else label))
    figure.suptitle(f"Training images before normalization: {name_of(shown.name)}")
    return [figure]


def caption(shown: TrainingImages) -> str:
    """Say how many images there are, and their size."""
    size = f"{shown.images.shape[2]} × {shown.images.shape[1]}"
    return (
        f"{len(shown.images)} training images of {size} pixels after augmentation, before "
        "normalization."
    )


register_plot(
    Plot(
        name="training_images",
        title="Training images",
        about="Training images as the network sees them, after augmentation.",
        subject=Recording,
        compute=compute,
        draw=draw_image,
        lay_out=lay_out,
        caption=caption,
        needs=(needs.run_file(TRAINING_IMAGES),),
        place=20,
    )
)
