"""Three questions about a gate: removal, misinformation and oracle, for each target of edits.

- **Removal**: what does the network lose if it never sees the image's own gate? The gate is the
  best constant, or the gate of any other image (whatever its class).
- **Misinformation**: how much worse is the gate of another class than a gate of the same class? It
  measures the sensitivity to a wrong gate, and not whether the gate is needed.
- **Oracle**: does the network gain if it is given the mean gate of the true class?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.statistics.effects import OWN, edit_contrast, own_outcomes
from attnscope.statistics.inference import LEVEL, holm, significant
from attnscope.statistics.noninferiority import paired_loss_p
from attnscope.statistics.outcome_pairs import (
    accuracy_difference,
    log_loss_difference,
    paired_images,
)
from attnscope.statistics.paired import detectable_loss, detectable_shift, equivalence_t


@dataclass(frozen=True)
class Question:
    """A comparison of two edits: the accuracy under the second minus that under the first.

    Log losses are compared the other way round, so that a positive value has the same meaning.
    """

    name: str
    """Prefix of its columns."""
    first: str
    second: str
    about: str
    """What a positive value means."""


QUESTIONS = (
    Question("removal", "constant", OWN, "lost under the best constant"),
    Question("resample", "swap_any", OWN, "lost with the gate of any other image"),
    Question(
        "misinformation", "swap_other", "swap_same", "lost with the gate of another class instead "
        "of the same class",
    ),
    Question(
        "matched", "matched_other", "matched_same", "lost with the gate of another class instead "
        "of the same class, of images of about equal brightness and contrast",
    ),
    Question("oracle", OWN, "true", "gained with the mean gate of the true class"),
)  # fmt: skip
"""All questions, in the order of their columns."""
REMOVAL, RESAMPLE, MISINFORMATION, MATCHED, ORACLE = (question.name for question in QUESTIONS)


def columns_of(question: str) -> list[str]:
    """Return the columns of a question: accuracy and p, then log loss and p."""
    ends = ("value", "low", "high")
    accuracy = [f"{question}_{end}" for end in ends]
    log_loss = [f"{question}_log_loss{end}" for end in ("", "_low", "_high")]
    return [*accuracy, f"p_{question}", *log_loss, f"p_{question}_log_loss"]


def ask(
    outcomes: pd.DataFrame,
    resamples: int = 1000,
    smallest_effect: float | None = None,
    smallest_log_loss: float | None = None,
) -> pd.DataFrame:
    """Answer all questions about all targets of edits.

    p values are Holm-corrected within each question: over all targets (gates, blocks and all gates
    together), and over accuracy and log loss.

    Args:
        outcomes: table of `attnscope.interventions.replace_gates`.
        resamples: number of bootstrap resamples.
        smallest_effect: smallest change in accuracy that matters, a share; None if not stated.
        smallest_log_loss: smallest change in log loss that matters, in nats; None if not stated.

    Returns:
        One row per target, with the index ``target`` and the columns of each question
        (`columns_of`); NaN where an edit was not made. Then

        - ``p_equivalent``: Holm-corrected over all targets. Null hypothesis: removal changes the
          accuracy, or the log loss, by at least the smallest effect. NaN if none is stated.
        - ``detectable``, ``detectable_log_loss``: the loss of accuracy (a share) and the change in
          log loss (in standard deviations of the change) that removal would have shown with a power
          of 80%, from the numbers of images and of tests alone.
        - ``own_log_loss``: mean log loss of the unedited network, in nats.

    Raises:
        InputError: a column is missing, or an image has no outcome, or several, of the unedited
            network.
    """
    own = own_outcomes(outcomes)
    edited = outcomes[outcomes["edit"] != OWN]
    made = {OWN, *edited["edit"].unique()}
    targets = [str(target) for target in edited["target"].drop_duplicates()]
    frame = pd.DataFrame(index=pd.Index(targets, name="target"))
    for question in QUESTIONS:
        name, columns = question.name, columns_of(question.name)
        if not {question.first, question.second} <= made:
            frame[columns] = np.nan
            continue
        contrast = edit_contrast(outcomes, question.first, question.second, resamples)
        contrast = contrast.astype({"target": str}).set_index("target").reindex(targets)
        for end, given in (("value", "change"), ("low", "low"), ("high", "high")):
            frame[f"{name}_{end}"] = contrast[given]
        frame[f"p_{name}"] = contrast["p"]
        for end, given in (("", "change"), ("_low", "high"), ("_high", "low")):
            frame[f"{name}_log_loss{end}"] = -contrast[f"log_loss_{given}"]
        frame[f"p_{name}_log_loss"] = contrast["p_log_loss"]
        tests = [f"p_{name}", f"p_{name}_log_loss"]
        both = frame[tests].to_numpy(np.float64)
        frame[tests] = holm(both.ravel()).reshape(both.shape)
    count = int(frame[["p_removal", "p_removal_log_loss"]].notna().to_numpy().sum())
    found = [_removal_of(target, edited, own, LEVEL / max(count, 1)) for target in targets]
    frame = frame.join(pd.DataFrame(found, frame.index))
    smallest = smallest_effect, smallest_log_loss
    equivalence = [_equivalence(target, edited, own, *smallest) for target in targets]
    frame["p_equivalent"] = holm(np.array(equivalence, np.float64))
    frame["own_log_loss"] = own["log_loss"].mean()
    return frame


def direction(frame: pd.DataFrame, question: str, level: float = LEVEL) -> NDArray[np.int64]:
    """Return in which direction a question is answered.

    Args:
        frame: a table with the columns of the question.
        question: name of the question.
        level: significance level.

    Returns:
        ``(rows,)``: 1 if the value is positive (a cost): accuracy or log loss is significant, and
        the other one does not have the opposite sign, by its 95% CI; -1 if it is negative; 0
        otherwise.
    """
    columns = columns_of(question)
    value, of_value, by_value = _signs(frame, columns[:4], level)
    log_loss, of_log_loss, by_log_loss = _signs(frame, columns[4:], level)
    found = np.zeros(len(frame), np.int64)
    for sign in (1, -1):
        found[by_value & (value == sign) & (of_log_loss != -sign)] = sign
        found[by_log_loss & (log_loss == sign) & (of_value != -sign)] = sign
    return found


def _signs(
    frame: pd.DataFrame, columns: list[str], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return the sign of a value, that of its interval (0 around 0), and whether p is significant.

    Args:
        frame: the table.
        columns: those of the value, the ends of its interval, and p.
        level: significance level.
    """
    value, low, high, p = (frame[column].to_numpy(np.float64) for column in columns)
    sure = np.where(low > 0, 1.0, np.where(high < 0, -1.0, 0.0))
    return np.sign(value), sure, significant(p, level)


def is_mixed(frame: pd.DataFrame, question: str, level: float = LEVEL) -> NDArray[np.bool_]:
    """Return whether something is significant, and the other's interval is on the other side."""
    found = significant(frame[f"p_{question}"], level)
    found |= significant(frame[f"p_{question}_log_loss"], level)
    mixed: NDArray[np.bool_] = found & (direction(frame, question, level) == 0)
    return mixed


def _equivalence(
    target: str,
    edited: pd.DataFrame,
    own: pd.DataFrame,
    smallest_effect: float | None,
    smallest_log_loss: float | None,
) -> float:
    """Return the p value of the test that removal changes less than the smallest effects.

    Two one-sided tests in each measure that is stated (Schuirmann 1987, Journal of Pharmacokinetics
    and Biopharmaceutics 15): the exact test of a paired loss for accuracy, and Student's for the
    log loss. All of them must be significant, so p is the largest.
    """
    part = edited[(edited["target"] == target) & (edited["edit"] == "constant")]
    if not len(part):
        return np.nan
    before, after = paired_images(part, own.reset_index())
    p = [np.nan]
    if smallest_effect is not None:
        difference = accuracy_difference(before, after)
        lost, gained = int((difference > 0).sum()), int((difference < 0).sum())
        p += [
            paired_loss_p(one, other, len(difference), smallest_effect)
            for one, other in ((lost, gained), (gained, lost))
        ]
    if smallest_log_loss is not None:
        p.append(equivalence_t(log_loss_difference(before, after), smallest_log_loss))
    return float(np.nanmax(p)) if len(p) > 1 else np.nan


def _removal_of(
    target: str, edited: pd.DataFrame, own: pd.DataFrame, level: float
) -> dict[str, float]:
    """Return which effects of removal could be seen."""
    part = edited[(edited["target"] == target) & (edited["edit"] == "constant")]
    before, after = paired_images(part, own.reset_index())
    images = len(accuracy_difference(before, after))
    return {
        "detectable": detectable_loss(images, level),
        "detectable_log_loss": detectable_shift(images, level),
    }
