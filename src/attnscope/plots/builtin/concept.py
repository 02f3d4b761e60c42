"""Accuracy and log loss if the class is erased from each gate, beside random subspaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.plots import needs
from attnscope.plots.axes import over_gates, points_tick
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Identity, Intervened, identity
from attnscope.plots.text import as_count, as_interval, as_percent
from attnscope.plots.theme import INK, NULL_COLOR
from attnscope.plots.titles import title_of
from attnscope.plots.usage import accuracy_above_log_loss
from attnscope.plots.usage_sentences import as_losses, losses_sentence
from attnscope.statistics.inference import LEVEL, significant
from attnscope.statistics.questions import REMOVAL, direction


@dataclass(frozen=True)
class Concept:
    """What the network loses if the class is erased from single gates."""

    of: Identity
    concept: pd.DataFrame
    """`attnscope.interventions.concepts.erase_class`"""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Gate from which the class cannot be erased -> the reason."""


def compute(made: Intervened) -> Concept:
    """Read the outcomes.

    Raises:
        Unavailable: the class can be erased from no gate.
    """
    table = made.outcomes.table("concept")
    left_out = made.outcomes.about.get("concept_left_out", {})
    if table.empty:
        raise Unavailable(
            "AS904", f"the class cannot be erased from any gate of {made.recording.name}"
        )
    return Concept(identity(made.recording), table, left_out)


def draw(ax: Axes, concept: pd.DataFrame, measure: str) -> Axes:
    """Draw the change in accuracy or in log loss, with that under random subspaces.

    Args:
        ax: the Axes to draw on.
        concept: of `Concept`.
        measure: ``accuracy`` or ``log_loss``.
    """
    x = np.arange(len(concept))
    ax.axhline(0, color=INK, linewidth=0.8)
    if measure == "log_loss":
        low, high = (concept[f"null_{end}"].to_numpy(float) for end in ("low", "high"))
        ax.bar(
            x, high - low, 0.8, low, color="#D5D5D5", edgecolor=NULL_COLOR, linewidth=0.8,
            label="random subspaces, central 95%",
        )  # fmt: skip
        draw_intervals(
            ax, x, concept, "log_loss_change",
            low="log_loss_low", high="log_loss_high", label="class erased", p="p_log_loss",
        )  # fmt: skip
        ax.set_ylabel("change in log loss (nats)")
    else:
        ax.plot(
            x + 0.2, concept["random_change"], "s", color=NULL_COLOR, markerfacecolor="white",
            markersize=4.5, label="random subspaces, mean",
        )  # fmt: skip
        draw_intervals(
            ax, x, concept, "change", low="low", high="high", label="class erased", p="p"
        )
        ax.set_ylabel("change in accuracy\n(percentage points)")
        ax.yaxis.set_major_formatter(points_tick)
    return over_gates(ax, list(concept["gate"]))


def lay_out(shown: Concept) -> list[Figure]:
    """Draw a panel for accuracy and one for log loss, over the same gates."""
    titles = (
        f"Accuracy (filled: p < {LEVEL}, exact test, Holm)",
        f"Log loss (filled: p < {LEVEL}, t test, Holm)",
    )
    title = f"Class erased from single gates: {title_of(shown.of)}"
    return accuracy_above_log_loss(shown.concept, draw, titles, title)


def caption(shown: Concept) -> str:
    """Say where erasing the class costs, and whether it costs more than other changes."""
    table = shown.concept
    count, draws = int(table["images"].max()), int(table["draws"].max())
    text = (
        f"Accuracy and log loss on {as_count(count, 'image')} if the linear information on the "
        "class is erased from one gate (LEACE, fitted on other images), with paired 95% CIs, "
        f"beside {draws} random subspaces of the same rank and the same mean squared change. "
        f"{concept_sentence(table)} p values of costs are corrected over the gates, and over "
        f"accuracy and log loss (Holm, level {LEVEL})."
    )
    if shown.left_out:
        reasons = "; ".join(f"{gate}: {why}" for gate, why in shown.left_out.items())
        text += f" Left out: {reasons}."
    return text


def concept_sentence(table: pd.DataFrame) -> str:
    """Summarize the table of `attnscope.interventions.concepts.erase_class`.

    Args:
        table: the table, with at least one gate.
    """
    losses = as_losses(table)
    text = losses_sentence(losses, "Erasing the class") + _left_sentence(table)
    costs = losses[direction(losses, REMOVAL) > 0]
    own = costs[~costs["is_removal"].astype(bool)]
    if len(own):
        more = int(significant(own["p_random"]).sum())
        text += (
            f" At {more} of {as_count(len(own), 'such gate')}, the log loss rises more than under "
            f"random subspaces (p < {LEVEL}, one-sided, not corrected)."
        )
    whole = int(table["is_removal"].astype(bool).sum())
    if whole:
        text += (
            f" At {as_count(whole, 'gate')} everything is erased, because the class needs as many "
            "directions as those along which the gate varies: there it is removal by a constant, "
            "and says nothing about the class."
        )
    return text


def _left_sentence(table: pd.DataFrame) -> str:
    """Say where a linear probe still reads the class; empty for a table of an earlier version."""
    if "probe_after" not in table:
        return ""
    probed = table[table["probe_after"].notna()]
    left = probed[probed["probe_low"] > probed["probe_chance"]]
    text = (
        f" With the class erased, a linear probe reads it above chance at {len(left)} of "
        f"{as_count(len(probed), 'probed gate')} (95% CI)"
    )
    if left.empty:
        return f"{text}."
    most = left.iloc[int(left["probe_after"].to_numpy(float).argmax())]
    interval = as_interval(most["probe_low"], most["probe_high"], as_percent)
    return (
        f"{text}, where it was erased in part, since an activation that clips restores it. The "
        f"highest balanced accuracy is {as_percent(most['probe_after'])} ({interval}) at "
        f"{most['gate']}; it was {as_percent(most['probe_before'])} before, and chance is "
        f"{as_percent(most['probe_chance'])}."
    )


register_plot(
    Plot(
        name="concept",
        title="Class erased from single gates",
        about="Accuracy if the class is erased from each gate, beside random subspaces.",
        subject=Intervened,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("concept"),
        needs=(needs.outcome("concept", asked_for=True),),
        place=30,
    )
)
