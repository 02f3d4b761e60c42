"""Differences between two configurations: per class over seeds, and single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.plots.axes import class_rows, points_tick, row_height
from attnscope.plots.builtin import disagreements
from attnscope.plots.builtin.disagreements import Disagreements
from attnscope.plots.choosing import largest_rows, row_note
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Comparison, SeedComparison
from attnscope.plots.text import as_interval, as_p, as_plain_points, as_points
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import two_names, with_drawn_names
from attnscope.statistics.inference import LEVEL, significant


@dataclass(frozen=True)
class SeedDifferences:
    """Differences over seeds, and the disagreements of the first seed."""

    names: tuple[str, str]
    classes: Sequence[str]
    comparison: pd.DataFrame
    """`attnscope.statistics.compare_seeds`; the first row is all classes together."""
    first: Disagreements
    training: str = ""
    """`attnscope.comparison.SeedComparison.training`."""


def compute(kinds: SeedComparison) -> SeedDifferences:
    """Compare the two configurations seed by seed."""
    comparison = kinds.accuracy
    first = disagreements.between(Comparison(kinds.a[0], kinds.b[0]), kinds.names)
    return SeedDifferences(kinds.names, kinds.a[0].classes, comparison, first, kinds.training)


def draw(ax: Axes, comparison: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """Draw for each class how much more accurate the second configuration is.

    Args:
        ax: the Axes to draw on.
        comparison: of `SeedDifferences`; the first row is all classes together.
        names: names of the two configurations.
    """
    y = np.arange(len(comparison))
    ax.axvline(0, color=INK, linewidth=0.8)
    middle = comparison["difference"].to_numpy(float)
    ax.hlines(
        y, comparison["image_low"], comparison["image_high"], color="#C4C4C4", linewidth=5,
        label="95% CI over images (these networks)",
    )  # fmt: skip
    low, high = (comparison[end].to_numpy(float) for end in ("low", "high"))
    spread = np.array([middle - low, high - middle])
    sure = significant(comparison["p_holm"])
    seeds = "95% CI over seeds" if comparison["seeds"].max() > 1 else "one seed of each"
    for chosen, label in ((False, seeds), (True, f"95% CI over seeds, p < {LEVEL} (Holm)")):
        rows = sure == chosen
        if rows.any():
            ax.errorbar(
                middle[rows], y[rows], xerr=np.nan_to_num(spread[:, rows]), fmt="o",
                color=NETWORK_COLORS[0], markerfacecolor=NETWORK_COLORS[0] if chosen else "white",
                markersize=5, elinewidth=1.2, capsize=2, label=label,
            )  # fmt: skip
    class_rows(ax, list(comparison["class"]))
    ax.xaxis.set_major_formatter(points_tick)
    ax.set_xlabel(f"difference in accuracy, {names[1]} − {names[0]} (percentage points)")
    return ax


def draw_on(ax: Axes, shown: SeedDifferences) -> Axes:
    """Draw the differences with their legend and title; the images of page 2 are left out."""
    names = two_names(*shown.names)
    draw(ax, with_drawn_names(shown.comparison.iloc[_rows(shown)], shown.classes), names)
    ax.legend(fontsize=7)
    ax.set_title(_title(names))
    return ax


def lay_out(shown: SeedDifferences) -> list[Figure]:
    """Draw the differences, and on a second page the disagreements of the first seed, if any."""
    names = two_names(*shown.names)
    drawn = with_drawn_names(shown.comparison.iloc[_rows(shown)], shown.classes)
    figure = Figure(figsize=(7.5, 1.2 + row_height(drawn)), layout="constrained")
    ax = draw(figure.subplots(), drawn, names)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(_title(names))
    return [figure, *(disagreements.lay_out(shown.first) if shown.first.images else [])]


def _rows(shown: SeedDifferences) -> list[int]:
    return largest_rows(shown.comparison["difference"].abs())


def caption(shown: SeedDifferences) -> str:
    """Say whether the configurations differ over seeds, and on which images of the first seed."""
    note = row_note(shown.classes, _rows(shown), "whose accuracies differ most")
    return (
        "Difference in accuracy between two configurations for each class. "
        f"{note + ' ' if note else ''}{seeds_sentence(shown.comparison, *shown.names)} "
        f"{shown.training + ' ' if shown.training else ''}The rest is about the first seed of each "
        f"configuration. {disagreements.caption(shown.first)}"
    )


def seeds_sentence(frame: pd.DataFrame, name_a: str, name_b: str) -> str:
    """Summarize the table of `attnscope.statistics.compare_seeds`, also if no class differs."""
    whole, classes = frame.iloc[0], frame.iloc[1:]
    seeds = int(whole["seeds"])
    text = (
        f"{name_b} − {name_a}: {as_points(whole['difference'])} percentage points over "
        f"{seeds} seed{'' if seeds == 1 else 's'}"
    )
    if seeds < 2:
        return f"{text}. With one seed of each configuration, a test over seeds is not possible."
    if np.isnan(whole["p"]):
        text += ". The difference is the same for each pair of seeds, so no test is possible."
    else:
        text += (
            f" ({as_interval(whole['low'], whole['high'], as_plain_points)}; paired t test, "
            f"{as_p(whole['p'])})."
        )
    tested = classes[classes["p_holm"].notna()]
    differs = tested[significant(tested["p_holm"])]
    if differs.empty and len(tested):
        text += (
            f" The difference is significant in none of {len(tested)} classes (t test over seeds, "
            "Holm's correction)."
        )
    elif len(tested):
        parts = [
            f"class {row['class']} ({as_points(row['difference'])}; "
            f"{as_interval(row['low'], row['high'], as_plain_points)})"
            for _, row in differs.iterrows()
        ]
        text += (
            f" The difference is significant in {len(differs)} of {len(tested)} classes (t test "
            f"over seeds, Holm's correction): {', '.join(parts)}."
        )
    if len(tested) < len(classes):
        text += (
            f" Classes without a test: {len(classes) - len(tested)}; all pairs of seeds differ by "
            "the same amount there, or the class has no images."
        )
    return text


def _title(names: tuple[str, str]) -> str:
    return f"Difference in accuracy per class: {names[1]} − {names[0]}"


register_plot(
    Plot(
        name="seed_differences",
        title="Seed differences",
        about="Difference in accuracy between two configurations, per class over seeds.",
        subject=SeedComparison,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        draw_on=draw_on,
        caption=caption,
        table=attrgetter("comparison"),
        place=10,
    )
)
