"""Marks with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attnscope.plots.intervals import draw_intervals
from attnscope.plots.theme import NETWORK_COLORS
from attnscope.statistics.inference import LEVEL

FRAME = pd.DataFrame(
    {
        "value": [0.1, 0.2, 0.3],
        "low": [0.0, np.nan, 0.1],
        "high": [0.3, np.nan, 0.4],
        "p": [LEVEL / 2, np.nan, 2 * LEVEL],
    }
)


def marks(ax: Axes) -> tuple[list[float], list[float]]:
    """Values of the filled and of the empty marks."""
    filled, empty = [], []
    for line in ax.lines:
        if line.get_marker() in ("o", "s"):
            whites = line.get_markerfacecolor() == "white"
            (empty if whites else filled).extend(line.get_ydata())
    return filled, empty


def test_only_what_is_significant_is_filled(ax: Axes) -> None:
    draw_intervals(ax, np.arange(3), FRAME, "value", low="low", high="high", p="p", side=1)
    assert marks(ax) == ([0.1], [0.2, 0.3])
    assert {line.get_color() for line in ax.lines if len(line.get_xdata())} == {NETWORK_COLORS[1]}


def test_the_legend_of_a_tested_series_has_the_hollow_mark(ax: Axes) -> None:
    sure = FRAME.assign(p=0.0)
    draw_intervals(
        ax, np.arange(3), sure, "value", low="low", high="high", p="p", color="green", label="it"
    )
    (handle,), names = ax.get_legend_handles_labels()
    assert names == ["it"]
    assert (handle.get_color(), handle.get_markerfacecolor()) == ("green", "white")


def test_without_tests_all_are_filled_and_intervals_are_the_ends(ax: Axes) -> None:
    draw_intervals(ax, np.arange(3), FRAME, "value", low="low", high="high", label="of it")
    assert marks(ax) == ([0.1, 0.2, 0.3], [])
    (bars,) = ax.collections
    ends = [path.vertices[:, 1] for path in bars.get_paths()]
    np.testing.assert_allclose(ends, [[0.0, 0.3], [0.2, 0.2], [0.1, 0.4]])
    assert ax.get_legend_handles_labels()[1] == ["of it"]
