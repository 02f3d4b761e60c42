"""Images and maps on an Axes, the color scales that maps share, and a color bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from attnscope.kinds import Gate
from attnscope.plots.text import in_lines, shorten, with_minus
from attnscope.plots.theme import EMPTY, GATE_MAP, GRAD_CAM_MAP


def draw_note(ax: Axes, text: str) -> Axes:
    """Write on the Axes why there is nothing to draw."""
    ax.set_axis_off()
    ax.text(
        0.5,
        0.5,
        text,
        ha="center",
        va="center",
        wrap=True,
        color="#555555",
        fontsize=10,
        transform=ax.transAxes,
    )
    return ax


def draw_image(ax: Axes, image: NDArray[np.uint8], title: str = "") -> Axes:
    """Draw an image, ``(H, W, 3)`` uint8, without interpolation."""
    ax.imshow(image, interpolation="nearest")
    _bare(ax, title)
    return ax


def draw_map(
    ax: Axes,
    values: NDArray[Any],
    *,
    low: float,
    high: float,
    title: str = "",
    cmap: str = GATE_MAP,
) -> Axes:
    """Draw a map ``(h, w)`` on the color scale from ``low`` to ``high``, without interpolation.

    A map of one row or one column is drawn as a square, with its values as a curve from ``low`` to
    ``high``.
    """
    show(ax, values, low, high, cmap)
    if 1 in values.shape and values.size > 1:
        ax.set_aspect("auto")
        ax.set_box_aspect(1)
        _draw_curve(ax, values, low, high)
    else:
        ax.set_aspect("equal")
    _bare(ax, title)
    return ax


def draw_overlay(
    ax: Axes,
    image: NDArray[np.uint8],
    heat: NDArray[Any],
    *,
    low: float,
    high: float,
    title: str = "",
    cmap: str = GRAD_CAM_MAP,
) -> Axes:
    """Draw a map over an image: ``heat`` ``(h, w)`` over ``image`` ``(H, W, 3)`` in gray.

    The image is gray, so that every color belongs to the map. The map is interpolated to the size
    of the image, and higher values are more opaque.
    """
    height, width = image.shape[:2]
    gray = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    ax.imshow(gray, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.imshow(
        heat,
        cmap=cmap,
        vmin=low,
        vmax=high,
        alpha=0.15 + 0.65 * np.clip((heat - low) / (high - low), 0, 1),
        interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    _bare(ax, title)
    return ax


def draw_blank_reason(ax: Axes, text: str) -> Axes:
    """Write on a map why it has one color."""
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=6,
        color="white",
        bbox={"facecolor": "#00000088", "edgecolor": "none", "boxstyle": "round,pad=0.3"},
    )
    return ax


def draw_colorbar(shown: Axes, label: str, beside: Sequence[Axes]) -> Colorbar:
    """Draw the color bar of the last image of ``shown`` next to the Axes ``beside``."""
    figure = shown.figure
    assert isinstance(figure, FigureBase)
    image = shown.images[-1]
    # A separate mappable, since the bar would take over the transparency of an overlay.
    colors = ScalarMappable(image.norm, image.cmap)
    places = [ax.get_position() for ax in beside]
    height = (
        (max(p.y1 for p in places) - min(p.y0 for p in places)) * figure.bbox.height / figure.dpi
    )
    length = min(height, 2.6)
    label = in_lines([label], max(10, int(13 * length)))  # about 13 characters in an inch
    bar = figure.colorbar(
        colors,
        ax=list(beside),
        label=label,
        shrink=length / height,
        aspect=length / 0.13,  # 0.13 inches wide at any height of the figure
        anchor=(0.0, 1.0),
        pad=0.01,
    )
    low, high = image.get_clim()
    inner = [t for t in MaxNLocator(4).tick_values(low, high) if low < t < high]
    ticks = [low, *(t for t in inner if min(t - low, high - t) > 0.12 * (high - low)), high]
    bar.set_ticks(ticks, labels=[_tick_label(t, high - low) for t in ticks])
    bar.outline.set_visible(False)
    return bar


def _tick_label(value: float, width: float) -> str:
    """Return a tick to about a hundredth of the width of its scale: ``0``, not ``4.43e-06``."""
    decimals = max(0, 2 - math.floor(math.log10(width)))
    text = f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.3g}"
    text = text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
    return with_minus("0" if text == "-0" else text)


def show(ax: Axes, values: NDArray[Any], low: float, high: float, cmap: str) -> Any:
    """Draw an array on a color scale from ``low`` to ``high``; NaN is gray."""
    colors = matplotlib.colormaps[cmap].with_extremes(bad=EMPTY)
    ax.spines[:].set_visible(False)
    return ax.imshow(values, cmap=colors, vmin=low, vmax=high, interpolation="nearest")


def row_name(ax: Axes, name: str) -> None:
    """Write a name to the left of the first Axes of a row."""
    ax.set_ylabel(shorten(name), rotation=0, ha="right", va="center", labelpad=4, fontsize=7.5)


def shared_scale(maps: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the ends of the color scale that all maps share; its width is never 0."""
    values = np.concatenate([each.ravel() for each in maps])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high - low > 1e-6 else (low - 0.01, high + 0.01)


def top_of(values: NDArray[Any]) -> float:
    """Return the upper end of a color scale that starts at 0."""
    return max(float(np.nanmax(values)), 1e-6)


def scale_of(gate: Gate, values: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the ends of a gate's color scale: its bounds, or the range of values without them."""
    return (gate.lo, gate.hi) if gate.bounded else shared_scale(values)


def bounds_of(gates: Sequence[Gate]) -> str:
    """Return the common bounds of several gates as text: ``bounds 0 to 1``."""
    low, high = min(g.lo for g in gates), max(g.hi for g in gates)
    bounded = all(gate.bounded for gate in gates)
    return f"bounds {low:g} to {high:g}" if bounded else "no bounds"


def _draw_curve(ax: Axes, values: NDArray[Any], low: float, high: float) -> None:
    """Draw the values of one row from bottom to top, or those of one column from left to right."""
    share = (values.ravel() - low) / (high - low) - 0.5  # the single row is from -0.5 to 0.5
    at = np.arange(values.size)
    x, y = (at, -share) if values.shape[0] == 1 else (share, at)
    ax.plot(x, y, color="black", linewidth=2.2)
    ax.plot(x, y, color="white", linewidth=1.1)


def _bare(ax: Axes, title: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_title(title, loc="center", fontsize=7.5, pad=3)
