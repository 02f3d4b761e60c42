"""What the network uses of its gates, averaged over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from attnscope.errors import InputError
from attnscope.statistics.effects import OWN, own_outcomes
from attnscope.statistics.inference import (
    LEVEL,
    holm,
    paired_interval,
    significant,
    t_interval,
    within,
)
from attnscope.statistics.outcome_pairs import (
    accuracy_difference,
    log_loss_difference,
    paired_images,
    sharing_of,
)
from attnscope.statistics.paired import Sharing
from attnscope.statistics.questions import (
    MATCHED,
    MISINFORMATION,
    QUESTIONS,
    REMOVAL,
    Question,
    columns_of,
    direction,
)
from attnscope.statistics.registry import statistic
from attnscope.statistics.verdicts import CLASS_USED


@statistic("What the network uses of its gates, averaged over seeds.", takes=("usages",))
def usage_over_seeds(
    usages: Sequence[pd.DataFrame],
    level: float = LEVEL,
    *,
    outcomes: Sequence[pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Summarize `gate_usage` over several seeds of one configuration, gate by gate.

    Each number is the mean over the seeds. An effect that is present in every seed can be
    significant even if its size varies. An effect that is present in a single seed only is not
    significant here, but is counted in the last columns.

    With ``outcomes``, intervals (95%) and tests hold for other seeds, other images and other
    donors: the variance of the mean is that between seeds, plus that between images (of which some
    share a donor), minus that of their interaction, which both contain (Cameron, Gelbach and Miller
    2011, Journal of Business & Economic Statistics 29); degrees of freedom by Satterthwaite (1946,
    Biometrics Bulletin 2), but one less than the number of seeds with two seeds, and where the
    variance between seeds is the larger one. Without them, the sampling unit is the seed (Student's
    t), and the results are conditional on the scored images and on the donors, which all seeds on
    the same data share. Null hypothesis: the mean is 0.

    Args:
        usages: tables of `gate_usage`, one per seed. Tables of `joint_usage` lack the columns about
            decoding and depth; both can be concatenated into one table.
        level: significance level of the counts, after correction.
        outcomes: tables of `attnscope.interventions.replace_gates`, one per seed, of the same
            images.

    Returns:
        One row per gate:

        - ``gate``, ``kind``, ``depth``
        - ``seeds``: number of seeds.
        - ``balanced_accuracy``, ``balanced_low``, ``balanced_high``, ``chance``
        - the columns of each question, as in `gate_usage`.
        - ``own_log_loss``: mean over the seeds.
        - ``reads``, ``uses``, ``class_specific``, ``harms``, ``misled``: number of seeds in which,
          by the tests of that seed alone, the class can be decoded, removal costs, the gate is used
          and class-specific, removal is a gain, and a gate of another class is worse than one of
          the same class.

        Columns have the units of `gate_usage`. Intervals of accuracies contain only values that are
        possible. Within each question, p values are Holm-corrected over all rows, and over accuracy
        and log loss. Intervals and p values are NaN with one seed, and if there is no variance.

    Raises:
        InputError: there are no tables (AS712), they are of different gates (AS713), or the
            outcomes are not as many as the tables (AS741).
    """
    _expect(usages, outcomes)
    first = usages[0]
    frame = first[[c for c in ("gate", "kind", "depth") if c in first]].reset_index(drop=True)
    frame["seeds"] = len(usages)

    def stack(column: str) -> NDArray[np.float64]:
        return np.stack([usage[column].to_numpy(np.float64) for usage in usages])

    if "balanced_accuracy" in first:
        found = [within(paired_interval(v), 0, 1) for v in stack("balanced_accuracy").T]
        frame["balanced_accuracy"] = [each["difference"] for each in found]
        for end in ("low", "high"):
            frame[f"balanced_{end}"] = [each[end] for each in found]
        frame["chance"] = stack("chance").mean(0)
    for question in QUESTIONS:
        columns = columns_of(question.name)
        if all(usage[columns].isna().to_numpy().all() for usage in usages):
            frame[columns] = np.nan  # it was not asked
            continue
        p, p_log_loss = columns[3], columns[7]
        crossed = None
        if outcomes is not None and len(outcomes) > 1:
            crossed = [_crossed(outcomes, str(gate), question) for gate in frame["gate"]]
        for place, part in enumerate((columns[:4], columns[4:])):
            rows = [
                paired_interval(values) if crossed is None else crossed[k][place]
                for k, values in enumerate(stack(part[0]).T)
            ]
            if place == 0:  # accuracy, and not the log loss
                rows = [within(row, -1, 1) for row in rows]
            for column, key in zip(part, ("difference", "low", "high", "p"), strict=True):
                frame[column] = [row[key] for row in rows]
        both = frame[[p, p_log_loss]].to_numpy(np.float64)
        frame[[p, p_log_loss]] = holm(both.ravel()).reshape(both.shape)
    frame["own_log_loss"] = stack("own_log_loss").mean(0)

    def count(holds: Callable[[pd.DataFrame], NDArray[np.bool_]]) -> NDArray[np.int64]:
        counted: NDArray[np.int64] = np.stack([holds(usage) for usage in usages]).sum(0)
        return counted

    if "p_read" in first:
        frame["reads"] = count(lambda usage: significant(usage["p_read"], level))
    frame["uses"] = count(lambda usage: direction(usage, REMOVAL, level) > 0)
    frame["class_specific"] = count(lambda usage: (usage["verdict"] == CLASS_USED).to_numpy())
    frame["harms"] = count(lambda usage: direction(usage, REMOVAL, level) < 0)
    frame["misled"] = count(
        lambda usage: (
            (direction(usage, MISINFORMATION, level) > 0) | (direction(usage, MATCHED, level) > 0)
        )
    )
    return frame


def crossed_interval(
    values: NDArray[np.float64], sharing: Sharing | None = None
) -> dict[str, float]:
    """Return the mean over crossed seeds and images, with its interval (95%) and t test.

    Null hypothesis of p: the mean is 0. Satterthwaite's degrees of freedom are too many where a
    variance between few seeds decides: with two seeds it may be estimated as nearly 0 by chance.
    With two seeds, and where the variance between seeds is larger than that between images, there
    are S - 1 degrees of freedom.

    Args:
        values: the difference of each image in each seed, ``(S, N)``.
        sharing: which images share a donor; None if none do.

    Returns:
        ``difference`` (the mean), ``low``, ``high`` and ``p``; all but the mean are NaN with one
        seed or image, without variance, or with too few donors.
    """
    seeds, images = values.shape
    mean = float(values.mean())
    none = {"difference": mean, "low": np.nan, "high": np.nan, "p": np.nan}
    if seeds < 2 or images < 2 or (sharing is not None and not sharing.is_enough):
        return none
    of_seeds, of_images = values.mean(1), values.mean(0)
    rest = values - of_seeds[:, None] - of_images + mean
    between_seeds = of_seeds.var(ddof=1) / seeds
    between_images = of_images.var(ddof=1) / images
    if sharing is not None:
        between_images *= sharing.inflation(of_images)
    both = (rest**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)
    variance = max(between_seeds + between_images - both, between_seeds, between_images)
    if not variance > 0:
        return none
    units = images if sharing is None else min(images, sharing.donors)
    parts = between_seeds**2 / (seeds - 1) + between_images**2 / (units - 1)
    degrees = max(variance**2 / parts, 1.0)
    if seeds == 2 or between_seeds > between_images:
        degrees = min(degrees, seeds - 1.0)
    error = float(np.sqrt(variance))
    low, high = t_interval(mean, error, degrees)
    p = float(2 * stats.t.sf(abs(mean) / error, degrees))
    return {"difference": mean, "low": float(low), "high": float(high), "p": p}


def _crossed(
    outcomes: Sequence[pd.DataFrame], target: str, question: Question
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the answer to a question over seeds: the accuracy, and the log loss."""
    pairs = []
    for table in outcomes:
        part = table[table["target"].astype(str) == target]
        sides = [
            own_outcomes(table).reset_index() if edit == OWN else part[part["edit"] == edit]
            for edit in (question.first, question.second)
        ]
        pairs.append(paired_images(*sides))
    shared = pairs[0][0].rows
    for before, _ in pairs[1:]:
        shared = shared[np.isin(shared, before.rows)]
    if not len(shared):
        none = dict.fromkeys(("difference", "low", "high", "p"), np.nan)
        return none, none
    taken = [(before.take(shared), after.take(shared)) for before, after in pairs]
    sharing = sharing_of(*taken[0])
    by_accuracy = np.stack([accuracy_difference(*pair) for pair in taken])
    return (
        crossed_interval(by_accuracy, sharing),
        crossed_interval(np.stack([-log_loss_difference(*pair) for pair in taken]), sharing),
    )


def _expect(usages: Sequence[pd.DataFrame], outcomes: Sequence[pd.DataFrame] | None) -> None:
    if not usages:
        raise InputError(
            "AS712", "the list of usage tables is empty; pass at least one table of gate_usage"
        )
    if outcomes is not None and len(outcomes) != len(usages):
        raise InputError(
            "AS741",
            f"there are {len(usages)} usage tables, but outcomes of {len(outcomes)} seeds; pass "
            "the outcomes of the same seeds, in the same order",
        )
    first = usages[0]
    for other in usages[1:]:
        if list(other["gate"]) != list(first["gate"]):
            odd = sorted(set(first["gate"]) ^ set(other["gate"]))
            what = f"only one of two has the gate '{odd[0]}'" if odd else "their order differs"
            raise InputError(
                "AS713",
                f"the usage tables are of different gates: {what}; pass tables of one kind of "
                "network",
            )
