"""Agreement of the Grad-CAM of two networks, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.plots import needs
from attnscope.plots.axes import class_rows, measure_axis, row_height
from attnscope.plots.choosing import FARTHEST, largest_rows, row_note
from attnscope.plots.frames import highest, lowest
from attnscope.plots.maps import SEED
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Comparison
from attnscope.plots.text import as_interval, as_score
from attnscope.plots.theme import NETWORK_COLORS, NULL_COLOR
from attnscope.plots.titles import two_names, with_drawn_names


@dataclass(frozen=True)
class PerClassGradCam:
    """Agreement of two networks' Grad-CAM."""

    names: tuple[str, str]
    classes: Sequence[str]
    comparison: pd.DataFrame
    """`attnscope.statistics.compare_grad_cam`"""


def compute(pair: Comparison) -> PerClassGradCam:
    """Score the two Grad-CAM maps of each image, each of the class that its network predicts."""
    comparison = statistics.compare_grad_cam(pair.a, pair.b, "predicted", SEED)
    return PerClassGradCam(pair.names, pair.a.classes, comparison)


def draw(ax: Axes, comparison: pd.DataFrame, measure: str) -> Axes:
    """Draw the agreement of two networks' Grad-CAM per class, with the null of another image.

    Args:
        ax: the Axes to draw on.
        comparison: of `PerClassGradCam`; the first row is all classes together.
        measure: ``spearman`` or ``iou``.
    """
    y = np.arange(len(comparison))
    own, null = (comparison[c].to_numpy() for c in (measure, f"null_{measure}"))
    ax.hlines(y, np.fmin(own, null), np.fmax(own, null), color="#DDDDDD", linewidth=1.5, zorder=1)
    ax.plot(own, y, "o", color=NETWORK_COLORS[0], markersize=5, label="the same image")
    ax.plot(
        null,
        y,
        "s",
        color=NULL_COLOR,
        markerfacecolor="white",
        markersize=4.5,
        label="null: another image",
    )
    class_rows(ax, list(comparison["class"]))
    measure_axis(ax.xaxis, ax, measure)
    return ax


def lay_out(shown: PerClassGradCam) -> list[Figure]:
    """Draw a panel for each measure."""
    names = two_names(*shown.names)
    drawn = with_drawn_names(shown.comparison.iloc[_rows(shown)], shown.classes)
    figure = Figure(figsize=(9.5, 1.9 + row_height(drawn)), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
        draw(ax, drawn, measure)
    axes[1].set_yticklabels([])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    figure.suptitle(f"Agreement of Grad-CAM: {names[0]} and {names[1]}")
    return [figure]


def _rows(shown: PerClassGradCam) -> list[int]:
    scores = shown.comparison["spearman"]
    return largest_rows((scores - scores.iloc[0]).abs())


def caption(shown: PerClassGradCam) -> str:
    """Say how far the maps agree over all images, and for which classes least and most."""
    comparison = shown.comparison
    whole, classes = comparison.iloc[0], comparison.iloc[1:].dropna(subset=["spearman"])
    text = (
        "Agreement of the Grad-CAM maps of two networks for the same image, and for different "
        "images (null). "
    )
    if not whole["scored"]:
        return f"{text}No image could be scored, because a map is constant in each."
    above = as_interval(whole["above_null_low"], whole["above_null_high"], as_score)
    text += (
        f"Over {whole['scored']:,.0f} images, the mean Spearman correlation is "
        f"{_score_of(whole, 'spearman')} (null {as_score(whole['null_spearman'])}; difference "
        f"{as_score(whole['above_null'])}, {above}), and the IoU of the top 20% of cells is "
        f"{_score_of(whole, 'iou')} (null {as_score(whole['null_iou'])})."
    )
    if note := row_note(shown.classes, _rows(shown), FARTHEST):
        text += f" {note}"
    if len(classes) < 2:
        return text
    least, most = lowest(classes, "spearman"), highest(classes, "spearman")
    return text + (
        f" The correlation is lowest for class {least['class']} ({_score_of(least, 'spearman')}) "
        f"and highest for class {most['class']} ({_score_of(most, 'spearman')}); whether classes "
        "differ is not tested."
    )


def _score_of(row: pd.Series[Any], measure: str) -> str:
    interval = as_interval(row[f"{measure}_low"], row[f"{measure}_high"], as_score)
    return f"{as_score(row[measure])}, {interval}"


register_plot(
    Plot(
        name="per_class_grad_cam",
        title="Grad-CAM per class",
        about="Agreement of the Grad-CAM of two networks, class by class.",
        subject=Comparison,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("comparison"),
        needs=(needs.both_grad_cam(),),
        place=30,
    )
)
