"""Mean, spread, saturation and change of each gate over the steps of training."""

# ruff: noqa: PD011  (`values` is a field, and not that of a table)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from attnscope.gate_history import MEASURES, GateHistory
from attnscope.plots.axes import percent_tick
from attnscope.plots.registry import Note, Plot, register_plot
from attnscope.plots.tables import stacked
from attnscope.plots.text import as_count, as_number, as_percent, shorten, with_minus
from attnscope.plots.theme import GATE_MAP
from attnscope.plots.titles import name_of

_ON_A_PAGE = 4  # kinds of gates
_WORDS = {
    "spread": "largest spread over images",
    "saturated": "largest share of saturated values",
    "distance": "largest distance from the start",
    "between_class": "largest share of variance between classes (ω², about 0 by chance)",
}


@dataclass(frozen=True)
class GatesOverTraining:
    """The numbers of each gate over the steps."""

    name: str
    images: int
    classes: int
    every: int
    overhead: float
    """Share of the time that observing took."""
    steps: NDArray[np.int64]
    """``(T,)``"""
    gates: list[str]
    kinds: list[str]
    """Of each gate."""
    values: dict[str, NDArray[np.float64]]
    """Measure -> ``(T, G)``: one of `attnscope.gate_history.MEASURES`, without those that have no
    value at all."""


def compute(history: GateHistory) -> GatesOverTraining | Note:
    """Take the numbers from the history."""
    if not history.observations:
        return Note(f"The gates of {history.name} have not been observed yet.")
    values = {measure: history.values(measure) for measure in MEASURES}
    return GatesOverTraining(
        name=history.name,
        images=history.images,
        classes=history.classes,
        every=history.every,
        overhead=history.overhead,
        steps=history.steps,
        gates=[gate.name for gate in history.gates],
        kinds=[gate.kind for gate in history.gates],
        values={m: each for m, each in values.items() if m == "mean" or np.isfinite(each).any()},
    )


def draw(
    ax: Axes,
    steps: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    colors: list[Any],
    low: float,
    high: float,
) -> Axes:
    """Draw one measure of some gates over the steps.

    Args:
        ax: the Axes to draw on.
        steps: ``(T,)``.
        values: ``(T, G)``.
        colors: color of each gate.
        low: lower end of the axis.
        high: upper end of the axis.
    """
    marker = "o" if len(steps) <= 3 else None  # a line through one point is invisible
    for gate, color in enumerate(colors):
        ax.plot(steps, values[:, gate], color=color, linewidth=1.1, marker=marker, markersize=3)
    ax.set_ylim(low, high)
    ax.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.grid(axis="y")
    return ax


def lay_out(shown: GatesOverTraining) -> list[Figure]:
    """Draw a row of panels for each kind of gate; each column has one scale."""
    kinds = list(dict.fromkeys(shown.kinds))
    scales = {measure: _scale(measure, values) for measure, values in shown.values.items()}
    pages = [kinds[i : i + _ON_A_PAGE] for i in range(0, len(kinds), _ON_A_PAGE)]
    return [_page(shown, page, scales) for page in pages]


def table(shown: GatesOverTraining) -> pd.DataFrame:
    """Return each measure of each gate at each step."""
    return stacked(
        {
            gate: pd.DataFrame(
                {"kind": kind, "step": shown.steps}
                | {measure: values[:, i] for measure, values in shown.values.items()}
            )
            for i, (gate, kind) in enumerate(zip(shown.gates, shown.kinds, strict=True))
        },
        "gate",
    )


def caption(shown: GatesOverTraining) -> str:
    """Say what was observed, and the largest value of each measure at the end."""
    last = int(shown.steps[-1])
    found = [_extremes(shown)]
    for measure, words in _WORDS.items():
        if measure in shown.values:
            found.append(_largest(shown, measure, words))
    sentences = [
        f"{as_count(len(shown.gates), 'gate')} of {shown.name}, observed on "
        f"{as_count(shown.images, 'image')} every {as_count(shown.every, 'step')} up to step "
        f"{last:,}, in eval mode.",
        "Spread (standard deviation over the images) and distance from the first observation are "
        "shares of each gate's range.",
        f"At step {last:,}: {'; '.join(each for each in found if each)}.",
    ]
    if not shown.classes:
        sentences.append("There are no labels, so that the variance between classes is unknown.")
    elif "between_class" not in shown.values:
        sentences.append("The variance between classes needs several images of two classes.")
    is_lost = np.isnan(shown.values["mean"])
    if is_lost.any():
        step = int(shown.steps[is_lost.any(1).argmax()])
        count = int(is_lost.any(0).sum())
        sentences.append(
            f"{as_count(count, 'gate')} had values that are not finite, first at step {step:,}."
        )
    if np.isfinite(shown.overhead):
        sentences.append(f"Observing took {as_percent(shown.overhead)} of the time.")
    return " ".join(sentences)


def _page(
    shown: GatesOverTraining, kinds: list[str], scales: dict[str, tuple[float, float]]
) -> Figure:
    figure = Figure(
        figsize=(1.9 * len(shown.values) + 1.2, 0.9 + 2.1 * len(kinds)), layout="constrained"
    )
    axes = figure.subplots(len(kinds), len(shown.values), squeeze=False, sharex=True)
    depth = Normalize(1, max(2, len(shown.gates)))
    colors = matplotlib.colormaps[GATE_MAP](depth(np.arange(1, len(shown.gates) + 1)))
    for row, kind in zip(axes, kinds, strict=True):
        own = [i for i, each in enumerate(shown.kinds) if each == kind]
        for ax, (measure, values) in zip(row, shown.values.items(), strict=True):
            low, high = scales[measure]
            own_colors = [colors[i] for i in own]
            draw(ax, shown.steps, values[:, own], colors=own_colors, low=low, high=high)
            if measure != "mean":
                ax.yaxis.set_major_formatter(_signed_tick)
        row[0].set_ylabel(f"{kind} gates")
    for ax, measure in zip(axes[0], shown.values, strict=True):
        ax.set_title(MEASURES[measure])
    for ax in axes[-1]:
        ax.set_xlabel("step")
    bar = figure.colorbar(ScalarMappable(depth, GATE_MAP), ax=axes, pad=0.01, aspect=30)
    bar.set_label("gate (in forward order)")
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"Gates over training: {name_of(shown.name)}")
    return figure


def _signed_tick(share: float, position: float) -> str:
    return with_minus(percent_tick(share, position))


def _scale(measure: str, values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the axis of a measure, the same for all kinds."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if measure not in ("mean", "between_class"):
        top = max(0.01, 1.05 * high)
        return -0.02 * top, top  # a line at 0 lies above the axis
    margin = max(0.01, 0.05 * (high - low))
    return low - margin, high + margin


def _largest(shown: GatesOverTraining, measure: str, words: str) -> str:
    """Return the largest value of a measure at the end, and its gate."""
    last = shown.values[measure][-1]
    if not np.isfinite(last).any():
        return ""
    top = int(np.nanargmax(last))
    if measure == "saturated" and not last[top]:
        return "no value is saturated"
    return f"{words} {as_percent(last[top])} ({shorten(shown.gates[top], 60)})"


def _extremes(shown: GatesOverTraining) -> str:
    """Return the range of the means of the gates at the end."""
    last = shown.values["mean"][-1]
    if not np.isfinite(last).any():
        return ""
    return f"means from {as_number(np.nanmin(last))} to {as_number(np.nanmax(last))}"


register_plot(
    Plot(
        name="gates_over_training",
        title="Gates over training",
        about="Mean, spread, saturation and change of each gate over the steps of training.",
        subject=GateHistory,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=table,
        place=15,
    )
)
