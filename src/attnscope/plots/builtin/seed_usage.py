"""Whether the class is decodable from each gate and used, over the seeds of one configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.plots.axes import over_gates, percent_tick
from attnscope.plots.builtin.decodable_and_used import title_usage
from attnscope.plots.frames import highest, lowest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Seeds
from attnscope.plots.text import (
    as_count,
    as_interval,
    as_percent,
    as_plain_points,
    as_points,
    shorten,
)
from attnscope.plots.theme import NULL_COLOR
from attnscope.plots.usage import (
    SHIFT,
    draw_margins,
    draw_usage,
    joint_of,
    joint_sentence,
    margins_sentence,
    one_legend,
    usages_of,
    with_joint,
)
from attnscope.statistics.inference import significant


@dataclass(frozen=True)
class SeedUsage:
    """Usage of every gate over seeds, and for each seed."""

    kind: str
    usage: pd.DataFrame
    """`attnscope.statistics.usage_over_seeds` of single gates."""
    joint: pd.DataFrame
    """The same of gates that are replaced jointly."""
    usages: Sequence[pd.DataFrame]
    """`attnscope.statistics.gate_usage` of each seed."""
    joints: Sequence[pd.DataFrame]
    """`attnscope.statistics.joint_usage` of each seed."""


def compute(seeds: Seeds) -> SeedUsage:
    """Summarize the outcomes of all seeds."""
    usages = usages_of(seeds.recordings, seeds.outcomes)
    joints = [joint_of(made) for made in seeds.outcomes]
    usage, joint = statistics.usage_over_seeds(usages), statistics.usage_over_seeds(joints)
    return SeedUsage(seeds.kind, usage, joint, usages, joints)


def draw(ax: Axes, usage: pd.DataFrame) -> Axes:
    """Draw how well the class can be decoded from each gate, mean over seeds, with chance.

    Args:
        ax: the Axes to draw on.
        usage: of `SeedUsage`.
    """
    x = np.arange(len(usage))
    ax.hlines(usage["chance"], x - 0.4, x + 0.4, color=NULL_COLOR, linewidth=1.5, label="chance")
    draw_intervals(
        ax, x, usage, "balanced_accuracy",
        low="balanced_low", high="balanced_high", label="gate",
    )  # fmt: skip
    ax.set_ylabel("balanced accuracy")
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(percent_tick)
    return over_gates(ax, list(usage["gate"]))


def draw_each_seed(ax: Axes, usages: Sequence[pd.DataFrame], columns: Sequence[str]) -> Axes:
    """Draw the value of each seed next to the mean.

    Args:
        ax: the Axes on which `draw` or `draw_usage` has drawn.
        usages: of `SeedUsage`.
        columns: one column, or the two that `draw_usage` draws.
    """
    for k, column in enumerate(columns):
        shift = SHIFT * (2 * k - 1) if len(columns) == 2 else 0.0
        for usage in usages:
            x = np.arange(len(usage)) + shift + 0.09
            label = "each seed" if k == 0 and usage is usages[0] else None
            ax.plot(x, usage[column], ".", color="#777777", markersize=3.5, label=label)
    return ax


def lay_out(shown: SeedUsage) -> list[Figure]:
    """Draw a panel for each question, one below the other, over the same gates."""
    drawn = with_joint(shown.usage, shown.joint)
    each = [with_joint(*both) for both in zip(shown.usages, shown.joints, strict=True)]
    width = float(np.clip(2.5 + 0.42 * len(drawn), 6.5, 14))
    figure = Figure(figsize=(width, 8.2), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    draw(axes[0], shown.usage)
    draw_each_seed(axes[0], shown.usages, ["balanced_accuracy"])
    axes[0].set_title("Decodable: accuracy of a linear probe of the class")
    draw_usage(axes[1], drawn)
    draw_each_seed(axes[1], each, ["class_value", "dynamic_value"])
    draw_margins(axes[2], drawn)
    draw_each_seed(axes[2], each, ["class_margin", "dynamic_margin"])
    title_usage(axes, shown.usage, " over seeds, Holm", " over seeds, Holm")
    one_legend(figure, list(axes))
    title = f"Decodable and used over {len(shown.usages)} seeds: {shorten(shown.kind, 40)}"
    figure.suptitle(title)
    return [figure]


def caption(shown: SeedUsage) -> str:
    """Say from which gates the class is decodable and where it is used, over the seeds."""
    return (
        "Decoding and replacement of each gate, mean over seeds with 95% CIs over seeds. "
        f"{seed_usage_sentence(shown.usage, shown.kind)}{joint_sentence(shown.joint)}"
    )


def seed_usage_sentence(frame: pd.DataFrame, name: str) -> str:
    """Summarize the table of `attnscope.statistics.usage_over_seeds`, also if nothing was found.

    Args:
        frame: the table, with at least one gate.
        name: name of the configuration.
    """
    seeds, count = int(frame["seeds"].iloc[0]), as_count(len(frame), "gate")
    always = frame[frame["reads"] == seeds]
    text = f"{name}, {seeds} seed{'' if seeds == 1 else 's'}: "
    if always.empty:
        text += f"none of {count} has a decodable class in every seed."
    else:
        best = highest(always, "balanced_accuracy")
        text += (
            f"the class is decodable from {len(always)} of {count} in every seed, best from "
            f"{best['gate']}: balanced accuracy {as_percent(best['balanced_accuracy'])} "
            f"({as_interval(best['balanced_low'], best['balanced_high'], as_percent)})."
        )
    if seeds < 2:
        return f"{text} With one seed there is no test over seeds."
    text += _effect_sentence(
        frame,
        "class",
        "p_used",
        positive="Use of the class",
        negative="Higher accuracy with gates of another class than with gates of the same class",
    )
    text += _by_single_seeds("use of the class", frame["uses"])
    if bool((frame["harms"] > 0).any()):
        text += _by_single_seeds("a loss of accuracy by the class", frame["harms"])
    text += _effect_sentence(
        frame,
        "dynamic",
        "p_dynamic",
        positive="A loss of accuracy under mean ablation",
        negative="A gain of accuracy under mean ablation",
    )
    text += _by_single_seeds("a loss under mean ablation", frame["needs_own"])
    text += margins_sentence(frame)
    return text + _by_single_seeds("a change of the margins", frame["moves"])


def _effect_sentence(
    frame: pd.DataFrame, name: str, p: str, *, positive: str, negative: str
) -> str:
    """Say at how many gates an effect over seeds is significant; starts with a space."""
    value, low, high = f"{name}_value", f"{name}_low", f"{name}_high"
    count, text = as_count(len(frame), "gate"), ""
    for sign, words in ((1, positive), (-1, negative)):
        found = frame[significant(frame[p]) & (sign * frame[value] > 0)]
        if len(found):
            most = highest(found, value) if sign > 0 else lowest(found, value)
            text += (
                f" {words} is significant at {len(found)} of {count}. The largest effect is "
                f"at {most['gate']}: {as_points(most[value])} percentage points "
                f"({as_interval(most[low], most[high], as_plain_points)})."
            )
        elif sign > 0:
            largest = frame[high].max()
            text += f" {words} is significant at none of {count}"
            if not np.isnan(largest):
                text += (
                    f" (upper ends of the 95% CIs: at most {as_plain_points(largest)} percentage "
                    "points)"
                )
            text += "."
    same = int(frame[p].isna().sum())
    if same:
        text += (
            f" {as_count(same, 'gate')} could not be tested, because all seeds give the same value."
        )
    return text


def _by_single_seeds(what: str, seeds: pd.Series[int]) -> str:
    """Say at how many gates at least one seed alone finds an effect; starts with a space."""
    gates = int((seeds > 0).sum())
    return f" Tests of single seeds find {what} in at least one seed at {as_count(gates, 'gate')}."


register_plot(
    Plot(
        name="seed_usage",
        title="Decodable and used over seeds",
        about="Whether the class is decodable from each gate and used, over seeds.",
        subject=Seeds,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        place=10,
    )
)
