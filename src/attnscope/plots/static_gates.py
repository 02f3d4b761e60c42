"""The accuracy that is kept when gates are their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from attnscope.plots.text import as_percent, as_points
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import title_of
from attnscope.plots.usage import short_targets
from attnscope.recording.outcomes import REPLACED
from attnscope.statistics.effects import OWN
from attnscope.statistics.inference import LEVEL, holm, significant
from attnscope.statistics.usage import target_kind


@dataclass(frozen=True)
class StaticGates:
    """What is lost when gates, blocks, or all gates are their mean."""

    of: Identity
    effects: pd.DataFrame
    """Of `attnscope.statistics.replacement_effects` the rows with the edit ``mean``."""
    lost: NDArray[np.bool_]
    """For each row, whether the change counts as a loss."""
    own: float
    """Accuracy of the unedited network."""
    scored: int
    """How many images were scored."""


def compute(made: Intervened) -> StaticGates:
    """Corrects the tests of the losses."""
    outcomes = made.outcomes
    assert outcomes.replacement is not None  # else the need for it is not met
    effects = outcomes.table("effects")
    mean = effects[effects["edit"] == "mean"]
    if mean.empty:
        raise Unavailable(f"no gate of {made.recording.name} was replaced by its mean")
    contrast = statistics.edit_contrast(outcomes.replacement, "mean", OWN).set_index("target")
    contrast = contrast.loc[list(mean["target"])]
    # Gates are one question, blocks another, and all together a third: as in `gate_usage`, what a
    # gate is found to be does not hang on how many blocks there are.
    kinds = np.array([target_kind(target) for target in mean["target"]])
    corrected = np.ones(len(mean))
    for kind in set(kinds):
        corrected[kinds == kind] = holm(contrast["p"].to_numpy(float)[kinds == kind])
    lost = significant(corrected) & (contrast["change"].to_numpy(float) > 0)
    own = float((mean["accuracy"] - mean["change"]).iloc[0])
    return StaticGates(identity(made.recording), mean, lost, own, outcomes.about["images"])


def draw(
    ax: Axes, effects: pd.DataFrame, own: float, lost: Sequence[bool], labels: Sequence[str]
) -> Axes:
    """The accuracy that is kept when gates are their mean, with paired intervals.

    Args:
        ax: where.
        effects: of `StaticGates`.
        own: accuracy of the unedited network.
        lost: for each row, whether the change counts as a loss.
        labels: for each row.
    """
    y = np.arange(len(effects))
    kept = effects["accuracy"].to_numpy(float)
    low, high = (own + effects[end].to_numpy(float) for end in ("low", "high"))
    ax.axvline(own, color=INK, linewidth=0.9, label="own gates")
    for chosen, face in ((True, NETWORK_COLORS[1]), (False, "white")):
        rows = np.array(lost) == chosen
        if rows.any():
            # The interval is not centered at the change: it may end at it.
            spread = [np.maximum(kept - low, 0)[rows], np.maximum(high - kept, 0)[rows]]
            ax.errorbar(
                kept[rows], y[rows], xerr=spread, fmt="o", color=NETWORK_COLORS[1],
                markerfacecolor=face, markersize=5, elinewidth=1.2, capsize=2,
                label="lost" if chosen else "no loss seen",
            )  # fmt: skip
    ax.set_ylim(len(effects) - 0.4, -0.6)
    label_axis(ax.yaxis, list(labels))
    # As many digits as tell the ticks apart: what is lost may be tenths of a point.
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.set_xlabel("accuracy kept")
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    return ax


def lay_out(shown: StaticGates) -> list[Figure]:
    """A line for each gate, each block, and all gates."""
    labels = short_targets(list(shown.effects["target"]))
    figure = Figure(figsize=(7.5, min(1.9 + 0.2 * len(labels), 14)), layout="constrained")
    ax = draw(figure.subplots(), shown.effects, shown.own, list(shown.lost), labels)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    ax.set_xlabel(f"accuracy kept, of {shown.scored:,} images that are scored")
    figure.suptitle(f"Gates as their mean: {title_of(shown.of)}")
    return [figure]


def caption(shown: StaticGates) -> str:
    """Which gates could be their mean."""
    return (
        f"{static_sentence(shown.effects, shown.lost)} With its own gates the network is right in "
        f"{as_percent(shown.own)} of these {shown.scored:,} images: the line. Intervals are "
        f"paired, 95 %; filled: less accurate, McNemar's p below {LEVEL} after Holm's correction "
        "over the gates, and over the blocks."
    )


def static_sentence(mean: pd.DataFrame, lost: NDArray[np.bool_]) -> str:
    """Which gates could be their mean, in words.

    Args:
        mean: the rows of `attnscope.statistics.replacement_effects` with the edit ``mean``.
        lost: for each, whether it counts as a loss.
    """
    kinds = np.array([target_kind(target) for target in mean["target"]])
    gates, costly = mean[kinds == "gate"], mean[(kinds == "gate") & lost]
    if costly.empty:
        text = f"No gate alone is seen to need its images: none of {len(gates)}."
    else:
        most = lowest(costly, "change")
        text = (
            f"At {len(costly)} of {len(gates)} gates the mean alone costs accuracy, most at "
            f"{most['target']}: {as_points(most['change'])} points; at the others no loss is seen."
        )
    blocks = mean[kinds == "block"]
    if len(blocks):
        worst = lowest(blocks, "change")
        costly = int((lost & (kinds == "block")).sum())
        text += (
            f" Of {len(blocks)} blocks with all their gates as means {costly or 'none'} "
            f"{'is' if costly < 2 else 'are'} seen to lose; the lowest is {worst['target']}, "
            f"{as_points(worst['change'])} points."
        )
    together = mean[kinds == "all"]
    if len(together):
        row = together.iloc[0]
        seen = "a loss" if lost[kinds == "all"][0] else "no loss seen"
        text += (
            f" All gates as their means: {as_points(row['change'])} points (95 % "
            f"{as_points(row['low'])} to {as_points(row['high'])}), {as_percent(row['accuracy'])}: "
            f"{seen}."
        )
    return text


register_plot(
    Plot(
        name="static_gates",
        title="Static gates",
        about="The accuracy that is kept when gates are their mean over other images.",
        subject=Intervened,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        needs=(needs.outcome(REPLACED), needs.outcome("effects")),
        place=20,
    )
)
