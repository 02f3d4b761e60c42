"""What gates are worth to the network: read from interventions, drawn over the gates, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.errors import InputError
from attnscope.plots import needs
from attnscope.plots.axes import over_gates, points_tick
from attnscope.plots.frames import highest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Unavailable
from attnscope.plots.text import as_logits, as_percent, as_points, short_names
from attnscope.plots.theme import INK
from attnscope.recording.outcomes import REPLACED, Outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.inference import significant
from attnscope.statistics.usage import target_kind

_SERIES = (
    ("class", "p_used", "p_margin", "gate of another class instead of the same class"),
    ("dynamic", "p_dynamic", "p_dynamic_margin", "mean gate instead of the image's own"),
)
"""What is taken from the network; the p of its value and of its margin; how it is called."""
SHIFT = 0.22
"""How far the two series stand from the gate."""


def usage_of(outcomes: Outcomes) -> pd.DataFrame:
    """What `attnscope.statistics.gate_usage` says of them.

    Raises:
        Unavailable: what it needs was not made.
    """
    return _told(outcomes, lambda made: statistics.gate_usage(outcomes.table("decoding"), made))


def joint_of(outcomes: Outcomes) -> pd.DataFrame:
    """What `attnscope.statistics.joint_usage` says of them.

    Raises:
        Unavailable: what it needs was not made.
    """
    return _told(outcomes, statistics.joint_usage)


def usages_of(recordings: Sequence[Recording], outcomes: Sequence[Outcomes]) -> list[pd.DataFrame]:
    """`usage_of` of several seeds, whose numbers are to be summed up.

    Raises:
        InputError: they were scored on other images; or as `usage_of`.
    """
    for recording, made in zip(recordings, outcomes, strict=True):
        expect_same_images(recordings[0], recording)
        for what in ("images", "seed"):
            if made.about[what] != outcomes[0].about[what]:
                raise InputError(
                    f"the interventions on {recording.name} have {what} {made.about[what]}, those "
                    f"on {recordings[0].name} {outcomes[0].about[what]}; make them with the same "
                    "--images and --seed"
                )
    return [usage_of(made) for made in outcomes]


def draw_usage(ax: Axes, usage: pd.DataFrame) -> Axes:
    """What the network loses without the class in a gate, and without its dependence on the image.

    Args:
        ax: where.
        usage: of `attnscope.statistics.gate_usage` or ``usage_over_seeds``.
    """
    ax.axhline(0, color=INK, linewidth=0.8)
    for side, (name, p, _, label) in enumerate(_SERIES):
        draw_intervals(
            ax, np.arange(len(usage)) + SHIFT * (2 * side - 1), usage, f"{name}_value",
            low=f"{name}_low", high=f"{name}_high", side=side, label=label, p=p,
        )  # fmt: skip
    ax.set_ylabel("accuracy lost, points")
    ax.yaxis.set_major_formatter(points_tick)
    return over_gates(ax, list(usage["gate"]))


def draw_margins(ax: Axes, usage: pd.DataFrame) -> Axes:
    """As `draw_usage`, in units of the logits: finer than what changes which class is named.

    Args:
        ax: where.
        usage: of `attnscope.statistics.gate_usage` or ``usage_over_seeds``.
    """
    ax.axhline(0, color=INK, linewidth=0.8)
    for side, (name, _, p, _) in enumerate(_SERIES):
        draw_intervals(
            ax, np.arange(len(usage)) + SHIFT * (2 * side - 1), usage, f"{name}_margin",
            low=f"{name}_margin_low", high=f"{name}_margin_high", side=side, p=p,
        )  # fmt: skip
    ax.set_ylabel("margin lost, logits")
    return over_gates(ax, list(usage["gate"]))


def draw_border(ax: Axes, after: int) -> Axes:
    """A line after so many gates, where those that are replaced together begin."""
    ax.axvline(after - 0.5, color=INK, linewidth=0.6, linestyle=":")
    return ax


def one_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Every mark of several Axes once, below the figure."""
    shown = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=2, fontsize=7
    )


def with_joint(usage: pd.DataFrame, joint: pd.DataFrame) -> pd.DataFrame:
    """One frame of gates and of gates together, under names that can be drawn."""
    drawn = pd.concat([usage, joint], ignore_index=True) if len(joint) else usage
    return drawn.assign(gate=short_targets(list(drawn["gate"])))


def short_targets(targets: list[str]) -> list[str]:
    """Each kind of target is shortened by itself: what they share stands in the others too."""
    blocks = [target for target in targets if target_kind(target) == "block"]
    gates = [target for target in targets if target_kind(target) == "gate"]
    paths = [block.removeprefix("block ") for block in blocks]
    names = {"all": "all"} | dict(zip(gates, short_names(gates), strict=True))
    for block, short in zip(blocks, short_names(paths), strict=True):
        names[block] = f"block {short}"
    return [names[target] for target in targets]


def joint_sentence(joint: pd.DataFrame) -> str:
    """What gates together do, of `attnscope.statistics.joint_usage`, or of it over seeds.

    Begins with a space; empty where there is one gate alone.
    """
    text = ""
    blocks, together = joint[joint["kind"] == "block"], joint[joint["kind"] == "all"]
    if len(blocks):
        used = blocks[significant(blocks["p_used"]) & (blocks["class_value"] > 0)]
        text += (
            f" With all gates of a block at once the class is used at {len(used) or 'none'} of "
            f"{len(blocks)} block{'' if len(blocks) == 1 else 's'}"
        )
        if len(used):
            most = highest(used, "class_value")
            text += f", most at {most['gate']}: {as_points(most['class_value'])} points"
        text += "."
    if len(together):
        row = together.iloc[0]
        what = "could not be tested"
        if not np.isnan(row["p_used"]):
            kept = "is used" if row["class_value"] > 0 else "does harm"
            what = kept if significant(row["p_used"]) else "is not seen to be used"
        text += (
            f" With all gates of the network at once the class {what}: those of another class cost "
            f"{as_points(row['class_value'])} points "
            f"(95 % {as_points(row['class_low'])} to {as_points(row['class_high'])})"
        )
        if significant(row["p_margin"]):
            text += f" and {as_logits(row['class_margin'])} logits of margin"
        text += " against those of the same class."
    return text


def margins_sentence(usage: pd.DataFrame) -> str:
    """What the class in the gates does to the margins; begins with a space."""
    if usage["p_margin"].isna().all():
        return " Whether the class in the gates moves the margins could not be tested."
    moved = usage[significant(usage["p_margin"])]
    if moved.empty:
        return " The class in the gates is not seen to move the margins."
    most = moved.iloc[int(moved["class_margin"].abs().to_numpy().argmax())]
    text = (
        f" The class in the gates moves the margins at {len(moved)}, most at {most['gate']}: by "
        f"{as_logits(most['class_margin'])} logits"
    )
    if most["margin_std"] > 0:
        share = abs(most["class_margin"]) / most["margin_std"]
        text += f", {as_percent(share)} of their standard deviation"
    return f"{text}."


def _told(outcomes: Outcomes, tell: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    if outcomes.replacement is None:
        raise Unavailable(needs.without_outcome(outcomes, REPLACED))
    try:
        return tell(outcomes.replacement)
    except InputError as reason:
        raise Unavailable(str(reason)) from None
