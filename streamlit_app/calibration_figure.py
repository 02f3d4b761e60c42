"""The calibration of a network as a figure, for downloads: the page has a chart of its own."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from attnscope.plots.theme import drawable_names, style


def draw_calibration(bins: pd.DataFrame, title: str) -> Figure:
    """Draw accuracy over confidence.

    Args:
        bins: `attnscope.statistics.calibration` without empty bins.
        title: name of the recording.
    """
    with style():
        figure = Figure((4.6, 4.2), layout="constrained")
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], linestyle="--", color="#9aa3b2", linewidth=1)
        ax.plot(bins["confidence"], bins["accuracy"], color="#1f5f99", linewidth=1)
        area = 100 * bins["count"] / bins["count"].max()
        ax.scatter(bins["confidence"], bins["accuracy"], s=area, color="#1f5f99", zorder=3)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
        ax.set_title(f"Calibration: {drawable_names([title])[0]} (area: images)")
        return figure
