"""Marks with confidence intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from attnscope.plots.theme import NETWORK_COLORS
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
        form: the marker; empty for that of ``side``.
        label: the entry in the legend.
        p: name of the column of the p values; empty for marks without a test.
    """
    middle = frame[value].to_numpy(float)
    spread = np.array([middle - frame[low].to_numpy(float), frame[high].to_numpy(float) - middle])
    full = significant(frame[p]) if p else np.ones(len(x), bool)
    color, form = NETWORK_COLORS[side], form or "os"[side]
    ax.errorbar(
        x, middle, yerr=np.maximum(np.nan_to_num(spread), 0), fmt="none", color=color,
        elinewidth=1.2, capsize=2,
    )  # fmt: skip
    # The legend always shows a filled mark, even if no mark is filled.
    ax.plot(x[full], middle[full], form, color=color, markersize=5, label=label or None)
    ax.plot(x[~full], middle[~full], form, color=color, markerfacecolor="white", markersize=5)
    return ax
