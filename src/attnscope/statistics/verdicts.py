"""Verdicts on the use of a gate, from the answers to three questions."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.statistics.inference import LEVEL, significant
from attnscope.statistics.questions import (
    MATCHED,
    MISINFORMATION,
    REMOVAL,
    direction,
    is_mixed,
)

CONSTANT = "constant"
UNTESTED = "removal not measured"
CLASS_USED = "used, class-specific"
USED = "used"
HARMS = "removal helps"
MIXED = "accuracy and log loss disagree on removal"
NOT_NEEDED = "not needed"
SENSITIVE = "no use detected; sensitive to the gate of another class"
UNUSED = "no use detected; class is decodable"
NOTHING = "no use detected"
JOINTLY = "used jointly; no single gate is"
VERDICTS = (
    CONSTANT, UNTESTED, NOT_NEEDED, CLASS_USED, USED, HARMS, MIXED, SENSITIVE, UNUSED,
    NOTHING,
)  # fmt: skip
"""The verdicts of `gate_usage`, in the order in which the first that applies is taken."""
JOINT_VERDICTS = (
    UNTESTED, NOT_NEEDED, JOINTLY, CLASS_USED, USED, HARMS, MIXED, SENSITIVE, NOTHING,
)  # fmt: skip
"""The verdicts of `joint_usage`, in the same order."""


def target_kind(target: str) -> str:
    """Return what a target of `attnscope.interventions.replace_gates` is: gate, block or all."""
    if target == "all":
        return target
    return "block" if target.startswith("block ") else "gate"


def verdicts(
    asked: pd.DataFrame,
    *,
    constant: NDArray[np.bool_] | None = None,
    reads: NDArray[np.bool_] | None = None,
    level: float = LEVEL,
) -> NDArray[np.object_]:
    """Return the verdict on each target of edits.

    Args:
        asked: rows of the table of `attnscope.statistics.questions.ask`; the index has the targets.
        constant: ``(rows,)``, whether the gate has one value for all images.
        reads: ``(rows,)``, whether the class is decodable from the gate.
        level: significance level.

    Returns:
        ``(rows,)``, some of `VERDICTS` and `JOINT_VERDICTS`.
    """
    nothing = np.zeros(len(asked), bool)
    removal = direction(asked, REMOVAL, level)
    untested = asked[["p_removal", "p_removal_log_loss"]].isna().all(axis=1).to_numpy()
    misled = (direction(asked, MISINFORMATION, level) > 0) | (direction(asked, MATCHED, level) > 0)
    # Only matched donors tell the class from brightness and contrast.
    specific = direction(asked, MATCHED, level) > 0
    kinds = np.array([target_kind(str(target)) for target in asked.index])
    found: NDArray[np.object_] = np.select(
        [
            nothing if constant is None else constant,
            untested,
            significant(asked["p_equivalent"], level),
            (kinds != "gate") & (removal > 0) & ~_has_used_part(asked, removal),
            (removal > 0) & specific,
            removal > 0,
            removal < 0,
            is_mixed(asked, REMOVAL, level),
            misled,
            nothing if reads is None else reads,
        ],
        [
            CONSTANT, UNTESTED, NOT_NEEDED, JOINTLY, CLASS_USED, USED, HARMS, MIXED,
            SENSITIVE, UNUSED,
        ],
        NOTHING,
    ).astype(object)  # fmt: skip
    return found


def _has_used_part(asked: pd.DataFrame, removal: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each target of several gates whether a single gate of it is used.

    The gates of a block are those whose names continue its path. For all gates together, used
    blocks count as well. A block of which no gate is known counts as having a used gate, because
    nothing can be said about its gates.
    """
    targets = [str(target) for target in asked.index]
    used = [target for target, sign in zip(targets, removal, strict=True) if sign > 0]
    found = np.zeros(len(targets), bool)
    for place, target in enumerate(targets):
        kind = target_kind(target)
        if kind == "all":
            found[place] = any(part != "all" for part in used)
        elif kind == "block":
            path = target.removeprefix("block ")
            parts = [
                part
                for part in targets
                if target_kind(part) == "gate" and re.match(rf"{re.escape(path)}([.#]|$)", part)
            ]
            found[place] = not parts or any(part in used for part in parts)
    return found
