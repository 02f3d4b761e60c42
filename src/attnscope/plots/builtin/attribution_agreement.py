"""Agreement of the spatial gates with each attribution method, over depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import MAP, Gate
from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, measure_axis, over_gates
from attnscope.plots.frames import highest
from attnscope.plots.maps import SEED
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.tables import stacked
from attnscope.plots.text import as_count, as_interval, as_number, method_name
from attnscope.plots.theme import NULL_COLOR, class_colors
from attnscope.plots.titles import title_of
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.recording import Recording
from attnscope.statistics.maps import comparable_gates


@dataclass(frozen=True)
class AttributionAgreement:
    """Scores of every spatial gate against every method, over all scored images."""

    of: Identity
    summaries: Mapping[str, pd.DataFrame]
    """Method -> the rows of `attnscope.statistics.agreement_summary` for all images."""
    images: Mapping[str, int]
    """Method -> number of images for which it was recorded."""
    gates: Sequence[Gate] = ()
    """The gates that are scored."""


def compute(recording: Recording) -> AttributionAgreement:
    """Score every spatial gate against every method.

    Raises:
        Unavailable: no gate has rows and columns.
    """
    summaries, images = {}, {}
    if not comparable_gates(recording):
        raise Unavailable(
            "AS904",
            f"no gate of {recording.name} varies along the rows and columns of the attributions",
        )
    for method in recording.attribution_methods:
        summary = statistics.agreement_summary(
            recording, "predicted", SEED, attribution=method, class_intervals=False
        )
        summaries[method] = summary.groupby("gate", sort=False).first().reset_index()
        images[method] = len(recording.attributed_rows(method))
    gates = comparable_gates(recording)
    return AttributionAgreement(identity(recording), summaries, images, gates)


def draw(ax: Axes, shown: AttributionAgreement) -> Axes:
    """Draw a mark with its interval for each gate and method, and an open mark for its null."""
    gates: Sequence[str] = list(next(iter(shown.summaries.values()))["gate"])
    count = len(shown.summaries)
    shifts = np.linspace(-0.3, 0.3, count) if count > 1 else [0.0]
    colors = class_colors(max(count, 3))
    for shift, color, (method, summary) in zip(
        shifts, colors, shown.summaries.items(), strict=False
    ):
        x = np.arange(len(gates)) + shift
        label = f"{method_name(method)} ({shown.images[method]:,} images), 95% CI"
        ax.vlines(x, summary["spearman_low"], summary["spearman_high"], color=color, linewidth=1.6)
        ax.plot(x, summary["spearman"], "o", color=color, markersize=5, label=label)
        ax.plot(
            x, summary["null_spearman"], "s", markersize=4, markerfacecolor="white",
            markeredgecolor=color, linestyle="none",
        )  # fmt: skip
    ax.plot([], [], "s", markerfacecolor="white", markeredgecolor=NULL_COLOR, linestyle="none",
            label="null: map of another image, same method")  # fmt: skip
    measure_axis(ax.yaxis, ax, "spearman")
    return over_gates(ax, gates)


def draw_on(ax: Axes, shown: AttributionAgreement) -> Axes:
    """Draw the panel with its legend and title."""
    draw(ax, shown).set_xlabel(IN_ORDER)
    ax.legend(fontsize=7)
    ax.set_title(_title(shown))
    return ax


def lay_out(shown: AttributionAgreement) -> list[Figure]:
    """Draw the panel with its legend below."""
    gates = len(next(iter(shown.summaries.values())))
    figure = Figure(figsize=(max(7.5, 1.5 + 0.9 * gates), 4.4), layout="constrained")
    ax = draw(figure.subplots(), shown)
    ax.set_xlabel(IN_ORDER)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    figure.suptitle(_title(shown))
    return [figure]


def table(shown: AttributionAgreement) -> pd.DataFrame:
    """Return the scores of every method."""
    return stacked(shown.summaries, "method")


def caption(shown: AttributionAgreement) -> str:
    """Count the gates that agree with each method more than with the map of another image."""
    found = "; ".join(
        f"{method_name(method)}: {_above_null(summary)} ({shown.images[method]:,} images), "
        f"{_best(summary)}"
        for method, summary in shown.summaries.items()
    )
    return (
        f"Spearman correlation between each {noun_of(shown.gates, MAP)} and the attribution of the "
        "predicted class after the ReLU, per image at the coarser of the two resolutions; mean "
        "and 95% CI over images. Number of gates that agree more with the map of the same image "
        "than with that of another image (95% CI of the difference above 0, not corrected), and "
        f"highest correlation: {found}. {view_note(shown.gates, MAP)}"
    ).rstrip()


def _above_null(summary: pd.DataFrame) -> str:
    """Count the gates above the null, among those that can be compared."""
    low = summary["above_null_low"].dropna()
    if low.empty:
        return "not tested, because too few images are scored"
    text = f"{int((low > 0).sum())} of {as_count(len(low), 'gate')}"
    untested = len(summary) - len(low)
    return f"{text}, {untested} not tested" if untested else text


def _best(summary: pd.DataFrame) -> str:
    if summary["spearman"].isna().all():
        return "no image could be scored"
    best = highest(summary, "spearman")
    interval = as_interval(best["spearman_low"], best["spearman_high"])
    return f"{as_number(best['spearman'])} ({interval}) at {best['gate']}"


def _title(shown: AttributionAgreement) -> str:
    what = noun_of(shown.gates, MAP, plural=True)
    return f"Agreement of {what} with attributions: {title_of(shown.of)}"


register_plot(
    Plot(
        name="attribution_agreement",
        title="Attribution agreement",
        about="Agreement of the spatial gates with each attribution method, over depth.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        draw_on=draw_on,
        caption=caption,
        table=table,
        needs=(needs.attributions(), needs.gates(MAP)),
        place=94,
    )
)
