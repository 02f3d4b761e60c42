"""Mean gate of each class over depth."""

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
from attnscope.kinds import KINDS, MAP
from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, label_axis
from attnscope.plots.choosing import MOST_CLASSES
from attnscope.plots.frames import highest, lowest, unique, wide
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity, no_gate
from attnscope.plots.text import as_count, as_interval, short_names, shorten
from attnscope.plots.theme import INK, class_colors
from attnscope.plots.titles import drawn_names, title_of, with_drawn_names
from attnscope.recording.recording import Recording

_IN_COLOR = 10


@dataclass(frozen=True)
class GateProfiles:
    """Mean gates per class, and the classes in color."""

    of: Identity
    classes: Sequence[str]
    profiles: pd.DataFrame
    """`attnscope.statistics.gate_profiles`"""
    highlight: Sequence[str] | None
    """The classes in color; None for all."""
    without: str
    """A sentence if the network has no spatial gate, else empty."""


def compute(recording: Recording) -> GateProfiles:
    """Compute the profile of every gate; choose the classes that differ most if there are many."""
    profiles = statistics.gate_profiles(recording)
    highlight = None
    if len(recording.classes) > _IN_COLOR:
        middle = profiles.groupby("gate", sort=False)["mean"].transform("mean")
        spread = profiles.assign(departure=(profiles["mean"] - middle).abs())
        ranked = spread.groupby(["kind", "class"], sort=False)["departure"].max().reset_index()
        leading = ranked.sort_values("departure", ascending=False).groupby("kind").head(4)
        highlight = list(dict.fromkeys(leading["class"]))[:_IN_COLOR]
    without = "" if recording.gates_with(MAP) else no_gate(recording, MAP)
    return GateProfiles(identity(recording), recording.classes, profiles, highlight, without)


def draw(
    ax: Axes,
    profiles: pd.DataFrame,
    *,
    highlight: Sequence[str] | None = None,
    centered: bool = False,
) -> Axes:
    """Draw the mean gate of each class over depth, with its 95% confidence interval.

    Args:
        ax: the Axes to draw on.
        profiles: of `GateProfiles`, for one kind: gate, class, mean, low, high ...
        highlight: classes in color; the others are gray. Default: the first 10.
        centered: subtract each gate's mean over the classes, to show how the classes differ.
    """
    gates, classes = unique(profiles["gate"]), unique(profiles["class"])
    if highlight is None:
        highlight = classes[:_IN_COLOR]
    x = np.arange(len(gates))
    tables = {c: wide(profiles, "gate", c)[gates] for c in ("mean", "low", "high")}
    middle = tables["mean"].mean() if centered else 0.0
    colors = dict(zip(highlight, class_colors(max(len(highlight), 1)), strict=False))
    others = [c for c in classes if c not in colors]
    gray: dict[str, Any] = {"color": "#BBBBBB", "linewidth": 0.6}
    label = f"{len(others)} other classes"
    if len(others) > MOST_CLASSES:  # one line with gaps: thousands of lines take seconds
        means = (tables["mean"].loc[others] - middle).to_numpy()
        gaps = np.full((len(others), 1), np.nan)
        every = np.tile(np.append(x, np.nan), len(others))
        ax.plot(every, np.hstack([means, gaps]).ravel(), label=label, **gray)
        others = []
    for i, name in enumerate(others):
        means = (tables["mean"].loc[name] - middle).to_numpy()
        ax.plot(x, means, label=None if i else label, **gray)
    # One gate has no line that a band could follow: classes stand side by side, with whiskers.
    shifts = np.linspace(-0.3, 0.3, len(colors)) if len(gates) == 1 else np.zeros(len(colors))
    for shift, (name, color) in zip(shifts, colors.items(), strict=True):
        mean, low, high = ((tables[c].loc[name] - middle).to_numpy() for c in tables)
        if len(gates) == 1:
            ax.vlines(x + shift, low, high, color=color, linewidth=1.6)
        else:
            ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        label = shorten(name, 22)
        ax.plot(x + shift, mean, color=color, marker="o", markersize=3, linewidth=1.2, label=label)
    if centered:
        ax.axhline(0, color=INK, linewidth=0.6)
    label_axis(ax.xaxis, short_names(gates))
    ax.set_xlim(-0.4, len(gates) - 0.6)
    ax.set_ylabel("mean gate − mean over classes" if centered else "mean gate")
    ax.grid(axis="y")
    return ax


def lay_out(shown: GateProfiles) -> list[Figure]:
    """Draw a column for each kind of gate: raw means above, centered means below."""
    profiles = shown.profiles
    kinds = unique(profiles["kind"])
    drawn = drawn_names(shown.classes)
    highlight = None if shown.highlight is None else [drawn[c] for c in shown.highlight]
    figure = Figure(figsize=(max(9.5, 4.6 * len(kinds) + 1.4), 6), layout="constrained")
    axes = figure.subplots(2, len(kinds), squeeze=False, sharex="col")
    for column, kind in zip(axes.T, kinds, strict=True):
        frame = with_drawn_names(profiles[profiles["kind"] == kind], shown.classes)
        for ax, centered in zip(column, (False, True), strict=True):
            draw(ax, frame, highlight=highlight, centered=centered)
        mean_of = KINDS.find(kind).image_mean_about
        column[0].set_title(f"{kind} gates{f' ({mean_of})' if mean_of else ''}")
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel(IN_ORDER)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.suptitle(f"Mean gate per class over depth: {title_of(shown.of)}")
    return [figure]


def caption(shown: GateProfiles) -> str:
    """Say at which gate the classes differ most."""
    ends = shown.profiles.groupby("gate", sort=False)["mean"].agg(["min", "max"])
    widest = (ends["max"] - ends["min"]).idxmax()
    here = shown.profiles[shown.profiles["gate"] == widest]
    least, most = lowest(here, "mean"), highest(here, "mean")
    count = as_count(shown.of.images, "image")
    text = (
        f"Top: mean gate of the images of each class with its 95% CI, over {count}. Bottom: the "
        f"same minus the mean over the classes. The class means lie furthest apart at {widest}: "
        f"{_mean_of(least)} and {_mean_of(most)}. These are the extremes of "
        f"{as_count(len(ends), 'gate')} and {as_count(len(shown.classes), 'class', 'classes')}, "
        "which lie apart by chance as well; there is no test."
    )
    if shown.highlight is not None:
        text += " Colors mark the four classes of each kind of gate that differ most from the mean."
    return f"{text} {shown.without}".rstrip()


def _mean_of(row: pd.Series[Any]) -> str:
    return f"class {row['class']} {row['mean']:.3f} ({as_interval(row['low'], row['high'])})"


register_plot(
    Plot(
        name="gate_profiles",
        title="Gate profiles",
        about="Mean gate of each class over depth, with its confidence interval.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("profiles"),
        needs=(needs.gates(),),
        heading="Mean gate per class over depth",
        place=50,
    )
)
