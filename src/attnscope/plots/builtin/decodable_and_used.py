"""Whether the class can be decoded from each gate, and whether the network uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, as_wide_as_gates, over_gates, percent_tick
from attnscope.plots.frames import highest
from attnscope.plots.intervals import draw_intervals
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, Intervened, identity
from attnscope.plots.text import as_count, as_interval, as_percent
from attnscope.plots.theme import NULL_COLOR, PROBE_COLOR
from attnscope.plots.titles import title_of
from attnscope.plots.usage import (
    draw_border,
    draw_log_losses,
    draw_usage,
    joint_of,
    one_legend,
    series_of,
    usage_of,
    with_joint,
)
from attnscope.plots.usage_sentences import (
    joint_sentence,
    misinformation_sentence,
    oracle_sentence,
    removal_sentence,
    resample_sentence,
)
from attnscope.recording.outcomes import REPLACED
from attnscope.statistics.inference import FEWEST, LEVEL, significant
from attnscope.statistics.probe import decoding_p
from attnscope.statistics.questions import MATCHED, MISINFORMATION, REMOVAL, RESAMPLE
from attnscope.statistics.verdicts import CONSTANT

_CONTROLS = (
    ("input", "v", 0.2, "pooled input of the gate"),
    ("untrained", "^", -0.2, "gate of the untrained network"),
    ("control", "x", 0.3, "control task (random classes of similar pictures)"),
)
"""Columns of the table of decoding, markers, horizontal offsets from the gate, labels."""
TOO_FEW = "too few images to test"


@dataclass(frozen=True)
class DecodableAndUsed:
    """Decoding and usage of every gate."""

    of: Identity
    decoding: pd.DataFrame
    """`attnscope.statistics.decode_gates`"""
    usage: pd.DataFrame
    """`attnscope.statistics.gate_usage`"""
    joint: pd.DataFrame
    """`attnscope.statistics.joint_usage`"""
    scored: int
    """Number of images that were scored."""
    matching: Mapping[str, Any] | None = None
    """How donors were matched; None if they were not."""


def compute(made: Intervened) -> DecodableAndUsed:
    """Summarize the outcomes of the interventions."""
    outcomes = made.outcomes
    return DecodableAndUsed(
        identity(made.recording),
        outcomes.table("decoding"),
        usage_of(outcomes),
        joint_of(outcomes),
        outcomes.about["images"],
        outcomes.about.get("matching"),
    )


def draw(ax: Axes, decoding: pd.DataFrame, measure: str) -> Axes:
    """Draw how well the class can be decoded from each gate, with the null of permuted labels.

    The gray band of the accuracy ends at the limit of the test, so that only significant marks,
    which are filled, lie above it; a line in it is the mean (chance). The band of omega squared is
    the central 95%.

    Args:
        ax: the Axes to draw on.
        decoding: of `DecodableAndUsed`.
        measure: ``balanced_accuracy`` or ``omega_squared``.
    """
    is_accuracy = measure == "balanced_accuracy"
    prefix = "" if is_accuracy else "omega_"
    x = np.arange(len(decoding))
    low, high = (decoding[f"{prefix}null_{end}"].to_numpy(float) for end in ("low", "high"))
    if is_accuracy and "limit" in decoding:  # outcomes of earlier versions have none
        low, high = np.zeros(len(x)), decoding["limit"].to_numpy(float)
    # Outcomes of earlier versions have no p of omega squared.
    p = decoding_p(decoding, "p_max" if is_accuracy else "omega_p")
    if not is_accuracy or np.isfinite(p).any():
        # A band may be thinner than a line: its edge keeps it visible.
        ax.bar(
            x, high - low, 0.8, low, color="#D5D5D5", edgecolor=NULL_COLOR, linewidth=0.8,
            label="permuted labels (chance)",
        )  # fmt: skip
    if is_accuracy:
        ax.hlines(decoding["null"], x - 0.4, x + 0.4, color=NULL_COLOR, linewidth=0.8)
        # Next to the gate's own mark, so that no interval hides another.
        for name, form, shift, label in _CONTROLS:
            # Outcomes of earlier versions have no control task.
            value = decoding.get(f"{name}_accuracy", pd.Series(dtype=float))
            if value.notna().any():
                spread = [value - decoding[f"{name}_low"], decoding[f"{name}_high"] - value]
                ax.errorbar(
                    x + shift, value, yerr=np.maximum(np.nan_to_num(spread), 0), fmt=form,
                    color="#777777", markersize=4, elinewidth=0.8, label=label,
                )  # fmt: skip
    draw_intervals(
        ax, x, decoding.assign(p_drawn=p), measure, low=f"{prefix}low", high=f"{prefix}high",
        color=PROBE_COLOR, label="gate (upper panels)", p="p_drawn",
    )  # fmt: skip
    ax.set_ylabel("balanced accuracy" if is_accuracy else "omega squared")
    lowest_end = float(np.nanmin([*low, *decoding[f"{prefix}low"], 0]))
    # The frame would hide a band around 0.
    room = 0.03 * ax.get_ylim()[1] if lowest_end < 0 else 0
    ax.set_ylim(lowest_end - room, None)
    if is_accuracy:
        ax.yaxis.set_major_formatter(percent_tick)
    return over_gates(ax, list(decoding["gate"]))


def lay_out(shown: DecodableAndUsed) -> list[Figure]:
    """Draw a panel for each question, one below the other, over the same gates."""
    drawn = with_joint(shown.usage, shown.joint)
    width = float(np.clip(2.5 + 0.42 * len(drawn), 6.5, 14))
    figure = Figure(figsize=(width, 10.2), layout="constrained")
    axes = figure.subplots(4, 1)
    draw(axes[0], shown.decoding, "balanced_accuracy")
    axes[0].set_title(
        f"Decodable: accuracy of a linear probe of the class ({_band_note(shown.decoding)})"
    )
    draw(axes[1], shown.decoding, "omega_squared")
    axes[1].set_title(
        "Share of variance between classes, omega squared (band: 95% of permuted labels)"
    )
    for ax in axes[:2]:  # they have no blocks
        as_wide_as_gates(ax, len(shown.decoding), len(drawn))
    draw_usage(axes[2], drawn)
    draw_log_losses(axes[3], drawn)
    title_usage(axes, shown.usage, ", exact test, Holm", ", t test, Holm")
    one_legend(figure, axes[:3])  # the last panel has the marks of the third
    figure.suptitle(f"Decodable and used: {title_of(shown.of)}")
    return [figure]


def _band_note(decoding: pd.DataFrame) -> str:
    """Say what the gray band of the accuracy is."""
    if np.isnan(decoding_p(decoding)).all():
        return TOO_FEW
    band = f"p ≥ {LEVEL}" if "limit" in decoding else "95% of permuted labels"
    return f"line: chance; band: {band}"


def _asks_about_classes(usage: pd.DataFrame) -> bool:
    """Return whether gates of other classes were put in."""
    return any(name in (MISINFORMATION, MATCHED) for name, _ in series_of(usage))


def title_usage(
    axes: Sequence[Axes], usage: pd.DataFrame, test_of_accuracy: str, test_of_log_loss: str
) -> None:
    """Title the last two panels of a column, and name the gates below the last one.

    Args:
        axes: all panels. The last two show the effects on accuracy and on log loss, of single gates
            and then of joint targets.
        usage: the single gates.
        test_of_accuracy: the end of the sentence that says which marks are filled.
        test_of_log_loss: the same for the log loss.
    """
    accuracy, log_loss = axes[-2:]
    asked = "Removal and misinformation" if _asks_about_classes(usage) else "Removal"
    accuracy.set_title(f"{asked}: accuracy lost (filled: p < {LEVEL}{test_of_accuracy})")
    log_loss.set_title(
        f"{asked}: log loss added to {usage['own_log_loss'].max():.3g} "
        f"(filled: p < {LEVEL}{test_of_log_loss})"
    )
    for ax in (accuracy, log_loss):
        draw_border(ax, len(usage))
    log_loss.set_xlabel(IN_ORDER)
    for ax in axes[:-1]:
        ax.tick_params(labelbottom=False)


def table(shown: DecodableAndUsed) -> pd.DataFrame:
    """Return usage and decoding of single gates, and usage of gates together."""
    usage = pd.concat([shown.usage, shown.joint], ignore_index=True)
    more = [name for name in shown.decoding if name == "gate" or name not in usage]
    return usage.merge(shown.decoding[more], on="gate", how="left")


def caption(shown: DecodableAndUsed) -> str:
    """Say from which gates the class is decodable, and where it is used, alone and jointly."""
    return (
        "From top to bottom: how well the class can be decoded from each gate; the share of the "
        "variance of the gate that lies between classes (omega squared); and the accuracy that is "
        "lost and the log loss that is added (in nats, at the best temperature with and without "
        f"the replacement) {_replacements(shown.usage)}. Filled marks: p < {LEVEL}; that of omega "
        "squared is of permuted labels, one-sided and not corrected. "
        f"{usage_sentence(shown.usage, shown.decoding)}{joint_sentence(shown.joint)}"
        f"{_matching(shown.matching)} "
        f"The losses are measured on {shown.scored:,} images; constants and the gates of other "
        "images come from the remaining images, on which the best constant was chosen as well. "
        "Within each question, p values of losses are corrected over all gates and blocks, and "
        f"over accuracy and log loss (Holm, level {LEVEL}); those of decoding over the gates, by "
        "the highest accuracy under permuted labels."
    )


def _replacements(usage: pd.DataFrame) -> str:
    """Say by what gates were replaced in the panels of the losses."""
    words = {
        REMOVAL: "when the gate of an image is replaced by the best constant (removal)",
        RESAMPLE: "when it is replaced by the gate of any other image (resample ablation)",
        MISINFORMATION: "when it is that of another class instead of the same class "
        "(misinformation)",
        MATCHED: "the same with donors of about equal brightness and contrast",
    }
    made = [words[name] for name, _ in series_of(usage)]
    return ", ".join(made) if len(made) < 2 else f"{', '.join(made[:-1])}, and {made[-1]}"


def usage_sentence(usage: pd.DataFrame, decoding: pd.DataFrame | None = None) -> str:
    """Summarize the table of `attnscope.statistics.gate_usage`, also if nothing was found.

    Args:
        usage: the table.
        decoding: `attnscope.statistics.decode_gates`, for the intervals and the numbers of images.
    """
    if usage.empty:
        return "The network has no gates."
    return (
        _decodable_sentence(usage, decoding)
        + _decoding_details(usage, decoding)
        + removal_sentence(usage)
        + resample_sentence(usage)
        + misinformation_sentence(usage)
        + oracle_sentence(usage)
    )


def _matching(matching: Mapping[str, Any] | None) -> str:
    """Say how donors were matched; starts with a space."""
    if not matching:
        return ""
    what, without = " and ".join(matching["on"]), matching["images_without"]
    if matching["distance"] is None:
        return f" No two donors of different classes have equal {what}."
    text = (
        f" Equal {what}: each image has {matching['donors']} donors of either kind, which differ "
        f"by {matching['distance']:.2g} standard deviations on average, and by "
        f"{matching['caliper']:g} at most (random donors: {matching['random_distance']:.2g})."
    )
    if without:
        text += f" Left out: {as_count(without, 'image')} without such donors."
    return text


def _decodable_sentence(usage: pd.DataFrame, decoding: pd.DataFrame | None) -> str:
    probed = int(usage["p_read"].notna().sum())
    decodable, count = usage[significant(usage["p_read"])], as_count(probed, "gate")
    if not probed and usage["balanced_accuracy"].notna().any():
        text = f"Whether the class is decodable is not tested: {TOO_FEW}"
        if decoding is not None:
            scored = as_count(int(decoding["scored"].max()), "image")
            text += f" ({scored} that the probe did not see; a test needs {FEWEST})"
        text += "."
    elif not probed:
        text = "No linear probe could be fitted: there are too few images or classes."
    elif decodable.empty:
        text = f"The class is not found to be decodable from any of {count}."
    else:
        best = highest(decodable, "balanced_accuracy")
        text = (
            f"The class is decodable from {len(decodable)} of {count}, best from "
            f"{best['gate']}: balanced accuracy {as_percent(best['balanced_accuracy'])} (chance: "
            f"{as_percent(best['chance'])})."
        )
    if 0 < probed < len(usage):
        text += f" {as_count(len(usage) - probed, 'gate')} could not be probed."
    constant = int((usage["verdict"] == CONSTANT).sum())
    if constant:
        every = as_count(len(usage), "gate")
        text += f" {constant} of {every} {'is' if constant == 1 else 'are'} constant."
    return text


def _decoding_details(usage: pd.DataFrame, decoding: pd.DataFrame | None) -> str:
    """Say how certain the best accuracy is, and compare with the control; starts with a space."""
    if decoding is None or not usage["p_read"].notna().any():
        return ""
    best = highest(decoding, "balanced_accuracy")
    interval = as_interval(best["low"], best["high"], as_percent)
    text = f" On {as_count(int(best['scored']), 'image')} that the probe did not see, "
    if significant(usage["p_read"]).any():
        text += f"this accuracy has the {interval}."
    else:
        text += (
            f"the highest balanced accuracy is {as_percent(best['balanced_accuracy'])} ({interval};"
            f" chance: {as_percent(best['null'])}), at {best['gate']}."
        )
    low = decoding.get("selectivity_low", pd.Series(dtype=float))
    if not low.notna().any():
        return text
    above = int((low > 0).sum())
    return text + (
        f" The probe reads the class better than random classes of similar pictures (control task) "
        f"at {above} of {as_count(int(low.notna().sum()), 'gate')} (95% CI of the difference above "
        f"0, not corrected)."
    )


register_plot(
    Plot(
        name="decodable_and_used",
        title="Decodable and used",
        about="Whether the class is decodable from each gate, and whether the network uses it.",
        subject=Intervened,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=table,
        needs=(needs.outcome(REPLACED), needs.outcome("decoding")),
        place=10,
    )
)
