"""Usage of gates: tables from interventions, their drawings over the gates, and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.errors import InputError, first_line
from attnscope.plots import needs
from attnscope.plots.axes import over_gates, points_tick
from attnscope.plots.frames import highest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Unavailable
from attnscope.plots.text import (
    as_count,
    as_interval,
    as_logits,
    as_percent,
    as_plain_logits,
    as_plain_points,
    as_points,
    short_names,
)
from attnscope.plots.theme import INK
from attnscope.recording.outcomes import REPLACED, Outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.inference import significant
from attnscope.statistics.usage import target_kind

_SERIES = (
    ("class", "p_used", "p_margin", "gate of another class instead of the same class"),
    ("dynamic", "p_dynamic", "p_dynamic_margin", "mean gate instead of the image's own gate"),
)
"""Prefix of the columns; columns of p of the accuracy and of the margin; label."""
SHIFT = 0.22
"""Horizontal offset of the two series from the gate."""


def usage_of(outcomes: Outcomes) -> pd.DataFrame:
    """Return `attnscope.statistics.gate_usage` of the outcomes.

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return _summarize(
        outcomes, lambda made: statistics.gate_usage(outcomes.table("decoding"), made)
    )


def joint_of(outcomes: Outcomes) -> pd.DataFrame:
    """Return `attnscope.statistics.joint_usage` of the outcomes.

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return _summarize(outcomes, statistics.joint_usage)


def usages_of(recordings: Sequence[Recording], outcomes: Sequence[Outcomes]) -> list[pd.DataFrame]:
    """Return `usage_of` of several seeds, which can be averaged.

    Raises:
        InputError: the seeds were scored on different images; or as `usage_of`.
    """
    for recording, made in zip(recordings, outcomes, strict=True):
        expect_same_images(recordings[0], recording)
        for what in ("images", "seed"):
            if made.about[what] != outcomes[0].about[what]:
                raise InputError(
                    "AS907",
                    f"the interventions on {recording.name} have {what} {made.about[what]}, those "
                    f"on {recordings[0].name} have {outcomes[0].about[what]}; run them with the "
                    "same --images and --seed",
                )
    return [usage_of(made) for made in outcomes]


def draw_usage(ax: Axes, usage: pd.DataFrame) -> Axes:
    """Draw the accuracy lost when a gate is that of another class, and under mean ablation.

    Args:
        ax: the Axes to draw on.
        usage: `attnscope.statistics.gate_usage` or ``usage_over_seeds``.
    """
    ax.axhline(0, color=INK, linewidth=0.8)
    for side, (name, p, _, label) in enumerate(_SERIES):
        draw_intervals(
            ax, np.arange(len(usage)) + SHIFT * (2 * side - 1), usage, f"{name}_value",
            low=f"{name}_low", high=f"{name}_high", side=side, label=label, p=p,
        )  # fmt: skip
    ax.set_ylabel("accuracy lost\n(percentage points)")
    ax.yaxis.set_major_formatter(points_tick)
    return over_gates(ax, list(usage["gate"]))


def draw_margins(ax: Axes, usage: pd.DataFrame) -> Axes:
    """Draw the same as `draw_usage` in logits: the margin changes even if the prediction does not.

    Args:
        ax: the Axes to draw on.
        usage: `attnscope.statistics.gate_usage` or ``usage_over_seeds``.
    """
    ax.axhline(0, color=INK, linewidth=0.8)
    for side, (name, _, p, _) in enumerate(_SERIES):
        draw_intervals(
            ax, np.arange(len(usage)) + SHIFT * (2 * side - 1), usage, f"{name}_margin",
            low=f"{name}_margin_low", high=f"{name}_margin_high", side=side, p=p,
        )  # fmt: skip
    ax.set_ylabel("margin lost (logits)")
    return over_gates(ax, list(usage["gate"]))


def draw_border(ax: Axes, after: int) -> Axes:
    """Draw a line after the single gates, before those that are replaced jointly."""
    ax.axvline(after - 0.5, color=INK, linewidth=0.6, linestyle=":")
    return ax


def one_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Draw one legend below the figure with each entry of several Axes once."""
    shown = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=2, fontsize=7
    )


def with_joint(usage: pd.DataFrame, joint: pd.DataFrame) -> pd.DataFrame:
    """Return one table of single gates and of gates replaced jointly, with short names."""
    drawn = pd.concat([usage, joint], ignore_index=True) if len(joint) else usage
    return drawn.assign(gate=short_targets(list(drawn["gate"])))


def short_targets(targets: list[str]) -> list[str]:
    """Shorten the names of targets: gates, blocks, and all gates, each kind by itself."""
    blocks = [target for target in targets if target_kind(target) == "block"]
    gates = [target for target in targets if target_kind(target) == "gate"]
    paths = [block.removeprefix("block ") for block in blocks]
    names = {"all": "all"} | dict(zip(gates, short_names(gates), strict=True))
    for block, short in zip(blocks, short_names(paths), strict=True):
        names[block] = f"block {short}"
    return [names[target] for target in targets]


def joint_sentence(joint: pd.DataFrame) -> str:
    """Summarize the replacement of several gates at once; starts with a space.

    Args:
        joint: `attnscope.statistics.joint_usage`, or ``usage_over_seeds`` of it. It has no rows if
            the network has only one gate, and the text is empty.
    """
    text = ""
    blocks, together = joint[joint["kind"] == "block"], joint[joint["kind"] == "all"]
    if len(blocks):
        used = blocks[significant(blocks["p_used"]) & (blocks["class_value"] > 0)]
        text += (
            f" When all gates of a block are replaced, use of the class is found at {len(used)} of "
            f"{len(blocks)} block{'' if len(blocks) == 1 else 's'}"
        )
        if len(used):
            most = highest(used, "class_value")
            text += f", most at {most['gate']}: {_class_points(most)}"
        text += "."
    if len(together):
        row = together.iloc[0]
        found = "not tested"
        if not np.isnan(row["p_used"]):
            found = "significant" if significant(row["p_used"]) else "not significant"
        text += (
            " When all gates of the network are replaced, the loss of accuracy with gates of "
            "another class minus that with gates of the same class is "
            f"{_class_points(row)}, {found}"
        )
        if significant(row["p_margin"]):
            text += f"; the margin falls by {as_logits(row['class_margin'])} logits"
        text += "."
    return text


def margins_sentence(usage: pd.DataFrame) -> str:
    """Say whether gates of another class change the margins; starts with a space."""
    count = as_count(len(usage), "gate")
    if usage["p_margin"].isna().all():
        return " The effect of gates of another class on the margins could not be tested."
    moved = usage[significant(usage["p_margin"])]
    if moved.empty:
        return f" A gate of another class changes the margins significantly at none of {count}."
    most = moved.iloc[int(moved["class_margin"].abs().to_numpy().argmax())]
    interval = as_interval(most["class_margin_low"], most["class_margin_high"], as_plain_logits)
    text = (
        f" A gate of another class changes the margins significantly at {len(moved)} of {count}. "
        f"The margin changes most at {most['gate']}: it falls by "
        f"{as_logits(most['class_margin'])} logits ({interval})"
    )
    if most["margin_std"] > 0:
        share = abs(most["class_margin"]) / most["margin_std"]
        text += f", {as_percent(share)} of the standard deviation of the margins"
    return f"{text}."


def _class_points(row: pd.Series[Any]) -> str:
    interval = as_interval(row["class_low"], row["class_high"], as_plain_points)
    return f"{as_points(row['class_value'])} percentage points ({interval})"


def _summarize(outcomes: Outcomes, table: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    if outcomes.replacement is None:
        raise Unavailable("AS906", needs.without_outcome(outcomes, REPLACED))
    try:
        return table(outcomes.replacement)
    except InputError as reason:
        raise Unavailable(reason.code, first_line(reason)) from None
