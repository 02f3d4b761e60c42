"""Accuracy if gates are replaced by the best constant, or by their means (mean ablation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.plots import needs
from attnscope.plots.axes import label_axis
from attnscope.plots.frames import lowest
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Identity, Intervened, identity
from attnscope.plots.text import as_count, as_interval, as_percent, as_plain_points, as_points
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import title_of
from attnscope.plots.usage import short_targets
from attnscope.recording.outcomes import REPLACED
from attnscope.statistics.effects import OWN
from attnscope.statistics.inference import LEVEL, holm, significant
from attnscope.statistics.verdicts import target_kind

_BESIDE = 0.02
"""Room beside accuracies of 0% and 100%, for the marks."""


@dataclass(frozen=True)
class StaticGates:
    """Accuracy under a constant for single gates, for blocks, and for all gates."""

    of: Identity
    effects: pd.DataFrame
    """The rows of `attnscope.statistics.replacement_effects` with the edit ``constant``; with the
    edit ``mean`` if the best constants are not known."""
    lost: NDArray[np.bool_]
    """For each row, whether the loss is significant."""
    own: float
    """Accuracy of the unedited network."""
    scored: int
    """Number of images that were scored."""


def compute(made: Intervened) -> StaticGates:
    """Test the losses of accuracy, with the correction of `attnscope.statistics.gate_usage`."""
    outcomes = made.outcomes
    assert outcomes.replacement is not None  # else the need for it is not met
    effects = outcomes.table("effects")
    made_edits = set(effects["edit"])
    edit = "constant" if "constant" in made_edits else "mean"
    if edit not in made_edits:
        raise Unavailable(
            "AS910",
            f"no gate of {made.recording.name} was replaced by a constant; run attnscope intervene "
            "--edits constant",
        )
    rows = effects[effects["edit"] == edit]
    contrast = statistics.edit_contrast(outcomes.replacement, edit, OWN).set_index("target")
    contrast = contrast.loc[list(rows["target"])]
    # As in `gate_usage`, accuracy and log loss of all targets are one family of tests, so that the
    # same loss is not significant here and not significant there.
    both = contrast[["p", "p_log_loss"]].to_numpy(float)
    corrected = holm(both.ravel()).reshape(both.shape)[:, 0]
    lost = significant(corrected) & (contrast["change"].to_numpy(float) > 0)
    own = float((rows["accuracy"] - rows["change"]).iloc[0])
    return StaticGates(identity(made.recording), rows, lost, own, outcomes.about["images"])


def _is_best(shown: StaticGates) -> bool:
    return bool((shown.effects["edit"] == "constant").all())


def _by(shown: StaticGates) -> str:
    return "the best constant" if _is_best(shown) else "the mean gate (mean ablation)"


def draw(
    ax: Axes, effects: pd.DataFrame, own: float, lost: Sequence[bool], labels: Sequence[str]
) -> Axes:
    """Draw the accuracy under a constant with paired intervals.

    Args:
        ax: the Axes to draw on.
        effects: of `StaticGates`.
        own: accuracy of the unedited network.
        lost: for each row, whether the loss is significant.
        labels: label of each row.
    """
    y = np.arange(len(effects))
    kept = effects["accuracy"].to_numpy(float)
    # The interval of a change may be longer than that of an accuracy, which has bounds.
    low, high = (np.clip(own + effects[end].to_numpy(float), 0, 1) for end in ("low", "high"))
    ax.axvline(own, color=INK, linewidth=0.9, label="unedited network")
    for chosen, face in ((True, NETWORK_COLORS[1]), (False, "white")):
        rows = np.array(lost) == chosen
        if rows.any():
            # The interval is not centered on the change, and may end there.
            spread = [np.maximum(kept - low, 0)[rows], np.maximum(high - kept, 0)[rows]]
            ax.errorbar(
                kept[rows], y[rows], xerr=spread, fmt="o", color=NETWORK_COLORS[1],
                markerfacecolor=face, markersize=5, elinewidth=1.2, capsize=2,
                label="significant loss" if chosen else "no significant loss",
            )  # fmt: skip
    left, right = ax.get_xlim()
    ax.set_xlim(max(left, -_BESIDE), min(right, 1 + _BESIDE))
    ax.set_ylim(len(effects) - 0.4, -0.6)
    label_axis(ax.yaxis, list(labels))
    # Enough digits to distinguish the ticks: losses may be tenths of a point.
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol="%"))
    ax.set_xlabel("accuracy with a constant")
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    return ax


def draw_on(ax: Axes, shown: StaticGates) -> Axes:
    """Draw the panel with its legend and title."""
    _draw_result(ax, shown)
    ax.legend(fontsize=7)
    ax.set_title(_title(shown))
    return ax


def lay_out(shown: StaticGates) -> list[Figure]:
    """Draw a line for each gate, each block, and all gates together."""
    labels = shown.effects["target"]
    figure = Figure(figsize=(7.5, min(1.9 + 0.2 * len(labels), 14)), layout="constrained")
    ax = _draw_result(figure.subplots(), shown)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    figure.suptitle(_title(shown))
    return [figure]


def caption(shown: StaticGates) -> str:
    """Say which gates can be replaced by a constant."""
    more = (
        " The best of neutral value, mean and median was chosen on other images."
        if _is_best(shown)
        else " Another constant may cost less (attnscope intervene with --edits constant)."
    )
    return (
        f"Accuracy on {shown.scored:,} images if each gate, all gates of a block, or all gates are "
        f"replaced by {_by(shown)}, with paired 95% CIs. The line is the unedited network: "
        f"{as_percent(shown.own)}. Filled marks show a significant loss of accuracy (McNemar, "
        f"p < {LEVEL} after Holm's correction over all gates and blocks, and over accuracy and log "
        f"loss); log losses are not shown here.{more} "
        f"{static_sentence(shown.effects, shown.lost)}"
    )


def static_sentence(effects: pd.DataFrame, lost: NDArray[np.bool_]) -> str:
    """Say which gates can be replaced by a constant.

    Args:
        effects: the rows of `attnscope.statistics.replacement_effects` with one edit.
        lost: for each row, whether the loss is significant.
    """
    kinds = np.array([target_kind(target) for target in effects["target"]])
    gates, costly = effects[kinds == "gate"], effects[(kinds == "gate") & lost]
    if costly.empty:
        text = (
            f"A constant for a single gate lowers accuracy significantly at none of "
            f"{as_count(len(gates), 'gate')}; "
        )
        if (gates["change"] < 0).any():
            worst = lowest(gates, "low")
            text += (
                f"the interval reaches furthest at {worst['target']}: a change of "
                f"{_points_of(worst)}."
            )
        else:
            text += f"{_nothing_lost(gates)}."
    else:
        most = lowest(costly, "change")
        text = (
            f"A constant for a single gate lowers accuracy significantly at {len(costly)} of "
            f"{as_count(len(gates), 'gate')}. "
            f"The largest loss is at {most['target']}: a change of {_points_of(most)}."
        )
    blocks = effects[kinds == "block"]
    if len(blocks):
        costly = int((lost & (kinds == "block")).sum())
        text += (
            f" Constants for all gates of a block lower accuracy significantly at {costly} of "
            f"{as_count(len(blocks), 'block')}"
        )
        if (blocks["change"] < 0).any():
            worst = lowest(blocks, "change")
            text += (
                f". The accuracy is lowest at {worst['target']}: a change of {_points_of(worst)}."
            )
        else:
            text += f"; {_nothing_lost(blocks)}."
    together = effects[kinds == "all"]
    if len(together):
        row = together.iloc[0]
        found = "a significant loss" if lost[kinds == "all"][0] else "no significant loss"
        text += (
            f" With constants for all gates, accuracy is {as_percent(row['accuracy'])}: a "
            f"change of {_points_of(row)}, {found}."
        )
    return text


def _nothing_lost(rows: pd.DataFrame) -> str:
    """Say that no replacement lowers the accuracy, and how far the intervals reach.

    No row is named: all are the same, or the lowest one has no loss.
    """
    verb = "lowers" if (rows["change"] > 0).any() else "changes"
    low, high = as_plain_points(rows["low"].min()), as_plain_points(rows["high"].max())
    return (
        f"no replacement {verb} the accuracy (the 95% CIs of the changes reach from {low} to "
        f"{high} percentage points)"
    )


def _points_of(row: pd.Series[Any]) -> str:
    interval = as_interval(row["low"], row["high"], as_plain_points)
    return f"{as_points(row['change'])} percentage points ({interval})"


def _draw_result(ax: Axes, shown: StaticGates) -> Axes:
    labels = short_targets(list(shown.effects["target"]))
    draw(ax, shown.effects, shown.own, list(shown.lost), labels)
    ax.set_xlabel(f"accuracy with {_by(shown)} ({shown.scored:,} images)")
    return ax


def _title(shown: StaticGates) -> str:
    what = "Best constants for gates" if _is_best(shown) else "Mean ablation of gates"
    return f"{what}: {title_of(shown.of)}"


register_plot(
    Plot(
        name="static_gates",
        title="Constants in place of gates",
        about="Accuracy if gates are replaced by the best constant for all images.",
        subject=Intervened,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        draw_on=draw_on,
        caption=caption,
        table=attrgetter("effects"),
        needs=(needs.outcome(REPLACED), needs.outcome("effects")),
        place=20,
    )
)
