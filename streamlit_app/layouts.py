"""Grids of chosen images, maps and channels, drawn as PNG with functions of ``attnscope.plots``."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from grids import DPI as DPI
from grids import Column as Column
from grids import grid_png
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnscope.plots.builtin.channel_gates import draw, draw_differences
from attnscope.plots.images import draw_colorbar, draw_overlay
from attnscope.plots.theme import style
from attnscope.plots.titles import with_drawn_names

MIN_SIDE = 192
"""Smallest side of an image in a gallery, in pixels. Smaller images are enlarged here without
interpolation because a browser would blur them."""


def enlarged(image: NDArray[np.uint8]) -> bytes:
    """Return an image as PNG, enlarged without interpolation so that no side is below `MIN_SIDE`.

    Args:
        image: ``(height, width, 3)``.
    """
    times = max(1, -(-MIN_SIDE // min(image.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(image.repeat(times, 0).repeat(times, 1)).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def overlay(
    image: NDArray[np.uint8], heat: NDArray[Any], low: float, high: float, cmap: str
) -> bytes:
    """Return a map over an image as PNG, about as large as `enlarged` makes the image."""
    height, width = image.shape[:2]
    scale = MIN_SIDE / min(height, width) / DPI

    def fill(figure: Figure) -> None:
        ax = figure.add_axes((0, 0, 1, 1))
        draw_overlay(ax, image, heat, low=low, high=high, cmap=cmap)

    return _png(width * scale, height * scale, fill, layout=None)


def channels(
    profiles: pd.DataFrame, low: float, high: float, order: Sequence[int] | None, ranked: str
) -> bytes:
    """Draw the mean gate of each class and channel, and below it the differences of the classes.

    Args:
        profiles: of `attnscope.statistics.class_profiles`.
        low: lower bound of the gate.
        high: upper bound of the gate.
        order: channels from left to right. None: by number.
        ranked: label of the horizontal axis.
    """
    profiles = with_drawn_names(profiles, list(dict.fromkeys(profiles["class"])))
    middle = profiles.groupby("channel")["mean"].transform("mean")
    limit = float(np.nanmax((profiles["mean"] - middle).abs(), initial=1e-6))
    tall = 0.75 + 0.17 * min(profiles["class"].nunique(), 30)

    def fill(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1)
        title = "Mean gate per class and channel (color scale: bounds of the gate)"
        draw(top, profiles, low=low, high=high, order=order, title=title)
        draw_colorbar(top, "gate", [top])
        title = "Difference from the channel's mean over all classes"
        draw_differences(bottom, profiles, limit=limit, order=order, title=title)
        draw_colorbar(bottom, "difference", [bottom])
        bottom.set_xlabel(ranked)

    return _png(11, 2 * tall, fill)


def map_grid(
    names: Sequence[str], images: Sequence[NDArray[np.uint8]], columns: Sequence[Column]
) -> bytes:
    """Draw one row per name: the image, if images are given, and the map of each column."""
    return grid_png(names, images, columns)


def _png(
    width: float,
    height: float,
    fill: Callable[[Figure], None],
    layout: Literal["constrained"] | None = "constrained",
) -> bytes:
    with style():
        figure = Figure((width, height), layout=layout)
        fill(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
