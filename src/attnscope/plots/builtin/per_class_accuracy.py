"""Accuracy of two networks on each class, and whether it differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnscope.plots.axes import class_rows, percent_tick, row_height, thinning
from attnscope.plots.choosing import largest_rows, row_note
from attnscope.plots.power import seen_in_classes
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Comparison
from attnscope.plots.text import (
    as_count,
    as_interval,
    as_p,
    as_p_number,
    as_percent,
    as_plain_points,
    as_points,
    shorten,
)
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import two_names, with_drawn_names
from attnscope.statistics.inference import significant


@dataclass(frozen=True)
class PerClassAccuracy:
    """Accuracies of two networks."""

    names: tuple[str, str]
    classes: Sequence[str]
    comparison: pd.DataFrame
    """`attnscope.comparison.Comparison.accuracy`; the first row is all classes together."""
    training: str = ""
    """`attnscope.comparison.Comparison.training`."""


def compute(pair: Comparison) -> PerClassAccuracy:
    """Compare the accuracies."""
    return PerClassAccuracy(pair.names, pair.a.classes, pair.accuracy, pair.training)


def draw(ax: Axes, comparison: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """Draw the accuracy of both networks on each class, joined by a line.

    Args:
        ax: the Axes to draw on.
        comparison: of `PerClassAccuracy`; the first row is all classes together.
        names: names of the two networks.
    """
    y = np.arange(len(comparison))
    a, b = (comparison[f"accuracy_{side}"].to_numpy() for side in "ab")
    ax.hlines(y, np.fmin(a, b), np.fmax(a, b), color="#C4C4C4", linewidth=2, zorder=1)
    # The second mark is smaller, so that the first is visible if both are equal.
    for values, name, color, form in zip(
        (a, b), names, NETWORK_COLORS, (("o", 7), ("s", 4)), strict=True
    ):
        ax.plot(
            values, y, marker=form[0], linestyle="none", markersize=form[1], color=color, label=name
        )
    class_rows(ax, list(comparison["class"]))
    ax.xaxis.set_major_formatter(percent_tick)
    ax.set_xlabel("accuracy")
    return ax


def draw_disagreements(ax: Axes, comparison: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """Draw the images that only one network classifies correctly, and McNemar's exact p value.

    Args:
        ax: the Axes to draw on.
        comparison: of `PerClassAccuracy`. The first row is all classes together, with the p value
            of one test; the p values of the classes have Holm's correction.
        names: names of the two networks.
    """
    y = np.arange(len(comparison))
    # The bars of all classes together would make the others too short to see: the first row has
    # numbers only.
    for column, sign, color in zip(("only_a", "only_b"), (-1, 1), NETWORK_COLORS, strict=True):
        counts = comparison[column].to_numpy(dtype=np.float64)
        ax.barh(y[1:], sign * counts[1:], 0.7, color=color)
    ax.axvline(0, color=INK, linewidth=0.6)
    most = comparison[["only_a", "only_b"]].iloc[1:].to_numpy().max(initial=1)
    ax.set_xlim(-1.1 * most, 1.1 * most)
    first = comparison.iloc[0]
    ax.text(
        0,
        0,
        f"{first['only_a']:.0f}   |   {first['only_b']:.0f}",
        ha="center",
        va="center",
        fontsize=7.5,
    )
    step = thinning(ax.yaxis, len(comparison), 9)
    ps = comparison["p_holm"].to_numpy(dtype=np.float64)
    for i, (p, sure) in enumerate(zip(ps, significant(ps), strict=True)):
        if i % step == 0 or sure:
            ax.text(
                1.02,
                i,
                as_p(p),
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=7,
                fontweight="bold" if sure else "normal",
                color=INK if sure else "#777777",
            )
    class_rows(ax, list(comparison["class"]))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    ax.set_xlabel(
        f"images that only {shorten(names[0])} (left) or {shorten(names[1])} (right) gets right"
    )
    return ax


def lay_out(shown: PerClassAccuracy) -> list[Figure]:
    """Draw accuracies on the left, images that only one network gets right on the right."""
    names = two_names(*shown.names)
    drawn = with_drawn_names(shown.comparison.iloc[_rows(shown)], shown.classes)
    figure = Figure(figsize=(9.5, 1.9 + row_height(drawn)), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw(left, drawn, names)
    draw_disagreements(right, drawn, names).set_yticklabels([])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    figure.suptitle(f"Accuracy per class: {names[0]} and {names[1]}")
    return [figure]


def _rows(shown: PerClassAccuracy) -> list[int]:
    return largest_rows(shown.comparison["difference"].abs())


def caption(shown: PerClassAccuracy) -> str:
    """Say whether the networks differ, over all images and on each class."""
    comparison, (name_a, name_b) = shown.comparison, shown.names
    whole, classes = comparison.iloc[0], comparison.iloc[1:]
    found = "significant" if significant(whole["p"]) else "not significant"
    text = (
        "Accuracy of two networks on each class, and images that only one of them classifies "
        f"correctly. On {whole['count']:,.0f} images, the accuracy of {name_a} is "
        f"{as_percent(whole['accuracy_a'])} and that of {name_b} is "
        f"{as_percent(whole['accuracy_b'])}: a difference of "
        f"{as_points(whole['difference'])} percentage points "
        f"({as_interval(whole['low'], whole['high'], as_plain_points)}; exact McNemar test, "
        f"{as_p(whole['p'])}, {found}). Only {name_a} is correct on {whole['only_a']:,.0f} images, "
        f"only {name_b} on {whole['only_b']:,.0f}. This compares two trained networks, and says "
        "nothing about other seeds. "
    )
    if shown.training:
        text += f"{shown.training} "
    if note := row_note(shown.classes, _rows(shown), "whose accuracies differ most"):
        text += f"{note} "
    different = classes[significant(classes["p_holm"])]
    tests = int(classes["p_holm"].notna().sum())
    if different.empty:
        return text + no_difference_sentence(classes)
    each = [
        f"class {row['class']} ({as_percent(row['accuracy_a'])} and "
        f"{as_percent(row['accuracy_b'])}, {as_p(row['p_holm'])})"
        for _, row in different.sort_values("p_holm", kind="stable").iterrows()
    ]
    return text + (
        f"The difference is significant in {len(each)} of {tests} classes after Holm's "
        f"correction: {', '.join(each)}."
    )


def no_difference_sentence(classes: pd.DataFrame) -> str:
    """Say that no class differs significantly, and which difference would have been seen.

    Args:
        classes: rows of `attnscope.comparison.Comparison.accuracy`, without that of all classes.
    """
    tested = classes[classes["p_holm"].notna()]
    if tested.empty:
        return "No class has images to compare."
    return (
        f"The difference is significant in none of {as_count(len(tested), 'class', 'classes')} "
        f"after Holm's correction (smallest p: {as_p_number(tested['p_holm'].min())})."
        f"{seen_in_classes(list(tested['count']), len(tested))}"
    )


register_plot(
    Plot(
        name="per_class_accuracy",
        title="Accuracy per class",
        about="Accuracy of two networks on each class, and the images that only one gets right.",
        subject=Comparison,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("comparison"),
        place=10,
    )
)
