"""Grids of chosen images, maps and channels, drawn as PNG with functions of ``attnscope.plots``."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnscope.plots.images import draw_colorbar, draw_image, draw_map, draw_overlay
from attnscope.plots.theme import EMPTY, GATE_MAP, GRAD_CAM_MAP, style

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
    """Return a map over an image as PNG, about as large as `enlarged` makes the image."""
    height, width = image.shape[:2]
    scale = MIN_SIDE / min(height, width) / DPI

    def fill(figure: Figure) -> None:
        ax = figure.add_axes((0, 0, 1, 1))
        draw_overlay(ax, image, heat, low=low, high=high, cmap=cmap)

    return _png(width * scale, height * scale, fill, layout=None)


def binned(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Average neighbors so that neither side of a matrix is longer than ``most``; NaN is no value.

    Args:
        values: ``(rows, columns)``.
        most: longest side of the result.
    """
    for axis in (0, 1):
        size = values.shape[axis]
        times = -(-size // most)
        if times > 1:
            missing = -size % times
            ends = [(0, 0), (0, 0)]
            ends[axis] = (0, missing)
            padded = np.pad(values, ends, constant_values=np.nan)
            shape = list(padded.shape)
            shape[axis : axis + 1] = [padded.shape[axis] // times, times]
            grouped = padded.reshape(shape)
            known = np.isfinite(grouped)
            count = known.sum(axis + 1)
            total = np.where(known, grouped, 0).sum(axis + 1)
            values = np.divide(total, count, np.full(total.shape, np.nan), where=count > 0)
    return values


def colored(
    values: NDArray[Any],
    low: float,
    high: float,
    cmap: str,
    *,
    width: int,
    height: int,
    square: bool = False,
) -> bytes:
    """Return a matrix as PNG with one rectangle per value, enlarged without interpolation.

    Args:
        values: ``(rows, columns)``; NaN is drawn gray.
        low: value of the first color.
        high: value of the last color.
        cmap: name of a color map of matplotlib.
        width: smallest width, in pixels.
        height: smallest height, in pixels.
        square: whether each value is a square.
    """
    colors = matplotlib.colormaps[cmap].with_extremes(bad=EMPTY)
    span = high - low if high > low else 1.0
    shares = np.ma.masked_invalid((np.asarray(values, np.float64) - low) / span)
    pixels = colors(shares.clip(0, 1), bytes=True)[..., :3]
    down, right = -(-height // pixels.shape[0]), -(-width // pixels.shape[1])
    if square:
        down = right = max(down, right)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.repeat(down, 0).repeat(right, 1))).save(
        buffer, "png"
    )
    return buffer.getvalue()


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
