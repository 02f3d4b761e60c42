"""Charts of channels and of gates as points, each with a figure of matplotlib for downloads.

Colors of text, axes and background are those of the page's theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import matplotlib
import numpy as np
import pandas as pd
from cached.channels import MEANS, Scale
from cached.space import OTHER
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from attnscope.plots.axes import label_axis
from attnscope.plots.frames import wide
from attnscope.plots.images import draw_colorbar, show
from attnscope.plots.theme import NULL_COLOR, class_colors, drawable_names, style
from attnscope.plots.titles import with_drawn_names

BRUSH = "brush"
"""Name of the selection of `heat_map` and `points`."""
_INK = "#4c8bc7"  # readable on white and on black
_ROW = 22  # pixels of a class in a chart of intervals


def heat_map(
    cells: pd.DataFrame, what: str, scale: Scale, classes: Sequence[str], links: Mapping[int, str]
) -> alt.Chart:
    """Return the heat map of some classes and channels. Cells can be clicked and brushed.

    Args:
        cells: of `cached.channels.cells`.
        what: `MEANS` or `DIFFERENCES`.
        scale: the color scale.
        classes: names of the classes, from top to bottom.
        links: number of a channel -> address that a click on it opens, from left to right.
    """
    column = "mean" if what == MEANS else "difference"
    shown = ["class", "channel", "mean", "low", "high", "count", "difference"]
    frame = cells[shown].assign(link=cells["channel"].map(links))
    colors = [to_hex(color) for color in matplotlib.colormaps[scale.cmap](np.linspace(0, 1, 15))]
    brush = alt.selection_interval(name=BRUSH, encodings=["x", "y"])
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_rect(cursor="pointer")
        .encode(
            alt.X(
                "channel:N", sort=list(links), title="channel",
                axis=alt.Axis(
                    labelAngle=0, labelOverlap=True, domain=False, ticks=False, grid=False
                ),
            ),
            alt.Y(
                "class:N", sort=list(classes), title=None,
                axis=alt.Axis(
                    labelLimit=230, labelOverlap=False, labelFontSize=10, labelFlush=False,
                    domain=False, ticks=False,
                ),
            ),
            alt.Color(
                f"{column}:Q",
                scale=alt.Scale(domain=[scale.low, scale.high], range=colors, clamp=True),
                legend=alt.Legend(
                    title=["mean gate" if what == MEANS else "difference"], gradientLength=140
                ),
            ),
            href="link:N",
            opacity=alt.condition(brush, alt.value(1), alt.value(0.35)),
            tooltip=[
                alt.Tooltip("class:N"),
                alt.Tooltip("channel:N"),
                alt.Tooltip("mean:Q", title="mean gate", format=".4f"),
                alt.Tooltip("low:Q", title="95% CI, low", format=".4f"),
                alt.Tooltip("high:Q", title="95% CI, high", format=".4f"),
                alt.Tooltip("difference:Q", title="minus mean of all classes", format="+.4f"),
                alt.Tooltip("count:Q", title="images"),
            ],
        )
        .add_params(brush)
        .properties(height=max(170, 16 * len(classes) + 60))
    )  # fmt: skip
    return chart


def heat_figure(
    cells: pd.DataFrame, what: str, scale: Scale, classes: Sequence[str], channels: Sequence[int]
) -> Figure:
    """Draw what `heat_map` shows; the arguments are the same."""
    with style():
        figure = Figure((11, 1.2 + 0.17 * max(len(classes), 6)), layout="constrained")
        ax = figure.subplots()
        names = dict(zip(classes, drawable_names(classes), strict=True))
        frame, order = with_drawn_names(cells, classes), list(channels)
        only = [names[name] for name in classes]
        column = "mean" if what == MEANS else "difference"
        table = wide(frame, "channel", column).loc[only, order]
        show(ax, table.to_numpy(np.float64), scale.low, scale.high, scale.cmap)
        ax.set_aspect("auto")
        label_axis(ax.yaxis, only)
        shown = sorted({0, len(order) // 2, len(order) - 1})
        ax.set_xticks(shown, [str(order[place]) for place in shown])
        ax.set_xlabel("channel")
        draw_colorbar(ax, "mean gate" if what == MEANS else "difference", [ax])
    return figure


def intervals(profile: pd.DataFrame, title: str) -> alt.LayerChart | alt.FacetChart:
    """Return the mean gate of each class with its interval, from top to bottom.

    Args:
        profile: columns class, mean, low, high, count; ordered as it is to be shown.
        title: title of the horizontal axis.
    """
    base = alt.Chart(profile).encode(
        alt.Y(
            "class:N", sort=list(profile["class"]), title=None,
            axis=alt.Axis(
                    labelLimit=230, labelOverlap=False, labelFlush=False, grid=False, ticks=False
                ),
        ),
        tooltip=[
            "class:N",
            *(
                alt.Tooltip(f"{column}:Q", title=label, format=".4f")
                for column, label in (
                    ("mean", "mean gate"), ("low", "95% CI, low"), ("high", "95% CI, high"),
                )
            ),
            alt.Tooltip("count:Q", title="images"),
        ],
    )  # fmt: skip
    x = alt.X("low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
    return alt.layer(
        base.mark_rule(color=_INK, strokeWidth=2).encode(x, alt.X2("high:Q")),
        base.mark_circle(color=_INK, size=60, opacity=1).encode(alt.X("mean:Q", title=title)),
    ).properties(height=max(110, _ROW * len(profile) + 50))


def intervals_figure(profile: pd.DataFrame, title: str) -> Figure:
    """Draw what `intervals` shows; the arguments are the same."""
    with style():
        figure = Figure((6, 0.8 + 0.19 * max(len(profile), 4)), layout="constrained")
        ax = figure.subplots()
        places = np.arange(len(profile))
        ax.hlines(places, profile["low"], profile["high"], color="#1f5f99")
        ax.plot(profile["mean"], places, "o", color="#1f5f99", markersize=4)
        ax.set_yticks(places, drawable_names(list(profile["class"])))
        ax.invert_yaxis()
        ax.set_xlabel(title)
    return figure


def histogram(counts: pd.DataFrame, name: str, top: float, color: str, is_last: bool) -> alt.Chart:
    """Return the histogram of one class. Those of several classes have the same axes.

    Args:
        counts: of `cached.channels.histogram`.
        name: the class.
        top: upper end of the vertical axis, a share of 0 to 1.
        color: color of the bars.
        is_last: whether it is the last one of several, which has the title of the axis.
    """
    ends = [float(counts["start"].min()), float(counts["end"].max())]
    chart: alt.Chart = (
        alt.Chart(counts[counts["class"] == name])
        .mark_bar(binSpacing=0, color=_lighter(color))
        .encode(
            alt.X(
                "start:Q", bin="binned", title="gate" if is_last else None,
                scale=alt.Scale(domain=ends, nice=False, zero=False),
                axis=alt.Axis(labels=is_last, tickCount=8, grid=False),
            ),
            alt.X2("end:Q"),
            alt.Y(
                "share:Q", title=None, scale=alt.Scale(domain=[0, top]),
                axis=alt.Axis(format=".0%", tickCount=3, grid=True, minExtent=36),
            ),
            tooltip=[
                "class:N",
                alt.Tooltip("start:Q", title="from", format=".4f"),
                alt.Tooltip("end:Q", title="to", format=".4f"),
                alt.Tooltip("count:Q", title="images"),
                alt.Tooltip("share:Q", title="share of the class", format=".1%"),
            ],
        )
        .properties(height=150 if is_last else 105)
    )  # fmt: skip
    return chart


def histograms_figure(counts: pd.DataFrame) -> Figure:
    """Draw what `histograms` shows."""
    with style():
        classes = list(dict.fromkeys(counts["class"]))
        figure = Figure((6, 0.6 + 0.9 * len(classes)), layout="constrained")
        axes = figure.subplots(len(classes), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        names = drawable_names(classes)
        for ax, known, name in zip(axes, classes, names, strict=True):
            rows = counts[counts["class"] == known]
            ax.bar(
                rows["start"], rows["share"], rows["end"] - rows["start"], align="edge",
                color="#1f5f99",
            )  # fmt: skip
            ax.set_title(name)
        axes[-1].set_xlabel("gate")
        axes[len(axes) // 2].set_ylabel("share of the images of the class")
    return figure


def points(frame: pd.DataFrame, x: str, y: str, groups: Sequence[str]) -> alt.Chart:
    """Return images as points, which can be brushed.

    Args:
        frame: columns x, y, group, image, true, predicted.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        groups: the groups, in the order of their colors.
    """
    brush = alt.selection_interval(name=BRUSH, encodings=["x", "y"])
    colors = [_lighter(color) for color in _colors(groups)]
    known = [name for name in ("true", "predicted") if name in frame]
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_circle(size=34)
        .encode(
            alt.X("x:Q", title=x, scale=alt.Scale(zero=False), axis=alt.Axis(grid=False)),
            alt.Y("y:Q", title=y, scale=alt.Scale(zero=False), axis=alt.Axis(grid=False)),
            alt.Color(
                "group:N",
                scale=alt.Scale(domain=list(groups), range=colors),
                legend=alt.Legend(title=None, labelLimit=140, symbolLimit=40, columns=1)
                if 1 < len(groups) <= 40
                else None,
            ),
            opacity=alt.condition(brush, alt.value(0.8), alt.value(0.15)),
            tooltip=[alt.Tooltip("image:Q"), *(alt.Tooltip(f"{name}:N") for name in known)],
        )
        .add_params(brush)
        .properties(height=540)
    )
    return chart


def points_figure(frame: pd.DataFrame, x: str, y: str, groups: Sequence[str]) -> Figure:
    """Draw what `points` shows; the arguments are the same."""
    with style():
        figure = Figure((7, 5), layout="constrained")
        ax = figure.subplots()
        colors, names = _colors(groups), drawable_names(list(groups))
        for group, color, name in zip(groups, colors, names, strict=True):
            rows = frame[frame["group"] == group]
            ax.scatter(rows["x"], rows["y"], s=6, color=color, label=name, linewidths=0)
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        if 1 < len(groups) <= 40:
            figure.legend(loc="outside right upper", ncols=1 + len(groups) // 21)
    return figure


def _colors(groups: Sequence[str]) -> list[str]:
    """Return a color for each group; the group of all others is gray."""
    colors = class_colors(len(groups) - (OTHER in groups))
    return [*colors, NULL_COLOR] if OTHER in groups else colors


def _lighter(color: str) -> str:
    """Return a color that is readable on white and on black."""
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    if light >= 95:
        return color
    share = (95 - light) / (255 - light)
    return "#" + "".join(f"{round(v + (255 - v) * share):02x}" for v in (red, green, blue))


def changes(frame: pd.DataFrame) -> alt.Chart:
    """Return how the probability of each class changes, as bars from top to bottom.

    Args:
        frame: columns class, probability (change, -1 to 1), images, before, after; ordered.
    """
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_bar(color=_INK)
        .encode(
            alt.X(
                "probability:Q", title="change in the probability of the class, over its images",
                axis=alt.Axis(format="+.1%", tickCount=6),
            ),
            alt.Y(
                "class:N", sort=list(frame["class"]), title=None,
                axis=alt.Axis(
                    labelLimit=230, labelOverlap=False, labelFlush=False, grid=False, ticks=False
                ),
            ),
            tooltip=[
                "class:N",
                alt.Tooltip("probability:Q", title="change in probability", format="+.2%"),
                alt.Tooltip("images:Q"),
                alt.Tooltip("before:Q", title="right before"),
                alt.Tooltip("after:Q", title="right after"),
            ],
        )
        .properties(height=max(110, _ROW * len(frame) + 50))
    )  # fmt: skip
    return chart


def changes_figure(frame: pd.DataFrame) -> Figure:
    """Draw what `changes` shows."""
    with style():
        figure = Figure((6, 0.8 + 0.19 * max(len(frame), 4)), layout="constrained")
        ax = figure.subplots()
        places = np.arange(len(frame))
        ax.barh(places, frame["probability"], color="#1f5f99")
        ax.axvline(0, color="#888888", linewidth=0.7)
        ax.set_yticks(places, drawable_names(list(frame["class"])))
        ax.invert_yaxis()
        ax.set_xlabel("change in the probability of the class, over its images")
    return figure
