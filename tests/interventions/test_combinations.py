"""Gates in combination, in networks whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attnscope.interventions import (
    measure_pairs,
    measure_sufficiency,
    plan_experiments,
    run_experiments,
)
from attnscope.interventions.plan import Timing
from tests.interventions.known import known_setup
from tests.interventions.test_plan import counted


def test_either_of_two_gates_is_sufficient(tmp_path: Path) -> None:
    found = measure_sufficiency(known_setup("backup", tmp_path), progress=False).set_index("gate")
    assert found.loc[["a", "b"], "change"].eq(0).all()
    # Without both, the first class is predicted: two of three images are lost.
    assert found.loc[["a", "b"], "recovered_change"].tolist() == pytest.approx([2 / 3] * 2)
    assert found.loc["a", "recovered_p"] < 1e-6


def test_one_of_three_votes_is_not_sufficient(tmp_path: Path) -> None:
    found = measure_sufficiency(known_setup("majority", tmp_path), progress=False)
    assert found["change"].tolist() == pytest.approx([-2 / 3] * 3)
    assert found["recovered_change"].eq(0).all()


def test_gates_of_which_either_is_enough_have_an_excess(tmp_path: Path) -> None:
    setup = known_setup("block", tmp_path)
    found = measure_pairs(setup, progress=False)
    assert found[["first", "second"]].to_numpy().tolist() == [["pair", "pair#2"]]
    row = found.iloc[0]
    assert row["excess"] == row["change"] == pytest.approx(-2 / 3)
    # Without both, every image is said to be of one class, so that the logits tell nothing: ln 3.
    assert row["excess_log_loss"] == pytest.approx(np.log(3), abs=1e-3)
    assert row["p_excess_log_loss"] < 1e-6
    alone = measure_pairs(known_setup("backup", tmp_path), progress=False)
    assert alone.empty  # each gate is in a module of its own


def test_the_plan_counts_the_forwards_of_combinations(tmp_path: Path) -> None:
    setup = known_setup("block", tmp_path)
    timing = Timing(1.0, 1.0, dict.fromkeys((gate.name for gate in setup.gates), 0.0))
    plan = plan_experiments(setup, ["sufficiency", "pairs"], timing=timing)
    for cost in plan.costs:
        with counted() as seen:
            outcomes = run_experiments(setup, experiments=[cost.experiment], progress=False)
        assert list(outcomes.tables) == [cost.experiment]
        # All constants are equally good for each gate, so that none is combined with another.
        assert 0.6 * cost.forwards < sum(seen) <= cost.forwards
        assert cost.at_most
