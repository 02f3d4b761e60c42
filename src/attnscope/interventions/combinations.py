"""Gates in combination: is one gate sufficient, and do two cost more together than apart?

Gates are replaced by their best constants (`attnscope.interventions.constants`).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.interventions.replacement import replace_and_keep
from attnscope.interventions.setup import InterventionSetup, Target
from attnscope.interventions.work import Work
from attnscope.statistics.effects import OWN
from attnscope.statistics.inference import holm, paired_t
from attnscope.statistics.outcome_pairs import (
    ImageOutcomes,
    accuracy_difference,
    log_loss_difference,
    paired_changes,
    paired_images,
    paired_tests,
)
from attnscope.statistics.paired import mean_interval

_EDIT = "constant"
_EFFECT = [
    "change",
    "low",
    "high",
    "p",
    "log_loss_change",
    "log_loss_low",
    "log_loss_high",
    "p_log_loss",
]
_SUFFICIENCY = ["gate", "images", *_EFFECT, *(f"recovered_{column}" for column in _EFFECT)]
_PAIRS = [
    "first",
    "second",
    "images",
    *_EFFECT,
    "excess",
    "excess_log_loss",
    "excess_log_loss_low",
    "excess_log_loss_high",
    "p_excess_log_loss",
]


def sufficiency_targets(setup: InterventionSetup) -> list[Target]:
    """Return each gate, all gates, and all gates but one; none for a network with one gate."""
    names = [gate.name for gate in setup.gates]
    if len(names) < 2:
        return []
    rest = [
        Target(f"all but {kept}", tuple(name for name in names if name != kept), "all but")
        for kept in names
    ]
    return [*_singles(setup), Target("all", tuple(names), "all"), *rest]


def pair_targets(setup: InterventionSetup) -> list[Target]:
    """Return each gate, and each pair of gates that are applied in the forward of one module."""
    modules = dict.fromkeys(gate.applied_in for gate in setup.gates)
    pairs = [
        Target(f"{a.name} + {b.name}", (a.name, b.name), "pair")
        for module in modules
        for a, b in combinations([g for g in setup.gates if g.applied_in == module], 2)
    ]
    return [*_singles(setup), *pairs] if pairs else []


def measure_sufficiency(
    setup: InterventionSetup,
    *,
    resamples: int = 1000,
    progress: bool = True,
    work: Work | None = None,
) -> pd.DataFrame:
    """Measure what one gate does alone: all other gates are constants.

    Args:
        setup: The network and its images.
        resamples: Number of bootstrap resamples.
        progress: Whether to show a progress bar, if there is no ``work``.
        work: Pieces that are finished already, and where new ones are kept.

    Returns:
        One row per gate; none for a network with one gate:

        - ``gate``, ``images``
        - ``change``, ``low``, ``high``, ``p``, ``log_loss_change``, ``log_loss_low``,
          ``log_loss_high``, ``p_log_loss``: accuracy and log loss if only this gate is that of the
          image, minus those of the unedited network, as in `attnscope.statistics.edit_contrast`. A
          gate is sufficient if there is no loss.
        - the same with ``recovered_`` in front: minus those with constants for all gates, what the
          gate adds alone.

        p values are Holm-corrected over gates, accuracy and log loss.
    """
    targets = sufficiency_targets(setup)
    if not targets:
        return pd.DataFrame(columns=_SUFFICIENCY)
    table = replace_and_keep(
        setup, edits=[_EDIT], targets=targets, progress=progress, work=work
    ).table
    rows = []
    for gate in setup.gates:
        alone = _of(table, f"all but {gate.name}")
        effect = _effect(*paired_images(_of(table, ""), alone), resamples, setup.seed)
        gained = _effect(*paired_images(_of(table, "all"), alone), resamples, setup.seed)
        recovered = {f"recovered_{name}": value for name, value in gained.items()}
        rows.append({"gate": gate.name, "images": len(alone), **effect, **recovered})
    found = pd.DataFrame(rows, columns=_SUFFICIENCY)
    for columns in (["p", "p_log_loss"], ["recovered_p", "recovered_p_log_loss"]):
        _correct(found, columns)
    return found


def measure_pairs(
    setup: InterventionSetup,
    *,
    resamples: int = 1000,
    progress: bool = True,
    work: Work | None = None,
) -> pd.DataFrame:
    """Measure whether constants for two gates of a block cost more together than apart.

    Log losses are convex in the logits, so those of gates that do not depend on each other need not
    add up: an excess does not show that one gate stands in for the other.

    Args:
        setup: The network and its images.
        resamples: Number of bootstrap resamples.
        progress: Whether to show a progress bar, if there is no ``work``.
        work: Pieces that are finished already, and where new ones are kept.

    Returns:
        One row per pair of gates that are applied in the forward of one module:

        - ``first``, ``second``, ``images``
        - ``change``, ``low``, ``high``, ``p``, ``log_loss_change``, ``log_loss_low``,
          ``log_loss_high``, ``p_log_loss``: changes under constants for both gates, as in
          `attnscope.statistics.edit_contrast`.
        - ``excess``, ``excess_log_loss``, ``excess_log_loss_low``, ``excess_log_loss_high``,
          ``p_excess_log_loss``: the change minus the sum of the changes under a constant for either
          gate alone. The excess of the log loss is positive if both together cost more than the
          sum, and negative if they cost less; that of the accuracy has the opposite sign.
          Student's t interval (95%) and paired t test of the log losses.

        p values are Holm-corrected over pairs, accuracy and log loss; those of the excess over
        pairs.
    """
    targets = pair_targets(setup)
    if not targets:
        return pd.DataFrame(columns=_PAIRS)
    table = replace_and_keep(
        setup, edits=[_EDIT], targets=targets, progress=progress, work=work
    ).table
    own = ImageOutcomes.of(_of(table, ""))
    rows = []
    for target in targets:
        if len(target.gates) < 2:
            continue
        first, second = target.gates
        both = paired_images(_of(table, ""), _of(table, target.name))
        accuracy, log_loss = _shifts(*both)
        alone = [_shifts(own, ImageOutcomes.of(_of(table, name))) for name in target.gates]
        excess = log_loss - alone[0][1] - alone[1][1]
        low, high = mean_interval(excess)
        rows.append(
            {
                "first": first,
                "second": second,
                "images": len(log_loss),
                **_effect(*both, resamples, setup.seed),
                "excess": float((accuracy - alone[0][0] - alone[1][0]).mean()),
                "excess_log_loss": float(excess.mean()),
                "excess_log_loss_low": low,
                "excess_log_loss_high": high,
                "p_excess_log_loss": paired_t(np.zeros(len(excess)), excess),
            }
        )
    found = pd.DataFrame(rows, columns=_PAIRS)
    _correct(found, ["p", "p_log_loss"])
    _correct(found, ["p_excess_log_loss"])
    return found


def _singles(setup: InterventionSetup) -> list[Target]:
    return [Target(gate.name, (gate.name,), gate.kind) for gate in setup.gates]


def _of(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return the outcomes of a target; of the unedited network for an empty name."""
    edit = _EDIT if target else OWN
    return table[(table["target"].astype(str) == target) & (table["edit"].astype(str) == edit)]


def _shifts(
    before: ImageOutcomes, after: ImageOutcomes
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return accuracy_difference(before, after), log_loss_difference(before, after)


def _effect(
    before: ImageOutcomes, after: ImageOutcomes, resamples: int, seed: int
) -> dict[str, float]:
    return {**paired_changes(before, after, resamples, seed), **paired_tests(before, after)}


def _correct(table: pd.DataFrame, columns: list[str]) -> None:
    """Correct the p values in some columns as one family."""
    every = table[columns].to_numpy(np.float64)
    table[columns] = holm(every.ravel()).reshape(every.shape)
