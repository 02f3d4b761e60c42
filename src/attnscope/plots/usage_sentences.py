"""Sentences about removal, misinformation and oracle, for captions. No matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from attnscope.plots.frames import highest, lowest
from attnscope.plots.text import (
    as_count,
    as_interval,
    as_plain_logits,
    as_plain_points,
)
from attnscope.statistics.questions import (
    MATCHED,
    MISINFORMATION,
    ORACLE,
    REMOVAL,
    RESAMPLE,
    direction,
    is_mixed,
)
from attnscope.statistics.verdicts import JOINTLY, NOT_NEEDED


def removal_sentence(frame: pd.DataFrame, noun: str = "gate") -> str:
    """Say where removal costs, where it helps, and what could have been seen; starts with a space.

    Args:
        frame: rows of `attnscope.statistics.gate_usage`, ``joint_usage`` or ``usage_over_seeds``.
        noun: what a row is.
    """
    count = as_count(len(frame), noun)
    if frame[["p_removal", "p_removal_margin"]].isna().to_numpy().all():
        return (
            f" Whether the network uses {'it' if len(frame) == 1 else 'them'} was not tested"
            f" ({count}): there is no test of the best constant instead of the image's own gate "
            "(attnscope intervene with --edits constant)."
        )
    signs, mixed = direction(frame, REMOVAL), is_mixed(frame, REMOVAL)
    costs, helps = frame[signs > 0], frame[signs < 0]
    text = ""
    if len(costs):
        text += (
            f" Removal, the best constant instead of the image's own gate, costs at {len(costs)} "
            f"of {count}, most at {_most(costs, REMOVAL)}."
        )
    if len(helps):
        text += f" Removal helps at {len(helps)} of {count}, most at {_least(helps, REMOVAL)}."
    if mixed.any():
        text += (
            f" At {int(mixed.sum())} of {count}, removal moves accuracy and margin in opposite "
            f"directions: {_most(frame[mixed], REMOVAL)}."
        )
    rest = frame[(signs == 0) & ~mixed]
    if len(rest):
        text += _nothing_seen(rest, f"{len(rest)} of {count}")
    return text


def resample_sentence(frame: pd.DataFrame) -> str:
    """Say where the gate of any other image costs; starts with a space, empty without a test."""
    return _question(
        frame, RESAMPLE, "The gate of any other image instead of its own (resample ablation)"
    )


def misinformation_sentence(frame: pd.DataFrame) -> str:
    """Say where the gate of another class is worse than one of the same; starts with a space.

    It is empty without a test.
    """
    text = _question(
        frame,
        MISINFORMATION,
        "The gate of another class instead of the same class (misinformation)",
    )
    matched = _question(
        frame, MATCHED, "With donors of equal brightness and contrast, the gate of another class"
    )
    if not text + matched:
        return ""
    return f"{text}{matched} This measures the sensitivity to a wrong gate, and not use."


def oracle_sentence(frame: pd.DataFrame) -> str:
    """Say where the mean gate of the true class is better; starts with a space, may be empty."""
    if frame[f"p_{ORACLE}"].isna().all():
        return ""
    gains = frame[direction(frame, ORACLE) > 0]
    count = as_count(len(frame), "gate")
    text = f" The mean gate of the true class (oracle) is better than the own gate at {len(gains)}"
    text += f" of {count}"
    if gains.empty:
        return f"{text}{_highest_end(frame, ORACLE)}."
    most = highest(gains, f"{ORACLE}_value")
    interval = as_interval(most[f"{ORACLE}_low"], most[f"{ORACLE}_high"], as_plain_points)
    points = as_plain_points(most[f"{ORACLE}_value"])
    return f"{text}, most at {most['gate']}: by {points} percentage points ({interval})."


def joint_sentence(joint: pd.DataFrame) -> str:
    """Summarize the removal of several gates at once; starts with a space.

    Args:
        joint: `attnscope.statistics.joint_usage`, or ``usage_over_seeds`` of it. It has no rows if
            the network has only one gate, and the text is empty.
    """
    text = ""
    blocks, together = joint[joint["kind"] == "block"], joint[joint["kind"] == "all"]
    if len(blocks):
        text += f" All gates of a block at once:{removal_sentence(blocks, 'block')}"
    if len(together) and not together[["p_removal", "p_removal_margin"]].isna().to_numpy().all():
        row = together.iloc[0]
        found = {1: "a significant cost", -1: "a significant gain"}.get(
            int(direction(together, REMOVAL)[0]),
            "in opposite directions" if is_mixed(together, REMOVAL)[0] else "not significant",
        )
        text += f" With the best constants for all gates, {effect_of(row, REMOVAL)}: {found}."
    if "verdict" in joint:
        alone = joint[joint["verdict"] == JOINTLY]
        if len(alone):
            text += (
                f" {', '.join(alone['gate'])}: used jointly, although no single gate of "
                f"{'it' if len(alone) == 1 else 'them'} is found to be used."
            )
    return text


def effect_of(row: pd.Series[Any], question: str) -> str:
    """Say what happens to accuracy and margin, with intervals; loss and gain are named."""
    value, margin = float(row[f"{question}_value"]), float(row[f"{question}_margin"])
    ends = float(row[f"{question}_low"]), float(row[f"{question}_high"])
    margin_ends = float(row[f"{question}_margin_low"]), float(row[f"{question}_margin_high"])
    accuracy = _change("accuracy", value, ends, as_plain_points, " percentage points")
    return (
        f"{accuracy} and {_change('the margin', margin, margin_ends, as_plain_logits, ' logits')}"
    )


def _change(
    what: str, lost: float, ends: tuple[float, float], form: Callable[[float], str], unit: str
) -> str:
    if np.isnan(lost):
        return f"{what} was not measured"
    if not lost:
        return f"{what} does not change ({as_interval(*ends, form)})"
    verb = "falls" if lost > 0 else "rises"
    if lost < 0:
        lost, ends = -lost, (-ends[1], -ends[0])
    return f"{what} {verb} by {form(lost)}{unit} ({as_interval(*ends, form)})"


def _most(frame: pd.DataFrame, question: str) -> str:
    row = highest(frame, f"{question}_value")
    return f"{row['gate']}: {effect_of(row, question)}"


def _least(frame: pd.DataFrame, question: str) -> str:
    row = lowest(frame, f"{question}_value")
    return f"{row['gate']}: {effect_of(row, question)}"


def _nothing_seen(rest: pd.DataFrame, where: str) -> str:
    """Say that removal shows no effect somewhere, and what would have been seen."""
    text = f" At {where}, no effect of removal is seen"
    if "verdict" in rest:
        shown = int((rest["verdict"] == NOT_NEEDED).sum())
        if rest["equivalent"].any():
            return (
                f"{text}; at {shown} of them the 90% CI lies within the smallest effect of "
                "interest, so that they are not needed."
            )
    if "detectable" in rest and np.isfinite(rest["detectable"]).any():
        return (
            f"{text}; a loss of {as_plain_points(rest['detectable'].max())} percentage points, or "
            f"of {rest['detectable_margin'].max():.2g} standard deviations of the change in "
            "margin, would have been seen with a power of 80%."
        )
    return f"{text}{_highest_end(rest, REMOVAL)}."


def _highest_end(frame: pd.DataFrame, question: str) -> str:
    """Say how far the intervals reach, in parentheses; empty if there are none."""
    ends = frame[f"{question}_high"]
    if ends.isna().all():
        return ""
    return f" (upper ends of the 95% CIs: at most {as_plain_points(ends.max())} percentage points)"


def _question(frame: pd.DataFrame, question: str, what: str) -> str:
    """Say where a question is answered by a loss; empty if it was not tested."""
    tests = frame[[f"p_{question}", f"p_{question}_margin"]]
    if tests.isna().to_numpy().all():
        return ""
    signs, mixed = direction(frame, question), is_mixed(frame, question)
    count = as_count(len(frame), "gate")
    costs, helps = frame[signs > 0], frame[signs < 0]
    text = f" {what} costs at {len(costs)} of {count}"
    if len(costs):
        text += f", most at {_most(costs, question)}"
    else:
        text += _highest_end(frame, question)
    if len(helps):
        text += f"; it helps at {len(helps)}, most at {_least(helps, question)}"
    if mixed.any():
        text += f"; at {int(mixed.sum())}, accuracy and margin move in opposite directions"
    return f"{text}."
