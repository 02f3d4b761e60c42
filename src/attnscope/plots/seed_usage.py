"""What the gates of one kind of network know and what is used of it, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.plots.axes import IN_ORDER, over_gates, percent_tick
from attnscope.plots.frames import highest, lowest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Seeds
from attnscope.plots.text import as_percent, as_points, shorten
from attnscope.plots.theme import NULL_COLOR
from attnscope.plots.usage import (
    SHIFT,
    draw_border,
    draw_margins,
    draw_usage,
    joint_of,
    joint_sentence,
    margins_sentence,
    one_legend,
    usages_of,
    with_joint,
)
from attnscope.statistics.inference import LEVEL, significant


@dataclass(frozen=True)
class SeedUsage:
    """Usage of every gate over seeds, and in each of them."""

    kind: str
    usage: pd.DataFrame
    """Of `attnscope.statistics.usage_over_seeds`, gate by gate."""
    joint: pd.DataFrame
    """The same of gates that are replaced together."""
    usages: Sequence[pd.DataFrame]
    """Of `attnscope.statistics.gate_usage`, one for each seed."""
    joints: Sequence[pd.DataFrame]
    """Of `attnscope.statistics.joint_usage`, one for each seed."""


def compute(seeds: Seeds) -> SeedUsage:
    """Sums the outcomes of all seeds up."""
    usages = usages_of(seeds.recordings, seeds.outcomes)
    joints = [joint_of(made) for made in seeds.outcomes]
    usage, joint = statistics.usage_over_seeds(usages), statistics.usage_over_seeds(joints)
    return SeedUsage(seeds.kind, usage, joint, usages, joints)


def draw(ax: Axes, usage: pd.DataFrame) -> Axes:
    """How well the class can be read from each gate, mean over seeds, above chance.

    Args:
        ax: where.
        usage: of `SeedUsage`.
    """
    x = np.arange(len(usage))
    ax.hlines(usage["chance"], x - 0.4, x + 0.4, color=NULL_COLOR, linewidth=1.5, label="chance")
    draw_intervals(
        ax, x, usage, "balanced_accuracy",
        low="balanced_low", high="balanced_high", label="of the gate",
    )  # fmt: skip
    ax.set_ylabel("balanced accuracy")
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(percent_tick)
    return over_gates(ax, list(usage["gate"]))


def draw_each_seed(ax: Axes, usages: Sequence[pd.DataFrame], columns: Sequence[str]) -> Axes:
    """Each seed's own number beside the mean over them.

    Args:
        ax: where `draw` or `draw_usage` has drawn.
        usages: of `SeedUsage`.
        columns: one, or the two that `draw_usage` draws.
    """
    for k, column in enumerate(columns):
        shift = SHIFT * (2 * k - 1) if len(columns) == 2 else 0.0
        for usage in usages:
            x = np.arange(len(usage)) + shift + 0.09
            label = "each training" if k == 0 and usage is usages[0] else None
            ax.plot(x, usage[column], ".", color="#777777", markersize=3.5, label=label)
    return ax


def lay_out(shown: SeedUsage) -> list[Figure]:
    """A panel for each question, one below the other over the same gates."""
    drawn = with_joint(shown.usage, shown.joint)
    each = [with_joint(*both) for both in zip(shown.usages, shown.joints, strict=True)]
    width = float(np.clip(2.5 + 0.42 * len(drawn), 6.5, 14))
    figure = Figure(figsize=(width, 8.2), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    draw(axes[0], shown.usage)
    draw_each_seed(axes[0], shown.usages, ["balanced_accuracy"])
    axes[0].set_title("can the class be read from the gate? (linear probe)")
    draw_usage(axes[1], drawn)
    draw_each_seed(axes[1], each, ["class_value", "dynamic_value"])
    axes[1].set_title(f"what is lost without it? (filled: p < {LEVEL} over trainings, Holm)")
    draw_margins(axes[2], drawn)
    draw_each_seed(axes[2], each, ["class_margin", "dynamic_margin"])
    for ax in axes[1:]:
        draw_border(ax, len(shown.usage))
    axes[2].set_title(
        "and in the margins, of which the standard deviation is "
        f"{shown.usage['margin_std'].max():.3g} (filled: p < {LEVEL}, as above)"
    )
    axes[2].set_xlabel(IN_ORDER)
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    one_legend(figure, list(axes))
    title = f"Decodable and used over {len(shown.usages)} trainings: {shorten(shown.kind, 40)}"
    figure.suptitle(title)
    return [figure]


def caption(shown: SeedUsage) -> str:
    """What is read and used over the seeds, and what single seeds see."""
    return seed_usage_sentence(shown.usage, shown.kind) + joint_sentence(shown.joint)


def seed_usage_sentence(frame: pd.DataFrame, name: str) -> str:
    """What the table of `attnscope.statistics.usage_over_seeds` says, also where nothing is seen.

    Args:
        frame: of at least one gate.
        name: of the kind of network.
    """
    seeds, count = int(frame["seeds"].iloc[0]), len(frame)
    always = frame[frame["reads"] == seeds]
    text = f"{name}, {seeds} training{'' if seeds == 1 else 's'}: "
    if always.empty:
        text += f"from none of the {count} gates can the class be read in every training."
    else:
        best = highest(always, "balanced_accuracy")
        text += (
            f"the class can be read from {len(always)} of {count} gates in every training, best "
            f"from {best['gate']}: balanced accuracy {as_percent(best['balanced_accuracy'])}."
        )
    if seeds < 2:
        return f"{text} One training says nothing of another one: no test over trainings."
    harmed = bool((frame["harms"] > 0).any())
    for value, low, high, p, alone, yes, no, harm in (
        ("class_value", "class_low", "class_high", "p_used",
         _by_own_test("its class used", frame["uses"])
         + (_by_own_test("its class doing harm", frame["harms"]) if harmed else ""),
         "Its class is used at", "At no gate is its class seen to be used over the trainings",
         "Its class does harm at"),
        ("dynamic_value", "dynamic_low", "dynamic_high", "p_dynamic",
         _by_own_test("the image's own better", frame["needs_own"]),
         "The image's own gate is better than the mean at",
         "At no gate is the image's own seen to be better than the mean over the trainings",
         "The mean is better than the image's own gate at"),
    ):  # fmt: skip
        for sign, words in ((1, yes), (-1, harm)):
            seen = frame[significant(frame[p]) & (sign * frame[value] > 0)]
            if len(seen):
                most = highest(seen, value) if sign > 0 else lowest(seen, value)
                text += (
                    f" {words} {len(seen)}, most at {most['gate']}: {as_points(most[value])} "
                    f"points (95 % {as_points(most[low])} to {as_points(most[high])})."
                )
            elif sign > 0:
                largest = frame[high].max()
                reach = f"; intervals reach up to {as_points(largest)} points"
                text += f" {no}{'' if np.isnan(largest) else reach}."
        same = int(frame[p].isna().sum())
        if same:
            text += f" At {same} all trainings give the same number, and nothing can be tested."
        text += alone
    return f"{text}{margins_sentence(frame)}{_by_own_test('them moved', frame['moves'])}"


def _by_own_test(what: str, trainings: pd.Series[int]) -> str:
    """At how many gates some training sees it without the others; begins with a space."""
    gates = int((trainings > 0).sum())
    if not gates:
        return f" By its own test no training sees {what}."
    return f" By its own test at least one training sees {what} at {gates}."


register_plot(
    Plot(
        name="seed_usage",
        title="Usage over seeds",
        about="What the gates of one kind of network know and what is used of it, over its seeds.",
        subject=Seeds,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        place=10,
    )
)
