"""Usage of gates that are replaced together, and the tables that usage is computed from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.recording.recording import Recording
from attnscope.statistics import (
    decode_gates,
    edit_contrast,
    gate_usage,
    joint_usage,
    linear_probe,
    replacement_effects,
    usage_over_seeds,
)
from tests.making import refused
from tests.statistics.making import outcomes_with_errors, usage_table


def test_joint_usage_finds_effects_that_single_gates_hide() -> None:
    made = outcomes_with_errors(
        {"x.a": 0, "x.b": 0, "y.a": 1, "block x": 20, "block y": 5, "all": 30}
    )
    found = joint_usage(made).set_index("gate")
    assert list(found.index) == ["block x", "block y", "all"]
    assert list(found["kind"]) == ["block", "block", "all"]
    assert found["class_value"].tolist() == pytest.approx([0.2, 0.05, 0.3])
    p = [stats.binomtest(0, n).pvalue for n in (20, 5, 30)]
    # The two blocks are two tests, and all gates together are a test of their own.
    assert found["p_used"].tolist() == pytest.approx([2 * p[0], p[1], p[2]])
    assert found.loc["all", "class_margin"] == pytest.approx(0.6, abs=0.001)
    assert found["dynamic_value"].eq(0).all()
    assert found["p_dynamic"].eq(1).all()


def test_decode_gates_has_the_intervals_of_its_controls(
    make_recording: Callable[..., Recording],
) -> None:
    recording, untrained = (make_recording(name, count=60, seed=i) for i, name in enumerate("ab"))
    found = decode_gates(recording, untrained, probe_permutations=9, permutations=9)
    control = linear_probe(untrained, 1)
    for ours, its in (("accuracy", "balanced_accuracy"), ("low", "low"), ("high", "high")):
        np.testing.assert_array_equal(found[f"untrained_{ours}"], control[its])
        assert found[f"input_{ours}"].isna().all()  # no pooled input was recorded


def test_joint_usage_is_empty_for_a_network_of_one_gate() -> None:
    alone = joint_usage(outcomes_with_errors({"a": 3}))
    assert alone.empty
    assert {"gate", "kind", "class_value", "p_used", "margin_std"} <= set(alone.columns)


def test_incomplete_outcomes_are_refused() -> None:
    outcomes = outcomes_with_errors({"a": 3})
    own = outcomes["edit"] == "own"
    with refused("AS707", names=("margin",)):
        replacement_effects(outcomes.drop(columns="margin"))
    with refused("AS708", names=("row 7",)):
        replacement_effects(outcomes[~(own & (outcomes["row"] == 7))])
    with refused("AS709", names=("row 5",)):
        replacement_effects(pd.concat([outcomes, outcomes[own & (outcomes["row"] == 5)]]))
    with refused("AS710", names=("nothing", "swap_same")):
        edit_contrast(outcomes, "mean", "nothing")


def test_outcomes_of_other_gates_are_refused() -> None:
    decoding = pd.DataFrame({"gate": ["a", "b"]})
    with refused("AS711", names=("'b'",)):
        gate_usage(decoding, outcomes_with_errors({"a": 3}))


def test_usage_tables_in_another_order_are_refused() -> None:
    table = usage_table([0, 0], [0, 0])
    with refused("AS713"):
        usage_over_seeds([table, table[::-1]])
