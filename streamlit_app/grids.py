"""Grids of images and maps: one row per image, one column per gate, drawn as one picture.

Each cell is composed as pixels, because an Axes of its own for each of a hundred cells takes
seconds.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnscope.plots.theme import EMPTY, GATE_MAP, GRAD_CAM_MAP, INK, style

DPI = 144
"""Pixels per inch of the grid; letters are drawn for it."""
_GAP = 6  # pixels between cells
_FONT = 7.5  # points
_FRAME = "#b5b5b5"
_WIDEST = int(8.2 * DPI)  # pixels of all cells of a row, about


@dataclass(frozen=True)
class Column:
    """One column of a grid: one map per row."""

    title: str
    maps: NDArray[Any] | Sequence[NDArray[Any]]
    """One map ``(h, w)`` per row."""
    low: float
    high: float
    grad_cam: bool
    """Whether the maps are Grad-CAM; otherwise they are gates."""
    is_over: bool | tuple[bool, ...] = False
    """Whether the maps are drawn over the images, if there are any; or that for each row."""

    @property
    def cmap(self) -> str:
        """Name of the colormap."""
        return GRAD_CAM_MAP if self.grad_cam else GATE_MAP


class _Pixels(Artist):
    """Draws pixels as they are: an image of matplotlib is resampled first, which takes longer."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        super().__init__()
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        self._pixels = np.dstack([pixels, opaque])

    def draw(self, renderer: RendererBase) -> None:
        renderer.draw_image(renderer.new_gc(), 0, 0, self._pixels[::-1])


def grid_figure(
    names: Sequence[str], images: Sequence[NDArray[np.uint8]], columns: Sequence[Column]
) -> Figure:
    """Draw one row per name: the image, if images are given, and the map of each column.

    Args:
        names: label of each row; a line break is kept.
        images: ``(height, width, 3)`` each; empty for none.
        columns: the maps. Columns of one kind that follow each other share a color bar.
    """
    shift = 1 if len(images) else 0
    count = shift + len(columns)
    side = int(min(1.25 * DPI, _WIDEST / count))
    titles = [*(["image"] if shift else []), *(column.title for column in columns)]
    longest = max(_text_width(line) for title in titles for line in title.split("\n"))
    is_turned = longest > side
    top = (
        int(0.62 * longest + 0.2 * DPI)
        if is_turned
        else int((0.08 + 0.14 * (1 + max(t.count("\n") for t in titles))) * DPI)
    )
    lines = [line for name in names for line in name.split("\n")]
    left = int(max(map(_text_width, lines), default=0)) + 16
    bars = _bars(columns)
    bar_width = int(0.75 * DPI)
    overhang = int(0.8 * _text_width(titles[-1])) if is_turned else 0
    width = left + count * (side + _GAP) + max(bar_width * len(bars), overhang) + 8
    height = top + len(names) * (side + _GAP) + 8
    canvas = np.full((height, width, 3), 255, np.uint8)  # matplotlib draws bytes faster
    places: dict[tuple[int, int], tuple[int, int]] = {}
    for i in range(len(names)):
        for j in range(count):
            x, y = left + j * (side + _GAP), top + i * (side + _GAP)
            places[i, j] = x, y
            if j < shift:
                cell = _resized(images[i] / 255, side)
            else:
                column = columns[j - shift]
                is_over = column.is_over
                if isinstance(is_over, tuple):
                    is_over = is_over[i]
                over = images[i] if shift and is_over else None
                cell = _cell(np.asarray(column.maps[i]), column, over, side)
            _paste(canvas, cell, x, y, side)
    bar_x = left + count * (side + _GAP) + 10
    bar_height = min(height - top - 8, 2 * side)
    for number, column in enumerate(bars):
        ramp = matplotlib.colormaps[column.cmap](np.linspace(1, 0, bar_height))[:, None, :3]
        x = bar_x + number * bar_width
        canvas[top : top + bar_height, x : x + 14] = _bytes(ramp)
    with style():
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.set_axis_off()
        figure.add_artist(_Pixels(canvas))
        for j, title in enumerate(titles):
            start = places[0, j][0]
            if is_turned:
                _write(ax, start + side / 3, top - 6, title, ha="left", va="bottom", rotation=38)
            else:
                _write(ax, start + side / 2, top - 6, title, ha="center", va="bottom")
        for i, name in enumerate(names):
            _write(ax, left - 8, places[i, 0][1] + side / 2, name, ha="right", va="center")
        for number, column in enumerate(bars):
            beside = bar_x + number * bar_width + 20
            for share in (0, 0.5, 1):
                value = column.high + share * (column.low - column.high)
                at = top + share * bar_height
                va = ("top", "center", "bottom")[round(2 * share)]
                _write(ax, beside, at, f"{value:.3g}", ha="left", va=va)
            label = "Grad-CAM" if column.grad_cam else "gate"
            if not is_turned:
                _write(ax, beside - 20, top - 6, label, ha="left", va="bottom")
    return figure


def grid_png(
    names: Sequence[str], images: Sequence[NDArray[np.uint8]], columns: Sequence[Column]
) -> bytes:
    """Draw `grid_figure` as PNG."""
    return as_png(grid_figure(names, images, columns))


def as_png(figure: Figure) -> bytes:
    """Return a grid as PNG, compressed little, because that takes longer than all else."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def _bars(columns: Sequence[Column]) -> list[Column]:
    """Return one column for each color scale."""
    found: dict[tuple[str, float, float], Column] = {}
    for column in columns:
        found.setdefault((column.cmap, column.low, column.high), column)
    return list(found.values())


def _text_width(text: str) -> float:
    """Return about how wide a text is, in pixels."""
    return 0.58 * _FONT * len(text) * DPI / 72


def _write(ax: Axes, x: float, y: float, text: str, **options: Any) -> None:
    ax.text(
        x, y, text, fontsize=_FONT, color=INK, parse_math=False, rotation_mode="anchor", **options
    )


@cache
def colors_of(cmap: str) -> NDArray[np.float64]:
    """Return the 256 colors of a color map of matplotlib, ``(256, 3)``, 0 to 1.

    matplotlib makes a new color map at each access, which takes longer than coloring a map.
    """
    colors: NDArray[np.float64] = matplotlib.colormaps[cmap](np.arange(256))[:, :3]
    colors.flags.writeable = False
    return colors


def colored(values: NDArray[Any], low: float, high: float, cmap: str) -> NDArray[np.float64]:
    """Return a map ``(h, w)`` as colors from 0 to 1, ``(h, w, 3)``; NaN is gray."""
    span = high - low
    known = np.isfinite(values)
    shares = np.clip((values.astype(np.float64) - low) / (span if span > 0 else 1), 0, 1)
    # As matplotlib does: 256 equal parts, the last of which includes its end.
    places = np.minimum(256 * np.where(known, shares, 0), 255).astype(np.int64)
    colors: NDArray[np.float64] = colors_of(cmap)[places]
    colors[~known] = to_rgb(EMPTY)
    return colors


def _cell(
    values: NDArray[Any], column: Column, over: NDArray[np.uint8] | None, side: int
) -> NDArray[np.float64]:
    if over is None:
        return _resized(colored(values, column.low, column.high, column.cmap), side)
    gray = _resized((over / 255) @ np.array([0.299, 0.587, 0.114]), side)[..., None]
    smooth = Image.fromarray(values.astype(np.float32)).resize(
        (gray.shape[1], gray.shape[0]), Image.Resampling.BILINEAR
    )
    heat = np.asarray(smooth)
    span = column.high - column.low
    shares = np.clip((heat - column.low) / (span if span > 0 else 1), 0, 1)[..., None]
    alpha = 0.15 + 0.65 * np.nan_to_num(shares)
    return (1 - alpha) * gray + alpha * colored(heat, column.low, column.high, column.cmap)


def _resized(pixels: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Enlarge or shrink without interpolation, so that the longer side has ``side`` pixels.

    A map of one row or one column becomes a square of stripes.
    """
    height, width = pixels.shape[:2]
    if 1 in (height, width):
        tall = wide = side
    else:
        scale = side / max(height, width)
        tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    rows = np.arange(tall) * height // tall
    found: NDArray[np.float64] = pixels[rows][:, np.arange(wide) * width // wide]
    return found


def _bytes(colors: Any) -> NDArray[np.uint8]:
    """Return colors from 0 to 1 as bytes."""
    return np.rint(255 * np.asarray(colors, np.float64)).astype(np.uint8)


def _paste(canvas: NDArray[np.uint8], cell: NDArray[Any], x: int, y: int, side: int) -> None:
    """Put a cell into the middle of its place, with a frame around it."""
    height, width = cell.shape[:2]
    y, x = y + (side - height) // 2, x + (side - width) // 2
    canvas[y - 1 : y + height + 1, x - 1 : x + width + 1] = _bytes(to_rgb(_FRAME))
    canvas[y : y + height, x : x + width] = _bytes(cell)
