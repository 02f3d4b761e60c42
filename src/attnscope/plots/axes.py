"""Axes that several plots share: labels that fit, classes in rows, gates over depth, measures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.transforms import Bbox

from attnscope.plots.text import short_names, shorten, with_minus
from attnscope.plots.theme import INK

IN_ORDER = "gate (in forward order)"
"""Label of an axis of gates."""
_BESIDE = 0.2
"""Room beside the places of all gates, where each gate has a width of 1."""
_MEASURES = {"spearman": "Spearman correlation", "iou": "IoU of the top 20%"}


def label_axis(axis: Axis, texts: Sequence[str]) -> None:
    """Set labels at 0, 1, 2 ...; labels that would overlap get smaller, then every n-th is kept."""
    size = 7.5 if thinning(axis, len(texts), 10) == 1 else 6.0
    step = thinning(axis, len(texts), size + 1.5)
    places = range(0, len(texts), step)
    horizontal = isinstance(axis, XAxis)
    slanted = horizontal and max((len(texts[i]) for i in places), default=0) > 2
    axis.set_ticks(
        list(places),
        labels=[shorten(texts[i], 22) for i in places],
        rotation=45 if slanted else 0,
        ha=("right" if slanted else "center") if horizontal else "right",
        rotation_mode="anchor" if slanted else "default",
        fontsize=size,
    )


def thinning(axis: Axis, count: int, points: float) -> int:
    """Return the n of which every n-th label fits, if each label needs ``points``."""
    ax = axis.axes
    assert isinstance(ax, Axes)
    box = ax.get_window_extent()
    size = box.width if isinstance(axis, XAxis) else box.height
    return math.ceil(count * points / max(1.0, size / ax.figure.dpi * 72))


def over_gates(ax: Axes, gates: Sequence[str]) -> Axes:
    """Label gates from left to right at 0, 1, 2 ..., with room for marks beside each."""
    label_axis(ax.xaxis, short_names(gates))
    ax.set_xlim(-0.5 - _BESIDE / 2, len(gates) - 0.5 + _BESIDE / 2)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    return ax


def as_wide_as_gates(ax: Axes, gates: int, places: int) -> None:
    """Make the panel of `over_gates` narrower, so that each gate lies above the same gate below.

    Args:
        ax: the panel, which shows fewer gates than the panels of the same column.
        gates: number of gates of this panel.
        places: number of gates of the other panels, of which the first are the same.
    """
    share = (gates + _BESIDE) / (places + _BESIDE)

    def narrow(box: Bbox) -> Bbox:
        return Bbox.from_bounds(box.x0, box.y0, share * box.width, box.height)

    ax.set_axes_locator(lambda panel, _: narrow(panel.get_position(original=True)))


def class_rows(ax: Axes, classes: Sequence[str]) -> Axes:
    """Label classes from top to bottom; a line separates the first row, all classes together."""
    ax.set_ylim(len(classes) - 0.4, -0.6)
    label_axis(ax.yaxis, classes)
    ax.axhline(0.5, color="#888888", linewidth=0.6)
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    return ax


def row_height(frame: pd.DataFrame) -> float:
    """Return the height in inches that a panel needs for a line for each row."""
    return max(1.6, (0.23 if len(frame) <= 40 else 0.13) * len(frame))


def measure_axis(axis: Axis, ax: Axes, measure: str) -> None:
    """Label an axis of ``spearman``, with a line at 0, or of ``iou``."""
    if measure == "spearman":
        line = ax.axvline if isinstance(axis, XAxis) else ax.axhline
        line(0, color=INK, linewidth=0.6)
    axis.set_label_text(_MEASURES[measure])


def percent_tick(share: float, position: float) -> str:
    """Format a tick label in percent (a formatter function of matplotlib)."""
    return f"{100 * share:.3g}%"


def points_tick(difference: float, position: float) -> str:
    """Format a tick label of a difference of two shares, in percentage points."""
    return with_minus(f"{100 * difference:.3g}")
