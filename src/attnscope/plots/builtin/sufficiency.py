"""What each gate does alone, while all other gates are constants."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.plots import needs
from attnscope.plots.axes import over_gates, points_tick
from attnscope.plots.frames import lowest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Identity, Intervened, identity
from attnscope.plots.text import as_count, as_interval, as_plain_points
from attnscope.plots.theme import INK
from attnscope.plots.titles import title_of
from attnscope.plots.usage import accuracy_above_log_loss
from attnscope.plots.usage_sentences import as_losses, losses_sentence
from attnscope.statistics.inference import LEVEL
from attnscope.statistics.questions import REMOVAL, direction, is_mixed


@dataclass(frozen=True)
class Sufficiency:
    """Accuracy and log loss with one gate of the image and constants for all others."""

    of: Identity
    sufficiency: pd.DataFrame
    """`attnscope.interventions.combinations.measure_sufficiency`"""


def compute(made: Intervened) -> Sufficiency:
    """Read the outcomes.

    Raises:
        Unavailable: the network has one gate.
    """
    table = made.outcomes.table("sufficiency")
    if table.empty:
        raise Unavailable("AS904", f"{made.recording.name} has fewer than two gates")
    return Sufficiency(identity(made.recording), table)


def draw(ax: Axes, sufficiency: pd.DataFrame, measure: str) -> Axes:
    """Draw what a gate adds to constants for all gates, and what is lost without the others.

    Args:
        ax: the Axes to draw on.
        sufficiency: of `Sufficiency`.
        measure: ``accuracy`` or ``log_loss``.
    """
    x = np.arange(len(sufficiency))
    value, end, p = ("change", "", "p") if measure == "accuracy" else (
        "log_loss_change", "log_loss_", "p_log_loss"
    )  # fmt: skip
    ax.axhline(0, color=INK, linewidth=0.8)
    for side, (prefix, label) in enumerate(
        (("", "minus the unedited network"), ("recovered_", "minus constants for all gates"))
    ):
        draw_intervals(
            ax, x + 0.3 * side - 0.15, sufficiency, f"{prefix}{value}",
            low=f"{prefix}{end}low", high=f"{prefix}{end}high", side=side, label=label,
            p=f"{prefix}{p}",
        )  # fmt: skip
    if measure == "accuracy":
        ax.set_ylabel("difference in accuracy\n(percentage points)")
        ax.yaxis.set_major_formatter(points_tick)
    else:
        ax.set_ylabel("difference in log loss (nats)")
    return over_gates(ax, list(sufficiency["gate"]))


def lay_out(shown: Sufficiency) -> list[Figure]:
    """Draw a panel for accuracy and one for log loss, over the same gates."""
    titles = (
        f"Accuracy with one gate (filled: p < {LEVEL}, McNemar, Holm)",
        f"Log loss with one gate (filled: p < {LEVEL}, t test, Holm)",
    )
    title = f"One gate alone: {title_of(shown.of)}"
    return accuracy_above_log_loss(shown.sufficiency, draw, titles, title)


def caption(shown: Sufficiency) -> str:
    """Say which gates add something alone, and where nothing is lost without the others."""
    count = as_count(int(shown.sufficiency["images"].max()), "image")
    return (
        f"Accuracy and log loss on {count} if one gate is that of the image and all others are "
        "their best constants, with paired 95% CIs: minus those of the unedited network, and minus "
        f"those with constants for all gates. {sufficiency_sentence(shown.sufficiency)} For "
        "each of the two comparisons, p values are corrected over the gates, and over accuracy and "
        f"log loss (Holm, level {LEVEL})."
    )


def sufficiency_sentence(table: pd.DataFrame) -> str:
    """Summarize the table of `attnscope.interventions.combinations.measure_sufficiency`.

    Args:
        table: the table, with at least one gate.
    """
    losses = as_losses(table)
    text = losses_sentence(losses, "Replacing all gates but one by constants")
    rest = losses[
        (direction(losses, REMOVAL) == 0)
        & ~is_mixed(losses, REMOVAL)
        & losses[[f"p_{REMOVAL}", f"p_{REMOVAL}_log_loss"]].notna().any(axis=1)
    ]
    if len(rest):
        # No loss that is seen is not yet sufficiency: the interval says how much may be lost.
        worst = lowest(rest, "low")
        interval = as_interval(worst["low"], worst["high"], as_plain_points)
        text += (
            f" At {len(rest)} of {as_count(len(losses), 'gate')} no loss is seen with this gate "
            f"alone; the interval reaches furthest at {worst['gate']}: a change of "
            f"{as_plain_points(worst['change'])} percentage points ({interval})."
        )
    # What the gate adds is what is lost without it: the sign is turned.
    added = as_losses(table, "recovered_")
    gains = added[direction(added, REMOVAL) < 0]
    text += (
        f" Beyond constants for all gates, a gate alone improves accuracy or log loss at "
        f"{len(gains)} of {as_count(len(added), 'gate')}"
    )
    if gains.empty:
        return f"{text}."
    best = lowest(gains, f"{REMOVAL}_value")
    interval = as_interval(best["recovered_low"], best["recovered_high"], as_plain_points)
    return (
        f"{text}, most at {best['gate']}: "
        f"{as_plain_points(best['recovered_change'])} percentage points ({interval})."
    )


register_plot(
    Plot(
        name="sufficiency",
        title="One gate alone",
        about="Accuracy and log loss with one gate of the image, and constants for all others.",
        subject=Intervened,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("sufficiency"),
        needs=(needs.outcome("sufficiency", asked_for=True),),
        place=40,
    )
)
