"""Sentences about removal, misinformation and oracle, for captions. No matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.plots.frames import highest, lowest
from attnscope.plots.text import (
    as_count,
    as_interval,
    as_plain_nats,
    as_plain_points,
)
from attnscope.statistics.inference import significant
from attnscope.statistics.questions import (
    MATCHED,
    MISINFORMATION,
    ORACLE,
    REMOVAL,
    RESAMPLE,
    direction,
    is_mixed,
)
from attnscope.statistics.verdicts import JOINTLY


def removal_sentence(frame: pd.DataFrame, noun: str = "gate") -> str:
    """Say where removal costs, where it helps, and what could have been seen; starts with a space.

    Args:
        frame: rows of `attnscope.statistics.gate_usage`, ``joint_usage`` or ``usage_over_seeds``.
        noun: what a row is.
    """
    count = as_count(len(frame), noun)
    if frame[["p_removal", "p_removal_log_loss"]].isna().to_numpy().all():
        return (
            f" Whether the network uses {'it' if len(frame) == 1 else 'them'} was not tested"
            f" ({count}): there is no test of the best constant instead of the image's own gate "
            "(attnscope intervene with --edits constant)."
        )
    signs, mixed = direction(frame, REMOVAL), is_mixed(frame, REMOVAL)
    tested = _is_tested(frame, REMOVAL)
    costs, helps = frame[signs > 0], frame[signs < 0]
    text = ""
    if len(costs):
        text += (
            f" Removal, the best constant instead of the image's own gate, costs at {len(costs)} "
            f"of {count}, most at {_most(costs, REMOVAL)}."
        )
        small = int(costs["equivalent"].sum()) if "equivalent" in costs else 0
        if small:
            text += (
                f" At {small} of these the cost is shown to be below the smallest effect of "
                "interest, so that the gate is not needed in spite of the cost."
            )
    if len(helps):
        text += f" Removal helps at {len(helps)} of {count}, most at {_least(helps, REMOVAL)}."
    if mixed.any():
        text += (
            f" At {int(mixed.sum())} of {count}, accuracy and log loss disagree on whether removal "
            f"costs or helps: {_most(frame[mixed], REMOVAL)}."
        )
    rest = frame[(signs == 0) & ~mixed & tested]
    if len(rest):
        text += _nothing_seen(rest, f"{len(rest)} of {count}")
    if not tested.all():
        text += (
            f" At {int((~tested).sum())} of {count} removal was not tested: nothing varies there, "
            "or too few images or donors do."
        )
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
        frame,
        MATCHED,
        "With donors of about equal brightness and contrast, the gate of another class",
    )
    if not text + matched:
        return ""
    return f"{text}{matched} This measures the sensitivity to a wrong gate, and not use."


def oracle_sentence(frame: pd.DataFrame) -> str:
    """Say where the mean gate of the true class is better; starts with a space, may be empty."""
    if frame[f"p_{ORACLE}"].isna().all():
        return ""
    frame = frame[_is_tested(frame, ORACLE)]
    gains = frame[direction(frame, ORACLE) > 0]
    count = as_count(len(frame), "gate")
    text = f" The mean gate of the true class (oracle) is better than the own gate at {len(gains)}"
    text += f" of {count}"
    if gains.empty:
        return f"{text}{_highest_end(frame, ORACLE)}."
    most = _leading(gains, ORACLE)
    value, log_loss = f"{ORACLE}_value", f"{ORACLE}_log_loss"
    interval = as_interval(most[f"{ORACLE}_low"], most[f"{ORACLE}_high"], as_plain_points)
    of_log_loss = as_interval(most[f"{log_loss}_low"], most[f"{log_loss}_high"], as_plain_nats)
    return (
        f"{text}, most at {most['gate']}: by {as_plain_points(most[value])} percentage points "
        f"({interval}) and {as_plain_nats(most[log_loss])} nats of the log loss ({of_log_loss})."
    )


def joint_sentence(joint: pd.DataFrame) -> str:
    """Summarize the removal of several gates at once; starts with a space.

    Args:
        joint: `attnscope.statistics.joint_usage`, or ``usage_over_seeds`` of it. It has no rows if
            the network has only one gate, and the text is empty.
    """
    text = ""
    blocks, together = joint[joint["kind"] == "block"], joint[joint["kind"] == "all"]
    if len(blocks):
        said = removal_sentence(blocks, "block").lstrip()
        text += f" For all gates of a block together: {said[:1].lower()}{said[1:]}"
    if len(together) and not together[["p_removal", "p_removal_log_loss"]].isna().to_numpy().all():
        row = together.iloc[0]
        found = {1: ": a significant cost", -1: ": a significant gain"}.get(
            int(direction(together, REMOVAL)[0]),
            ": one is better and the other worse" if is_mixed(together, REMOVAL)[0] else "",
        )
        text += f" With the best constants for all gates, {effect_of(row, REMOVAL)}{found}."
    if "verdict" in joint:
        alone = joint[joint["verdict"] == JOINTLY]
        if len(alone):
            text += (
                f" {', '.join(alone['gate'])}: used jointly, although no single gate of "
                f"{'it' if len(alone) == 1 else 'them'} is found to be used."
            )
    return text


def as_losses(table: pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """Return changes of accuracy and log loss as losses, with the columns of the question removal.

    Args:
        table: a table of `attnscope.interventions` with the columns ``change``, ``low``, ``high``,
            ``p``, ``log_loss_change``, ``log_loss_low``, ``log_loss_high`` and ``p_log_loss``.
        prefix: what the names of these columns begin with, such as ``recovered_``.
    """
    turned = {"_value": "change", "_low": "high", "_high": "low"}
    losses = {f"{REMOVAL}{end}": -table[f"{prefix}{name}"] for end, name in turned.items()}
    for end, name in (("", "change"), ("_low", "low"), ("_high", "high")):
        losses[f"{REMOVAL}_log_loss{end}"] = table[f"{prefix}log_loss_{name}"]
    tests = {f"p_{REMOVAL}{end}": table[f"{prefix}p{end}"] for end in ("", "_log_loss")}
    return table.assign(**losses, **tests)


def losses_sentence(losses: pd.DataFrame, what: str, noun: str = "gate") -> str:
    """Say where an edit costs, where it helps, and how far the intervals reach otherwise.

    Args:
        losses: table of `as_losses`, with a column ``gate``.
        what: the subject of the sentence: what is edited.
        noun: what a row is.
    """
    return _question(losses, REMOVAL, what, noun).strip() or f"{what} was not tested."


def effect_of(row: pd.Series[Any], question: str) -> str:
    """Say what happens to accuracy and log loss, with intervals; loss and gain are named.

    A gate may be used by one of the two alone, so that the other is said not to be significant.
    """
    value, log_loss = float(row[f"{question}_value"]), float(row[f"{question}_log_loss"])
    ends = float(row[f"{question}_low"]), float(row[f"{question}_high"])
    log_loss_ends = float(row[f"{question}_log_loss_low"]), float(row[f"{question}_log_loss_high"])
    p, p_log_loss = float(row[f"p_{question}"]), float(row[f"p_{question}_log_loss"])
    accuracy = _change("accuracy", value, ends, p, as_plain_points, " percentage points")
    # What is lost of the accuracy falls; what the log loss gains rises.
    of_log_loss = _change(
        "the log loss",
        log_loss,
        log_loss_ends,
        p_log_loss,
        as_plain_nats,
        " nats",
        ("rises", "falls"),
    )
    return f"{accuracy} and {of_log_loss}"


def _change(
    what: str,
    lost: float,
    ends: tuple[float, float],
    p: float,
    form: Callable[[float], str],
    unit: str,
    verbs: tuple[str, str] = ("falls", "rises"),
) -> str:
    """Say what a cost does to a measure, whose value and ends are costs, with an interval."""
    if np.isnan(lost):
        return f"{what} was not measured"
    note = "" if np.isnan(p) or significant(p) else ", not significant"
    if not lost:
        return f"{what} does not change ({as_interval(*ends, form)}{note})"
    verb = verbs[0] if lost > 0 else verbs[1]
    if lost < 0:
        lost, ends = -lost, (-ends[1], -ends[0])
    return f"{what} {verb} by {form(lost)}{unit} ({as_interval(*ends, form)}{note})"


def _is_tested(frame: pd.DataFrame, question: str) -> NDArray[np.bool_]:
    """Return where a question has a p value of the accuracy or of the log loss."""
    tested: NDArray[np.bool_] = (
        frame[[f"p_{question}", f"p_{question}_log_loss"]].notna().any(axis=1).to_numpy()
    )
    return tested


def _leading(frame: pd.DataFrame, question: str, sign: int = 1) -> pd.Series[Any]:
    """Return the row with the largest effect: of accuracy, or of the log loss if no accuracy moves.

    Args:
        frame: rows with an effect in one direction.
        question: name of the question.
        sign: 1 for the largest cost, -1 for the largest gain.
    """
    value = f"{question}_value"
    if not (sign * frame[value] > 0).any() and frame[f"{question}_log_loss"].notna().any():
        value = f"{question}_log_loss"
    return (highest if sign > 0 else lowest)(frame, value)


def _most(frame: pd.DataFrame, question: str) -> str:
    row = _leading(frame, question)
    return f"{row['gate']}: {effect_of(row, question)}"


def _least(frame: pd.DataFrame, question: str) -> str:
    row = _leading(frame, question, -1)
    return f"{row['gate']}: {effect_of(row, question)}"


def _nothing_seen(rest: pd.DataFrame, where: str) -> str:
    """Say that removal shows no effect somewhere, and what would have been seen."""
    text = f" At {where}, no effect of removal is seen"
    if "equivalent" in rest and rest["equivalent"].any():
        shown = int(rest["equivalent"].sum())
        text += (
            f"; at {shown} of them the change is shown to be below the smallest effect, so that "
            f"{'it is' if shown == 1 else 'they are'} not needed"
        )
        rest = rest[~rest["equivalent"].astype(bool)]
        if rest.empty:
            return f"{text}."
        text += ". At the others"
        if not ("detectable" in rest and np.isfinite(rest["detectable"]).any()):
            return f"{text} a smaller effect may have been missed{_highest_end(rest, REMOVAL)}."
        return text + _detectable(rest)
    if "detectable" in rest and np.isfinite(rest["detectable"]).any():
        return f"{text};{_detectable(rest)}"
    return f"{text}{_highest_end(rest, REMOVAL)}."


def _detectable(rest: pd.DataFrame) -> str:
    """Say which effect of removal would have been seen; starts with a space."""
    return (
        f" a loss of {as_plain_points(rest['detectable'].max())} percentage points, if no image is "
        f"gained, or a change in log loss of {rest['detectable_log_loss'].max():.2g} standard "
        "deviations of the change, would have been seen with a power of 80%."
    )


def _highest_end(frame: pd.DataFrame, question: str) -> str:
    """Say how far the intervals reach, in parentheses; empty if there are none."""
    found = []
    for column, form, unit in (
        (f"{question}_high", as_plain_points, "percentage points"),
        (f"{question}_log_loss_high", as_plain_nats, "nats of the log loss"),
    ):
        if frame[column].notna().any():
            found.append(f"{form(frame[column].max())} {unit}")
    return f" (upper ends of the 95% CIs: at most {' and '.join(found)})" if found else ""


def _question(frame: pd.DataFrame, question: str, what: str, noun: str = "gate") -> str:
    """Say where a question is answered by a loss; empty if it was not tested."""
    tests = frame[[f"p_{question}", f"p_{question}_log_loss"]]
    if tests.isna().to_numpy().all():
        return ""
    every = len(frame)
    frame = frame[_is_tested(frame, question)]
    signs, mixed = direction(frame, question), is_mixed(frame, question)
    count = as_count(len(frame), noun)
    costs, helps = frame[signs > 0], frame[signs < 0]
    text = f" {what} costs at {len(costs)} of {count}"
    if len(costs):
        text += f", most at {_most(costs, question)}"
    else:
        text += _highest_end(frame, question)
    if len(helps):
        text += f"; it helps at {len(helps)}, most at {_least(helps, question)}"
    if mixed.any():
        text += f"; at {int(mixed.sum())}, accuracy and log loss disagree"
    if len(frame) < every:
        text += f"; it was not tested at {every - len(frame)}"
    return f"{text}."
