"""Where two kinds of network differ: per class over seeds, and the images that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.plots import disagreements
from attnscope.plots.axes import class_rows, points_tick, row_height
from attnscope.plots.disagreements import Disagreements
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Pair, TwoKinds
from attnscope.plots.text import as_p, as_points
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import two_names, with_drawn_names
from attnscope.statistics.inference import LEVEL, significant


@dataclass(frozen=True)
class SeedDifferences:
    """Differences over seeds, and the disagreements of the first seed."""

    names: tuple[str, str]
    classes: Sequence[str]
    comparison: pd.DataFrame
    """Of `attnscope.statistics.compare_seeds`."""
    first: Disagreements


def compute(kinds: TwoKinds) -> SeedDifferences:
    """Compares the two kinds seed by seed."""
    comparison = statistics.compare_seeds(kinds.a, kinds.b)
    first = disagreements.between(Pair(kinds.a[0], kinds.b[0]), kinds.names)
    return SeedDifferences(kinds.names, kinds.a[0].classes, comparison, first)


def draw(ax: Axes, comparison: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """Per class, how much more accurate the second kind of network is, over seeds.

    Args:
        ax: where.
        comparison: of `SeedDifferences`; the first row is all classes together.
        names: of the two kinds.
    """
    y = np.arange(len(comparison))
    ax.axvline(0, color=INK, linewidth=0.8)
    middle = comparison["difference"].to_numpy(float)
    ax.hlines(
        y, comparison["image_low"], comparison["image_high"], color="#C4C4C4", linewidth=5,
        label="95 % over images, these networks",
    )  # fmt: skip
    low, high = (comparison[end].to_numpy(float) for end in ("low", "high"))
    spread = np.array([middle - low, high - middle])
    sure = significant(comparison["p_holm"])
    seeds = "95 % over seeds" if comparison["seeds"].max() > 1 else "one training of each"
    for chosen, label in ((False, seeds), (True, f"95 % over seeds, and p < {LEVEL} (Holm)")):
        rows = sure == chosen
        if rows.any():
            ax.errorbar(
                middle[rows], y[rows], xerr=np.nan_to_num(spread[:, rows]), fmt="o",
                color=NETWORK_COLORS[0], markerfacecolor=NETWORK_COLORS[0] if chosen else "white",
                markersize=5, elinewidth=1.2, capsize=2, label=label,
            )  # fmt: skip
    class_rows(ax, list(comparison["class"]))
    ax.xaxis.set_major_formatter(points_tick)
    ax.set_xlabel(f"accuracy: {names[1]} minus {names[0]}, points")
    return ax


def lay_out(shown: SeedDifferences) -> list[Figure]:
    """The differences, and on a page of their own the disagreements, where there are any."""
    names = two_names(*shown.names)
    drawn = with_drawn_names(shown.comparison, shown.classes)
    figure = Figure(figsize=(7.5, 1.2 + row_height(drawn)), layout="constrained")
    ax = draw(figure.subplots(), drawn, names)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Accuracy per class: {names[1]} minus {names[0]}")
    return [figure, *(disagreements.lay_out(shown.first) if shown.first.images else [])]


def caption(shown: SeedDifferences) -> str:
    """Whether the kinds differ over seeds, and on which images the first seeds do."""
    return (
        f"{seeds_sentence(shown.comparison, *shown.names)} What follows is of the first seed. "
        f"{disagreements.caption(shown.first)}"
    )


def seeds_sentence(frame: pd.DataFrame, name_a: str, name_b: str) -> str:
    """What `attnscope.statistics.compare_seeds` found, in words; also that no class differs."""
    whole, classes = frame.iloc[0], frame.iloc[1:]
    seeds = int(whole["seeds"])
    text = (
        f"{name_b} minus {name_a}: {as_points(whole['difference'])} points of accuracy over "
        f"{seeds} seed{'' if seeds == 1 else 's'}"
    )
    if seeds < 2:
        return f"{text}. One training of each says nothing of another one: no test over seeds."
    if np.isnan(whole["p"]):
        text += ", the same in each pair, so that there is nothing to test it against."
    else:
        text += (
            f" (95 % {as_points(whole['low'])} to {as_points(whole['high'])}, {as_p(whole['p'])})."
        )
    tested = classes[classes["p_holm"].notna()]
    differs = tested[significant(tested["p_holm"])]
    if differs.empty:
        text += f" None of {len(tested)} classes is seen to differ (t test over seeds, Holm)."
    else:
        parts = [
            f"{row['class']} ({as_points(row['difference'])})" for _, row in differs.iterrows()
        ]
        text += f" {len(differs)} of {len(tested)} classes differ: {', '.join(parts)}."
    if len(tested) < len(classes):
        text += (
            f" {len(classes) - len(tested)} could not be tested: all pairs differ by the same, or "
            "the class has no image."
        )
    return text


register_plot(
    Plot(
        name="seed_differences",
        title="Seed differences",
        about="Where two kinds of network differ, per class over seeds, and on which images.",
        subject=TwoKinds,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        place=10,
    )
)
