"""Whether the class is decodable from each gate and used, over the seeds of one configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.plots.axes import as_wide_as_gates, over_gates, percent_tick
from attnscope.plots.builtin.decodable_and_used import title_usage
from attnscope.plots.frames import highest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Seeds
from attnscope.plots.text import as_count, as_interval, as_percent, shorten
from attnscope.plots.theme import NULL_COLOR, PROBE_COLOR
from attnscope.plots.usage import (
    draw_log_losses,
    draw_usage,
    joint_of,
    one_legend,
    series_of,
    usages_of,
    with_joint,
)
from attnscope.plots.usage_sentences import (
    joint_sentence,
    misinformation_sentence,
    oracle_sentence,
    removal_sentence,
    resample_sentence,
)
from attnscope.statistics.inference import LEVEL


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
    scored: int
    """Number of images that were scored in each seed."""


def compute(seeds: Seeds) -> SeedUsage:
    """Summarize the outcomes of all seeds."""
    usages = usages_of(seeds.recordings, seeds.outcomes)
    joints = [joint_of(made) for made in seeds.outcomes]
    tables = [made.replacement for made in seeds.outcomes]
    both = [pd.concat(each, ignore_index=True) for each in zip(usages, joints, strict=True)]
    # One family of tests: gates, blocks and all gates together.
    found = statistics.usage_over_seeds(
        both, outcomes=[table for table in tables if table is not None]
    )
    is_joint = found["kind"].isin(("block", "all"))
    usage, joint = (found[chosen].reset_index(drop=True) for chosen in (~is_joint, is_joint))
    scored = int(seeds.outcomes[0].about["images"])  # the same in all seeds (`usages_of`)
    return SeedUsage(seeds.kind, usage, joint, usages, joints, scored)


def draw(ax: Axes, usage: pd.DataFrame) -> Axes:
    """Draw how well the class can be decoded from each gate, mean over seeds, with chance.

    Args:
        ax: the Axes to draw on.
        usage: of `SeedUsage`.
    """
    x = np.arange(len(usage))
    ax.hlines(usage["chance"], x - 0.4, x + 0.4, color=NULL_COLOR, linewidth=1.5, label="chance")
    # There is no test over seeds, so that no mark is filled.
    draw_intervals(
        ax, x, usage.assign(p_drawn=np.nan), "balanced_accuracy", low="balanced_low",
        high="balanced_high", color=PROBE_COLOR, label="gate (upper panel)", p="p_drawn",
    )  # fmt: skip
    ax.set_ylabel("balanced accuracy")
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(percent_tick)
    return over_gates(ax, list(usage["gate"]))


def draw_each_seed(
    ax: Axes, usages: Sequence[pd.DataFrame], columns: Sequence[tuple[str, float]]
) -> Axes:
    """Draw the value of each seed next to the mean.

    Args:
        ax: the Axes on which `draw` or `draw_usage` has drawn.
        usages: of `SeedUsage`.
        columns: each column that is drawn, with its horizontal offset.
    """
    for k, (column, shift) in enumerate(columns):
        for usage in usages:
            x = np.arange(len(usage)) + shift + 0.06
            label = "each seed" if k == 0 and usage is usages[0] else None
            ax.plot(x, usage[column], ".", color="#777777", markersize=3.5, label=label)
    return ax


def lay_out(shown: SeedUsage) -> list[Figure]:
    """Draw a panel for each question, one below the other, over the same gates."""
    drawn = with_joint(shown.usage, shown.joint)
    each = [with_joint(*both) for both in zip(shown.usages, shown.joints, strict=True)]
    width = float(np.clip(2.5 + 0.42 * len(drawn), 6.5, 14))
    figure = Figure(figsize=(width, 8.2), layout="constrained")
    axes = figure.subplots(3, 1)
    draw(axes[0], shown.usage)
    as_wide_as_gates(axes[0], len(shown.usage), len(drawn))  # it has no blocks
    draw_each_seed(axes[0], shown.usages, [("balanced_accuracy", 0.03)])
    axes[0].set_title("Decodable: accuracy of a linear probe of the class")
    draw_usage(axes[1], drawn)
    series = series_of(drawn)
    draw_each_seed(axes[1], each, [(f"{name}_value", shift) for name, shift in series])
    draw_log_losses(axes[2], drawn)
    draw_each_seed(axes[2], each, [(f"{name}_log_loss", shift) for name, shift in series])
    title_usage(axes, shown.usage, " over seeds, Holm", " over seeds, Holm")
    one_legend(figure, list(axes))
    title = f"Decodable and used over {len(shown.usages)} seeds: {shorten(shown.kind, 40)}"
    figure.suptitle(title)
    return [figure]


def table(shown: SeedUsage) -> pd.DataFrame:
    """Return usage over seeds."""
    return pd.concat([shown.usage, shown.joint], ignore_index=True)


def caption(shown: SeedUsage) -> str:
    """Say from which gates the class is decodable and where it is used, over the seeds."""
    return (
        "Mean over seeds of how well the class can be decoded from each gate, and of the losses "
        f"when the gate is replaced. Losses are measured on {as_count(shown.scored, 'image')} of "
        "each seed; their 95% CIs hold for other seeds, other images and other donors. The 95% CIs "
        "of decoding hold for other seeds. "
        f"{seed_usage_sentence(shown.usage, shown.kind)}{joint_sentence(shown.joint)} Tests over "
        "seeds are t tests; within each question, p values are corrected over all gates and "
        f"blocks, and over accuracy and log loss (Holm, level {LEVEL})."
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
    if frame["balanced_accuracy"].isna().all():
        text += f"no linear probe could be fitted ({count}): there are too few images or classes."
    elif always.empty:
        text += f"there is no gate among {count} from which the class is decodable in every seed."
    else:
        best = highest(always, "balanced_accuracy")
        text += (
            f"the class is decodable from {len(always)} of {count} in every seed, best from "
            f"{best['gate']}: balanced accuracy {as_percent(best['balanced_accuracy'])} "
            f"({as_interval(best['balanced_low'], best['balanced_high'], as_percent)})."
        )
    if seeds < 2:
        return f"{text} With one seed there is no test over seeds."
    text += removal_sentence(frame)
    text += _by_single_seeds("a cost of removal", frame["uses"])
    if bool((frame["harms"] > 0).any()):
        text += _by_single_seeds("a gain by removal", frame["harms"])
    text += resample_sentence(frame) + misinformation_sentence(frame)
    text += _by_single_seeds("a cost of misinformation", frame["misled"])
    return text + oracle_sentence(frame)


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
        table=table,
        place=10,
    )
)
