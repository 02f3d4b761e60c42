"""Marks with their intervals."""

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
    label: str = "",
    p: str = "",
) -> Axes:
    """Marks of one series over x; where p is given, only those that are significant are filled.

    Args:
        ax: where.
        x: place of each row.
        frame: one row a mark.
        value: the column of the marks.
        low: the column where their intervals begin.
        high: the column where these end.
        side: 0 or 1: color and form of the first or the second series.
        label: in the legend.
        p: the column of their p values.
    """
    middle = frame[value].to_numpy(float)
    spread = np.array([middle - frame[low].to_numpy(float), frame[high].to_numpy(float) - middle])
    full = significant(frame[p]) if p else np.ones(len(x), bool)
    color, form = NETWORK_COLORS[side], "os"[side]
    ax.errorbar(
        x, middle, yerr=np.maximum(np.nan_to_num(spread), 0), fmt="none", color=color,
        elinewidth=1.2, capsize=2,
    )  # fmt: skip
    # The label is that of a filled mark, whether there is one or not.
    ax.plot(x[full], middle[full], form, color=color, markersize=5, label=label or None)
    ax.plot(x[~full], middle[~full], form, color=color, markerfacecolor="white", markersize=5)
    return ax
