"""Some training images as the network got them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from attnscope.errors import InputError
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
    """Images after augmentation, with the normalization undone."""

    name: str
    images: NDArray[np.uint8]
    """``(N, H, W, 3)``"""
    labels: NDArray[Any]
    """``(N,)``, numbers of classes."""
    classes: Sequence[str]
    """Of the training; where the run does not say which there were, numbers stand for them."""


def compute(recording: Recording) -> TrainingImages:
    """Reads the images that the training kept."""
    run = Run.holding(recording)
    assert run is not None  # else the need for its file is not met
    file = run.training_images_file
    try:
        arrays = load_file(file)
        images = arrays["images"].transpose(0, 2, 3, 1)
        labels = arrays["labels"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); train again") from None
    classes = run.config.get("classes", [])
    return TrainingImages(recording.name, images, labels, classes)


def lay_out(shown: TrainingImages) -> list[Figure]:
    """The images in rows, each under the name of its class."""
    rows = -(-len(shown.images) // _COLUMNS)
    figure = Figure(figsize=(8.5, 0.5 + 1.15 * rows), layout="compressed")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for ax in axes[len(shown.images) :]:
        ax.set_axis_off()
    classes = drawable_names(shown.classes)
    for ax, image, label in zip(axes, shown.images, shown.labels, strict=False):
        draw_image(ax, image, shorten(classes[label] if label < len(classes) else label))
    figure.suptitle(f"Training images as {name_of(shown.name)} gets them, un-normalized")
    return [figure]


def caption(shown: TrainingImages) -> str:
    """How many, and how large."""
    size = f"{shown.images.shape[2]} × {shown.images.shape[1]}"
    return (
        f"{len(shown.images)} training images of {size} pixels after augmentation, with the "
        "normalization undone."
    )


register_plot(
    Plot(
        name="training_images",
        title="Training images",
        about="Some training images as the network gets them, after augmentation.",
        subject=Recording,
        compute=compute,
        draw=draw_image,
        lay_out=lay_out,
        caption=caption,
        needs=(needs.run_file(TRAINING_IMAGES),),
        place=20,
    )
)
