"""What gates could tell about the class, beside what the network uses of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, over_gates, percent_tick
from attnscope.plots.frames import highest, lowest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, Intervened, identity
from attnscope.plots.text import as_percent, as_points
from attnscope.plots.theme import NULL_COLOR
from attnscope.plots.titles import title_of
from attnscope.plots.usage import (
    draw_border,
    draw_margins,
    draw_usage,
    joint_of,
    joint_sentence,
    margins_sentence,
    one_legend,
    usage_of,
    with_joint,
)
from attnscope.recording.outcomes import REPLACED
from attnscope.statistics.inference import LEVEL, significant
from attnscope.statistics.usage import CONSTANT

_CONTROLS = (
    ("input", "v", 0.2, "of what the gate got (pooled input)"),
    ("untrained", "^", -0.2, "of the gate, untrained"),
)
"""Columns of the decoding, their marks, how far beside the gate they stand, labels."""


@dataclass(frozen=True)
class DecodableAndUsed:
    """Decoding and usage of every gate."""

    of: Identity
    decoding: pd.DataFrame
    """Of `attnscope.statistics.decode_gates`."""
    usage: pd.DataFrame
    """Of `attnscope.statistics.gate_usage`."""
    joint: pd.DataFrame
    """Of `attnscope.statistics.joint_usage`."""
    scored: int
    """How many images were scored."""


def compute(made: Intervened) -> DecodableAndUsed:
    """Sums the outcomes up."""
    outcomes = made.outcomes
    return DecodableAndUsed(
        identity(made.recording),
        outcomes.table("decoding"),
        usage_of(outcomes),
        joint_of(outcomes),
        outcomes.about["images"],
    )


def draw(ax: Axes, decoding: pd.DataFrame, measure: str) -> Axes:
    """What a gate could tell about the class, over depth, above the band of permuted labels.

    Args:
        ax: where.
        decoding: of `DecodableAndUsed`.
        measure: ``balanced_accuracy`` or ``omega_squared``.
    """
    prefix = "" if measure == "balanced_accuracy" else "omega_"
    x = np.arange(len(decoding))
    low, high = (decoding[f"{prefix}null_{end}"].to_numpy(float) for end in ("low", "high"))
    # A band may be thinner than a line: its edge keeps it seen.
    ax.bar(
        x,
        high - low,
        0.8,
        low,
        color="#D5D5D5",
        edgecolor=NULL_COLOR,
        linewidth=0.8,
        label="null: permuted labels, 95 %",
    )
    if measure == "balanced_accuracy":
        # Beside the gate's own mark, so that all intervals are seen.
        for name, form, shift, label in _CONTROLS:
            value = decoding[f"{name}_accuracy"]
            if value.notna().any():
                spread = [value - decoding[f"{name}_low"], decoding[f"{name}_high"] - value]
                ax.errorbar(
                    x + shift, value, yerr=np.maximum(np.nan_to_num(spread), 0), fmt=form,
                    color="#777777", markersize=4, elinewidth=0.8, label=label,
                )  # fmt: skip
    draw_intervals(
        ax, x, decoding, measure, low=f"{prefix}low", high=f"{prefix}high", label="of the gate"
    )
    ax.set_ylabel({"balanced_accuracy": "balanced accuracy"}.get(measure, "ω² of the class"))
    lowest_end = float(np.nanmin([*low, *decoding[f"{prefix}low"], 0]))
    # A band around 0 would lie under the frame.
    room = 0.03 * ax.get_ylim()[1] if lowest_end < 0 else 0
    ax.set_ylim(lowest_end - room, None)
    if measure == "balanced_accuracy":
        ax.yaxis.set_major_formatter(percent_tick)
    return over_gates(ax, list(decoding["gate"]))


def lay_out(shown: DecodableAndUsed) -> list[Figure]:
    """A panel for each question, one below the other over the same gates."""
    drawn = with_joint(shown.usage, shown.joint)
    width = float(np.clip(2.5 + 0.42 * len(drawn), 6.5, 14))
    figure = Figure(figsize=(width, 10.2), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    draw(axes[0], shown.decoding, "balanced_accuracy")
    axes[0].set_title("can the class be read from the gate? (linear probe)")
    draw(axes[1], shown.decoding, "omega_squared")
    axes[1].set_title("how much of the gate's variance lies between the classes?")
    draw_usage(axes[2], drawn)
    axes[2].set_title(f"what is lost without it? (filled: p < {LEVEL}, McNemar, Holm)")
    draw_margins(axes[3], drawn)
    for ax in axes[2:]:
        draw_border(ax, len(shown.usage))
    axes[3].set_title(
        "and in the margins, of which the standard deviation is "
        f"{shown.usage['margin_std'].max():.3g} (filled: p < {LEVEL}, t, Holm)"
    )
    axes[3].set_xlabel(IN_ORDER)
    for ax in axes[:3]:
        ax.tick_params(labelbottom=False)
    one_legend(figure, (axes[0], axes[2]))  # the middle one has the same marks as the first
    figure.suptitle(f"Decodable and used: {title_of(shown.of)}")
    return [figure]


def caption(shown: DecodableAndUsed) -> str:
    """What is read, what is used, alone and together, and of how many images."""
    return (
        f"{usage_sentence(shown.usage)}{joint_sentence(shown.joint)} {shown.scored:,} images "
        "scored; means and gates of other images come from the rest."
    )


def usage_sentence(usage: pd.DataFrame) -> str:
    """What the table of `attnscope.statistics.gate_usage` says, also where nothing was seen."""
    if usage.empty:
        return "There is no gate to tell of."
    reads, count = usage[significant(usage["p_read"])], len(usage)
    if usage["p_read"].isna().all():
        text = "No linear probe could be fitted: too few images, or classes."
    elif reads.empty:
        text = f"No linear probe is seen to read the class from any of the {count} gates."
    else:
        best = highest(reads, "balanced_accuracy")
        text = (
            f"The class can be read from {len(reads)} of {count} gates, best from {best['gate']}: "
            f"balanced accuracy {as_percent(best['balanced_accuracy'])}, under permuted labels "
            f"{as_percent(best['chance'])}."
        )
    constant = int((usage["verdict"] == CONSTANT).sum())
    if constant:
        text += f" {constant} of {count} gates {'is' if constant == 1 else 'are'} constant."
    acts = usage[significant(usage["p_used"])]
    used, harms = acts[acts["class_value"] > 0], acts[acts["class_value"] < 0]
    if acts.empty:
        text += (
            " No use of it in accuracy seen: at no gate is the gate of an image of another class "
            "seen to cost more than that of one of the same; the intervals reach up to "
            f"{as_points(usage['class_high'].max())} points."
        )
    if len(used):
        most = highest(used, "class_value")
        text += (
            f" It is used at {len(used)}, most at {most['gate']}: the gate of an image of another "
            f"class costs {as_points(most['class_value']).lstrip('+')} points of accuracy against "
            f"that of one of the same (95 % {as_points(most['class_low'])} to "
            f"{as_points(most['class_high'])})."
        )
    if len(harms):
        most = lowest(harms, "class_value")
        text += (
            f" At {len(harms)} the gate of another class does better, most at {most['gate']}: by "
            f"{as_points(-most['class_value']).lstrip('+')} points."
        )
    text += margins_sentence(usage)
    own = usage[significant(usage["p_dynamic"]) & (usage["dynamic_value"] > 0)]
    if own.empty:
        return f"{text} At no gate is the image's own seen to be better than the mean."
    most = highest(own, "dynamic_value")
    return (
        f"{text} The image's own gate is better than the mean at {len(own)}, most at "
        f"{most['gate']}: by {as_points(most['dynamic_value']).lstrip('+')} points."
    )


register_plot(
    Plot(
        name="decodable_and_used",
        title="Decodable and used",
        about="What each gate could tell about the class, and what the network uses of it.",
        subject=Intervened,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        needs=(needs.outcome(REPLACED), needs.outcome("decoding")),
        place=10,
    )
)
