"""Shares of gate values that are saturated, stuck or constant, over depth."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.errors import InputError
from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, over_gates, percent_tick
from attnscope.plots.frames import highest, unique
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.text import as_count, as_percent
from attnscope.plots.titles import title_of
from attnscope.recording.recording import Recording

_STATES = {
    "saturated_low": ("saturated at the lower bound", "#332288"),
    "saturated_high": ("saturated at the upper bound", "#CC6677"),
    "stuck": ("stuck at the midpoint", "#DDAA33"),
    "constant": ("constant over images", "#777777"),
}
"""Columns of `attnscope.statistics.gate_state`, with labels and colors."""
_WORDS = {
    "saturated_low": "saturated at the lower bound (within 1% of the range)",
    "saturated_high": "saturated at the upper bound (within 1% of the range)",
    "stuck": "stuck (within 0.02 of the midpoint of the bounds)",
    "constant": "constant (a channel over all images, or a map over all pixels)",
}


@dataclass(frozen=True)
class GateState:
    """Shares of gate values."""

    of: Identity
    state: pd.DataFrame
    """`attnscope.statistics.gate_state` of the gates with bounds."""
    without_bounds: int = 0
    """Number of other gates."""


def compute(recording: Recording) -> GateState:
    """Compute the shares for every gate."""
    state = statistics.gate_state(recording)
    bounded = [gate.bounded for gate in recording.gates]
    return GateState(identity(recording), state[bounded], bounded.count(False))


def draw(ax: Axes, state: pd.DataFrame, *, high: float) -> Axes:
    """Draw the shares of saturated, stuck and constant values over depth as bars.

    Args:
        ax: the Axes to draw on.
        state: of `GateState`, for one kind.
        high: upper end of the axis, a share of 1.
    """
    x, width = np.arange(len(state)), 0.2
    for i, (column, (label, color)) in enumerate(_STATES.items()):
        values = state[column].to_numpy()
        ax.bar(x + (i - 1.5) * width, values, width, color=color, label=label)
    ax.set_ylim(0, high)
    ax.yaxis.set_major_formatter(percent_tick)
    ax.set_ylabel("share of gate values")
    return over_gates(ax, list(state["gate"]))


def draw_on(ax: Axes, shown: GateState) -> Axes:
    """Draw the panel of a network whose gates are of one kind, with legend and title.

    Raises:
        InputError: the gates are of several kinds, and each kind needs a panel.
    """
    kinds = unique(shown.state["kind"])
    if len(kinds) > 1:
        raise InputError(
            "AS901",
            f"the plot gate_state has {len(kinds)} panels ({', '.join(kinds)}) and cannot be drawn "
            "on one Axes; call it without ax=, and it returns a figure of its own",
        )
    draw(ax, shown.state, high=_top(shown.state)).set_xlabel(IN_ORDER)
    ax.legend()
    ax.set_title(_title(shown))
    return ax


def lay_out(shown: GateState) -> list[Figure]:
    """Draw a panel for each kind of gate, all on one scale."""
    state = shown.state
    kinds = unique(state["kind"])
    high = _top(state)
    figure = Figure(figsize=(9.5, 0.9 + 2.4 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), 1, squeeze=False).ravel()
    for ax, kind in zip(axes, kinds, strict=True):
        draw(ax, state[state["kind"] == kind], high=high).set_title(f"{kind} gates")
    axes[-1].set_xlabel(IN_ORDER)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(_title(shown))
    return [figure]


def caption(shown: GateState) -> str:
    """Say where each share is largest."""
    parts = []
    for column, words in _WORDS.items():
        top = highest(shown.state, column)
        where = f"at most {as_percent(top[column])} ({top['gate']})" if top[column] else "none"
        parts.append(f"{words}: {where}")
    found = "; ".join(parts)
    images = as_count(shown.of.images, "image")
    text = f"Shares of the values of each gate, over {images}. {found[:1].upper()}{found[1:]}."
    if shown.without_bounds:
        text += f" Gates without bounds, which have no such states: {shown.without_bounds}."
    return text


def _top(state: pd.DataFrame) -> float:
    """Return the upper end of the axis of all panels."""
    highest_share = float(np.nanmax(state[list(_STATES)].to_numpy(dtype=float)))
    return min(1.05, max(0.05, 1.1 * highest_share))


def _title(shown: GateState) -> str:
    return f"State of the gates: {title_of(shown.of)}"


register_plot(
    Plot(
        name="gate_state",
        title="Gate state",
        about="Shares of gate values that are saturated, stuck or constant, over depth.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        draw_on=draw_on,
        caption=caption,
        table=attrgetter("state"),
        needs=(needs.gates(), needs.bounded_gates()),
        heading="State of the gates",
        place=60,
    )
)
