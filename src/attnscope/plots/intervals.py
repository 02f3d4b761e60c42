"""Marks with confidence intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.statistics.inference import significant


def draw_intervals(
    ax: Axes,
    x: NDArray[Any],
    frame: pd.DataFrame,
    value: str,
    *,
    low: str,
    high: str,
    side: int = 0,
    color: str = "",
    form: str = "",
    label: str = "",
    p: str = "",
) -> Axes:
    """Draw the marks of one series with their intervals; with p, only significant ones are filled.

    Args:
        ax: the Axes to draw on.
        x: ``(rows,)``, the position of each mark.
        frame: a table with one row for each mark.
        value: name of the column of the values.
        low: name of the column of the lower ends of the intervals.
        high: name of the column of the upper ends.
        side: 0 or 1, for the color and the marker of the first or the second series.
        color: the color; empty for that of ``side``.
        form: the marker; empty for that of ``side``.
        label: the entry in the legend.
        p: name of the column of the p values; empty for marks without a test.
    """
    middle = frame[value].to_numpy(float)
    spread = np.array([middle - frame[low].to_numpy(float), frame[high].to_numpy(float) - middle])
    full = significant(frame[p]) if p else np.ones(len(x), bool)
    color, form = color or NETWORK_COLORS[side], form or "os"[side]
    ax.errorbar(
        x, middle, yerr=np.maximum(np.nan_to_num(spread), 0), fmt="none", color=color,
        elinewidth=1.2, capsize=2,
    )  # fmt: skip
    # The legend shows the mark of a series as it is without a finding, even if none is drawn so.
    names = (None, label or None) if p else (label or None, None)
    ax.plot(x[full], middle[full], form, color=color, markersize=5, label=names[0])
    ax.plot(
        x[~full], middle[~full], form, color=color, markerfacecolor="white", markersize=5,
        label=names[1],
    )  # fmt: skip
    return ax


def filled_mark() -> Line2D:
    """Return the entry of a legend that says what the filled marks of `draw_intervals` mean."""
    return Line2D(
        [], [], marker="o", linestyle="none", color=INK, markersize=5, label="filled: significant"
    )
