"""Grids of chosen images, maps and channels, drawn as PNG with functions of ``attnscope.plots``."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnscope.plots.builtin.channel_gates import draw, draw_differences
from attnscope.plots.images import draw_colorbar, draw_image, draw_map, draw_overlay
from attnscope.plots.theme import GATE_MAP, GRAD_CAM_MAP, style
from attnscope.plots.titles import with_drawn_names

DPI = 144
"""Dots per inch: more than the page shows, so that letters are sharp on high-resolution screens."""

MIN_SIDE = 192
"""Smallest side of an image in a gallery, in pixels. Smaller images are enlarged here without
interpolation because a browser would blur them."""


@dataclass(frozen=True)
class Column:
    """One column of `map_grid`: one map per row."""

    title: str
    maps: NDArray[Any]
    low: float
    high: float
    grad_cam: bool
    """Whether the maps are Grad-CAM, which is drawn over the images; otherwise they are gates."""


def enlarged(image: NDArray[np.uint8]) -> bytes:
    """Return an image as PNG, enlarged without interpolation so that no side is below `MIN_SIDE`.

    Args:
        image: ``(height, width, 3)``.
    """
    times = max(1, -(-MIN_SIDE // min(image.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(image.repeat(times, 0).repeat(times, 1)).save(buffer, "png")
    return buffer.getvalue()


def overlay(
    image: NDArray[np.uint8], heat: NDArray[Any], low: float, high: float, cmap: str
) -> bytes:
    """Return a map over an image as PNG, as large as `enlarged` makes the image.

    It looks like `attnscope.plots.images.draw_overlay`, whose figures take twenty times as long: a
    gallery has many. Where the map has no value (NaN), the image is seen without it.
    """
    times = max(1, -(-MIN_SIDE // min(image.shape[:2])))
    gray = (image.astype(np.float64) @ (0.299, 0.587, 0.114)).repeat(times, 0).repeat(times, 1)
    smooth = Image.fromarray(np.asarray(heat, np.float32)).resize(
        (gray.shape[1], gray.shape[0]), Image.Resampling.BILINEAR
    )
    share = np.clip((np.asarray(smooth, np.float64) - low) / (high - low), 0, 1)
    known = np.isfinite(share)
    share = np.where(known, share, 0)
    colors = np.array(matplotlib.colormaps[cmap](np.arange(256))[:, :3]) * 255
    alpha = np.where(known, 0.15 + 0.65 * share, 0)[..., None]
    mixed = gray[..., None] * (1 - alpha) + colors[(share * 255).round().astype(int)] * alpha
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


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
    shift = 1 if len(images) else 0

    def draw_cell(ax: Axes, i: int, column: Column, title: str) -> None:
        heat, low, high = column.maps[i], column.low, column.high
        cmap = GRAD_CAM_MAP if column.grad_cam else GATE_MAP
        if column.grad_cam and shift:
            draw_overlay(ax, images[i], heat, low=low, high=high, title=title, cmap=cmap)
        else:
            draw_map(ax, heat, low=low, high=high, title=title, cmap=cmap)

    def fill(figure: Figure) -> None:
        axes = figure.subplots(len(names), shift + len(columns), squeeze=False)
        for i, name in enumerate(names):
            if shift:
                draw_image(axes[i, 0], images[i], title="" if i else "image")
            for j, column in enumerate(columns, start=shift):
                draw_cell(axes[i, j], i, column, "" if i else column.title)
            axes[i, 0].set_ylabel(
                name, rotation=0, ha="right", va="center", fontsize=7.5, labelpad=6
            )
        gates = [j for j, c in enumerate(columns, start=shift) if not c.grad_cam]
        cams = [j for j, c in enumerate(columns, start=shift) if c.grad_cam]
        if gates:
            beside = list(axes[:, : gates[-1] + 1].flat)
            draw_colorbar(axes[0, gates[0]], "gate", beside)
        for j in cams:
            beside = list(axes[:, (0 if j == cams[0] and not gates else j) : j + 1].flat)
            draw_colorbar(axes[0, j], "Grad-CAM", beside)

    count = shift + len(columns)
    side = min(1.35, 11 / count)
    return _png(side * count + 2.6, (side + 0.05) * len(names) + 0.3, fill)


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
