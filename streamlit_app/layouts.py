"""Grids of chosen images, maps and channels, drawn as PNG with functions of ``attnscope.plots``."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from grids import DPI as DPI
from grids import Column as Column
from grids import colors_of, grid_png
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnscope.plots.theme import EMPTY, style

WIDEST = 1460
"""Most pixels in a row of a picture that `st.image` sends as it is."""
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
    alpha = np.where(known, 0.15 + 0.65 * share, 0)[..., None]
    colors = 255 * colors_of(cmap)[(share * 255).round().astype(int)]
    mixed = gray[..., None] * (1 - alpha) + colors * alpha
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


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
