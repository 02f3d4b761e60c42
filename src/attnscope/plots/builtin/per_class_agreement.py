"""Agreement of the last spatial gate with Grad-CAM, by class, in two networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import MAP, Gate
from attnscope.plots.axes import class_rows, measure_axis, row_height
from attnscope.plots.choosing import FARTHEST, largest_rows, row_note
from attnscope.plots.frames import highest, lowest
from attnscope.plots.maps import SEED
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Comparison, has_grad_cam, no_gate, no_grad_cam
from attnscope.plots.tables import stacked
from attnscope.plots.text import as_count, as_interval, as_number
from attnscope.plots.theme import NETWORK_COLORS, NULL_COLOR
from attnscope.plots.titles import short_pair, title_lines, two_names, with_drawn_names
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.maps import comparable_gates


@dataclass(frozen=True)
class LastGate:
    """The last spatial gate of one network."""

    summary: pd.DataFrame | None
    """The rows of `attnscope.statistics.agreement_summary`; None if something is missing."""
    missing: Sequence[str]
    """Sentences that say what is missing."""
    gate: Gate | None = None
    """The gate; None if something is missing."""

    @property
    def scored(self) -> bool:
        """Whether any image could be scored."""
        return self.summary is not None and bool(self.summary["scored"].iloc[0])


@dataclass(frozen=True)
class PerClassAgreement:
    """The last spatial gates of two networks."""

    names: tuple[str, str]
    classes: Sequence[str]
    gates: tuple[LastGate, LastGate]


def compute(pair: Comparison) -> PerClassAgreement:
    """Score the last spatial gates of both networks.

    Raises:
        Unavailable: no image of either network can be scored.
    """
    expect_same_images(pair.a, pair.b)
    gates = _last_gate(pair.a), _last_gate(pair.b)
    found = PerClassAgreement(pair.names, pair.a.classes, gates)
    if not any(gate.scored for gate in gates):
        raise Unavailable("AS904", " ".join(_sentences(found)).removesuffix("."))
    return found


def draw(ax: Axes, summaries: Sequence[pd.DataFrame | None], names: tuple[str, str]) -> Axes:
    """Draw the agreement of a spatial gate with Grad-CAM per class, for one network or two.

    Args:
        ax: the Axes to draw on.
        summaries: of `LastGate`, one for each network; the first row is all images together. None
            for a network without one.
        names: names of the two networks.
    """
    there = [(side, summary) for side, summary in enumerate(summaries) if summary is not None]
    classes: list[str] = []
    for side, summary in there:
        classes = list(summary["class"])
        y = np.arange(len(classes)) + (0.18 * (2 * side - 1) if len(there) == 2 else 0.0)
        own = summary["spearman"].to_numpy(float)
        ends = (summary[f"spearman_{end}"].to_numpy(float) for end in ("low", "high"))
        spread = np.abs(np.nan_to_num(np.array([end - own for end in ends])))
        color, form = NETWORK_COLORS[side], "os"[side]
        ax.errorbar(own, y, xerr=spread, fmt="none", ecolor=color, elinewidth=1.2)
        ax.plot(own, y, form, color=color, markersize=4.5, label=f"{names[side]}, 95% CI")
        ax.plot(
            summary["null_spearman"].to_numpy(float),
            y,
            form,
            color=NULL_COLOR,
            markerfacecolor="white",
            markersize=4,
            zorder=1.9,  # behind the intervals
            label=f"{names[side]}, null: Grad-CAM of another image",
        )
    class_rows(ax, classes)
    measure_axis(ax.xaxis, ax, "spearman")
    return ax


def draw_on(ax: Axes, shown: PerClassAgreement) -> Axes:
    """Draw the panel with its legend and title."""
    summaries, lines = _summaries(shown)
    draw(ax, summaries, short_pair(two_names(*shown.names)))
    ax.legend(fontsize=7)
    ax.set_title(title_lines(lines, 70))
    return ax


def lay_out(shown: PerClassAgreement) -> list[Figure]:
    """Draw a line for each class and network; the title says what is missing."""
    there = sum(gate.scored for gate in shown.gates)
    summaries, lines = _summaries(shown)
    # Each class has a line for each network.
    rows = row_height(next(summary for summary in summaries if summary is not None))
    figure = Figure(figsize=(7.5, 2.0 + (0.6 + 0.4 * there) * rows), layout="constrained")
    ax = draw(figure.subplots(), summaries, short_pair(two_names(*shown.names)))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=there)
    figure.suptitle(title_lines(lines, 85))
    return [figure]


def _summaries(shown: PerClassAgreement) -> tuple[list[pd.DataFrame | None], list[str]]:
    """Return what is drawn of each network, and the lines of the title."""
    names = two_names(*shown.names)
    short = short_pair(names)
    what = noun_of(_gates(shown), MAP).capitalize()
    lines = [f"{what} and Grad-CAM, per class: {names[0]} and {names[1]}"]
    summaries: list[pd.DataFrame | None] = []
    for gate, name, label in zip(shown.gates, names, short, strict=True):
        summaries.append(None)
        if gate.summary is not None and gate.scored:
            summaries[-1] = with_drawn_names(gate.summary.iloc[_rows(shown)], shown.classes)
            lines.append(
                f"{label}: last {noun_of(_gates(shown), MAP)} {gate.summary['gate'].iloc[0]}"
            )
        elif gate.summary is not None:
            lines.append(_sentence(gate.summary, name))
        lines += gate.missing
    return summaries, lines


def _rows(shown: PerClassAgreement) -> list[int]:
    scores = [gate.summary["spearman"] for gate in shown.gates if gate.summary is not None]
    return largest_rows(np.fmax.reduce([(each - each.iloc[0]).abs() for each in scores]))


def table(shown: PerClassAgreement) -> pd.DataFrame:
    """Return the scores of both networks."""
    summaries = {
        name: gate.summary
        for name, gate in zip(shown.names, shown.gates, strict=True)
        if gate.summary is not None
    }
    return stacked(summaries, "network")


def caption(shown: PerClassAgreement) -> str:
    """Say how far each network's gate agrees with Grad-CAM, and what is missing."""
    text = " ".join(_sentences(shown))
    if all(gate.scored for gate in shown.gates):
        text += " No test compares the two networks."
    if note := row_note(shown.classes, _rows(shown), FARTHEST):
        text += f" {note}"
    return (
        f"Agreement of the last {noun_of(_gates(shown), MAP)} with Grad-CAM of the predicted class "
        "after the ReLU, per image at the coarser of the two resolutions; means over the images of "
        f"a class with 95% CIs over images. {view_note(_gates(shown), MAP)}{text}"
    )


def _gates(shown: PerClassAgreement) -> list[Gate]:
    return [each.gate for each in shown.gates if each.gate is not None]


def _last_gate(recording: Recording) -> LastGate:
    gates = comparable_gates(recording)
    missing = [] if gates else [no_gate(recording, MAP)]
    if not has_grad_cam(recording):
        missing.append(no_grad_cam(recording))
    if missing:
        return LastGate(None, missing)
    last = gates[-1]
    summary = statistics.agreement_summary(recording, "predicted", SEED, gates=[last.name])
    return LastGate(summary, (), last)


def _sentences(shown: PerClassAgreement) -> list[str]:
    found = []
    for gate, name in zip(shown.gates, two_names(*shown.names), strict=True):
        if gate.summary is not None:
            found.append(_sentence(gate.summary, name))
        found += gate.missing
    return list(dict.fromkeys(found))  # networks may have the same name


def _sentence(summary: pd.DataFrame, name: str) -> str:
    """Summarize the rows of one gate, for all images and for the classes."""
    whole, classes = summary.iloc[0], summary.iloc[1:]
    if not whole["scored"]:
        return (
            f"{name}: no image of {whole['constant']:,.0f} could be scored, because "
            f"{whole['gate']} or Grad-CAM is constant in each."
        )
    scored = classes[classes["scored"] > 0]
    least, most = lowest(scored, "spearman"), highest(scored, "spearman")
    return (
        f"{name}, {whole['gate']}: Spearman {as_number(whole['spearman'])} over "
        f"{whole['scored']:,.0f} images "
        f"({as_interval(whole['spearman_low'], whole['spearman_high'])}); with Grad-CAM of another "
        f"image (null) it is {as_number(whole['null_spearman'])}. {_beside_null(scored)} It is "
        f"lowest for class {least['class']} ({_spearman_of(least)}) and highest for class "
        f"{most['class']} ({_spearman_of(most)}); whether classes differ is not "
        "tested. "
        f"{int(whole['constant']):,} images are excluded because the gate or Grad-CAM is constant."
    )


def _beside_null(scored: pd.DataFrame) -> str:
    """Count the classes above and below the null, among those that can be compared."""
    tested = scored[scored["above_null_low"].notna()]
    if tested.empty:
        return "Classes are not tested against the null: each has a single scored image."
    above = int((tested["above_null_low"] > 0).sum())
    below = int((tested["above_null_high"] < 0).sum())
    text = (
        f"The agreement is above the null in {above} of "
        f"{as_count(len(tested), 'class', 'classes')} and below it in {below} (95% CI of the "
        "difference, not corrected)."
    )
    if untested := len(scored) - len(tested):
        number = as_count(untested, "class", "classes")
        text += f" Not tested: {number} with a single scored image."
    return text


def _spearman_of(row: pd.Series[Any]) -> str:
    interval = as_interval(row["spearman_low"], row["spearman_high"])
    return f"{as_number(row['spearman'])}, {interval}"


register_plot(
    Plot(
        name="per_class_agreement",
        title="Agreement with Grad-CAM per class",
        about="Agreement of each network's last spatial gate with Grad-CAM, by class.",
        subject=Comparison,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        draw_on=draw_on,
        caption=caption,
        table=table,
        place=40,
    )
)
