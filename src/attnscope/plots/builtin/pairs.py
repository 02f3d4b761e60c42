"""Whether constants for two gates of a block cost more together than apart."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.plots import needs
from attnscope.plots.frames import highest, lowest
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Identity, Intervened, identity
from attnscope.plots.text import as_count, as_interval, as_plain_nats, short_names, shorten
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import title_of
from attnscope.plots.usage_sentences import as_losses, losses_sentence
from attnscope.statistics.inference import LEVEL, significant


@dataclass(frozen=True)
class Pairs:
    """Two gates of a block replaced together."""

    of: Identity
    pairs: pd.DataFrame
    """`attnscope.interventions.combinations.measure_pairs`"""


def compute(made: Intervened) -> Pairs:
    """Read the outcomes.

    Raises:
        Unavailable: no two gates are applied in one module.
    """
    table = made.outcomes.table("pairs")
    if table.empty:
        raise Unavailable("AS904", f"{made.recording.name} has no block with two gates")
    return Pairs(identity(made.recording), table)


def draw(ax: Axes, shown: Pairs) -> Axes:
    """Draw what both gates add to the log loss, minus the sum of what either adds alone."""
    table = shown.pairs
    y = np.arange(len(table))
    value = table["excess_log_loss"].to_numpy(float)
    ends = (table[f"excess_log_loss_{end}"].to_numpy(float) for end in ("low", "high"))
    spread = np.nan_to_num(np.abs(np.array([end - value for end in ends])))
    full = significant(table["p_excess_log_loss"])
    color = NETWORK_COLORS[0]
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.errorbar(value, y, xerr=spread, fmt="none", ecolor=color, elinewidth=1.2, capsize=2)
    ax.plot(value[full], y[full], "o", color=color, markersize=5)
    ax.plot(value[~full], y[~full], "o", color=color, markerfacecolor="white", markersize=5)
    names = short_names([*table["first"], *table["second"]])
    first, second = names[: len(table)], names[len(table) :]
    ax.set_ylim(len(table) - 0.4, -0.6)
    # Longer than the labels of single gates, which would be cut.
    labels = [shorten(f"{a} + {b}", 48) for a, b in zip(first, second, strict=True)]
    ax.set_yticks(y, labels, fontsize=7)
    ax.set_xlabel("log loss: both gates minus the sum of single gates (nats)")
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    return ax


def draw_on(ax: Axes, shown: Pairs) -> Axes:
    """Draw the panel with its title."""
    draw(ax, shown)
    ax.set_title(_title(shown))
    return ax


def lay_out(shown: Pairs) -> list[Figure]:
    """Draw a line for each pair."""
    height = min(1.6 + 0.25 * len(shown.pairs), 14)
    figure = Figure(figsize=(7.5, height), layout="constrained")
    draw(figure.subplots(), shown)
    figure.suptitle(_title(shown))
    return [figure]


def caption(shown: Pairs) -> str:
    """Say which pairs cost more, or less, than the sum of the single gates."""
    count = as_count(int(shown.pairs["images"].max()), "image")
    return (
        f"Change in log loss on {count} with constants for two gates of a block, minus the sum of "
        "the changes with a constant for either alone, with 95% CIs. Above 0, both together cost "
        "more than the sum, and below 0 less. Log losses of gates that do not depend on each other "
        f"do not simply add up, either. Filled: p < {LEVEL} (t test, Holm's correction over the "
        f"pairs). {pairs_sentence(shown.pairs)} p values of costs are "
        f"corrected over the pairs, and over accuracy and log loss (Holm, level {LEVEL})."
    )


def pairs_sentence(table: pd.DataFrame) -> str:
    """Summarize the table of `attnscope.interventions.combinations.measure_pairs`.

    Args:
        table: the table, with at least one pair.
    """
    found = significant(table["p_excess_log_loss"])
    backup, same = (
        table[found & (sign * table["excess_log_loss"].to_numpy(float) > 0)] for sign in (1, -1)
    )
    count = as_count(len(table), "pair")
    text = f"Both together cost more than the sum in {len(backup)} of {count}"
    if len(backup):
        text += f", most in {_excess_of(highest(backup, 'excess_log_loss'))}"
    if len(same):
        text += f"; less in {len(same)}, most in {_excess_of(lowest(same, 'excess_log_loss'))}"
    rest = table[~found & table["p_excess_log_loss"].notna().to_numpy()]
    if len(rest):
        ends = rest[["excess_log_loss_low", "excess_log_loss_high"]].abs().max().max()
        text += f"; in {len(rest)} neither is seen"
        if np.isfinite(ends):
            text += f" (the 95% CIs reach at most {as_plain_nats(ends)} nats from 0)"
    untested = int(table["p_excess_log_loss"].isna().sum())
    if untested:
        text += f"; {untested} could not be tested"
    named = table.assign(gate=table["first"] + " + " + table["second"])
    both = losses_sentence(as_losses(named), "Replacing both gates by constants", "pair")
    return f"{text}. {both}"


def _excess_of(row: pd.Series[Any]) -> str:
    interval = as_interval(row["excess_log_loss_low"], row["excess_log_loss_high"], as_plain_nats)
    return (
        f"{row['first']} and {row['second']}: {as_plain_nats(row['excess_log_loss'])} nats "
        f"({interval})"
    )


def _title(shown: Pairs) -> str:
    return f"Pairs of gates in a block: {title_of(shown.of)}"


register_plot(
    Plot(
        name="pairs",
        title="Pairs of gates",
        about="Whether constants for two gates of a block cost more together than apart.",
        subject=Intervened,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        draw_on=draw_on,
        caption=caption,
        table=attrgetter("pairs"),
        needs=(needs.outcome("pairs", asked_for=True),),
        place=50,
    )
)
