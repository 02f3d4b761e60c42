"""Usage of gates that are replaced together, and the tables that usage is computed from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from attnscope.recording.recording import Recording
from attnscope.statistics import (
    decode_gates,
    edit_contrast,
    gate_usage,
    joint_usage,
    linear_probe,
    probe_gain,
    replacement_effects,
    usage_over_seeds,
)
from attnscope.statistics.questions import ask
from attnscope.statistics.verdicts import JOINTLY, NOTHING, UNTESTED, UNUSED, USED
from tests.making import refused
from tests.statistics.making import outcomes_with_errors, usage_table

WRONG = {"x.a": 0, "x.b": 0, "y.a": 1, "block x": 20, "block y": 5, "all": 30}


def test_joint_usage_finds_effects_that_single_gates_hide() -> None:
    made = outcomes_with_errors(WRONG)
    found = joint_usage(made).set_index("gate")
    assert list(found.index) == ["block x", "block y", "all"]
    assert list(found["kind"]) == ["block", "block", "all"]
    assert found["removal_value"].tolist() == pytest.approx([0.2, 0.05, 0.3])
    p = [stats.binomtest(0, n).pvalue for n in (20, 5, 30)]
    # Six targets with two tests each are one family: the log losses of the six are tested as well.
    log_loss = [
        stats.ttest_1samp(_lost(made, target), 0).pvalue if errors >= 10 or not errors else np.nan
        for target, errors in WRONG.items()
    ]
    plain = [stats.binomtest(0, n).pvalue if n else 1 for n in WRONG.values()]
    wanted = multipletests([*plain, *(m for m in log_loss if m == m)], method="holm")[1]
    assert found["p_removal"].tolist() == pytest.approx(wanted[3:6].tolist())
    assert found.loc["all", "removal_log_loss"] == pytest.approx(0.6, abs=0.001)
    assert found["p_equivalent"].isna().all()
    # Two one-sided t tests of six targets, Holm-corrected. Without errors, all images move a little;
    # of one and five errors, too few images move for a test.
    stated = joint_usage(made, smallest_log_loss=0.8).set_index("gate")["p_equivalent"]
    several = [name for name, errors in WRONG.items() if errors >= 10 or not errors]
    t = [
        max(
            stats.ttest_1samp(-_lost(made, name), 0.8, alternative="less").pvalue,
            stats.ttest_1samp(-_lost(made, name), -0.8, alternative="greater").pvalue,
        )
        for name in several
    ]
    wanted = multipletests([*t, *[1] * (6 - len(t))], method="holm")[1]
    assert stated["block x"] == pytest.approx(wanted[several.index("block x")])
    assert stated["all"] == pytest.approx(wanted[several.index("all")])
    assert stated["block y"] == 1
    assert found["misinformation_value"].eq(0).all()
    assert found["p_misinformation"].eq(1).all()
    assert found["verdict"].tolist() == [JOINTLY, NOTHING, USED]
    assert p[0] < 1e-4


def _lost(made: pd.DataFrame, target: str) -> pd.Series:
    log_loss = made.set_index(["target", "edit", "row"])["log_loss"].sort_index()
    return log_loss["", "own"] - log_loss[target, "constant"]


def test_decode_gates_has_the_intervals_of_its_controls(
    make_recording: Callable[..., Recording],
) -> None:
    recording, untrained = (make_recording(name, count=60, seed=i) for i, name in enumerate("ab"))
    found = decode_gates(recording, untrained, probe_permutations=9, permutations=9)
    control = linear_probe(untrained, 1)
    for ours, its in (("accuracy", "balanced_accuracy"), ("low", "low"), ("high", "high")):
        np.testing.assert_array_equal(found[f"untrained_{ours}"], control[its])
        assert found[f"input_{ours}"].isna().all()  # no pooled input was recorded
    assert found["input_gain"].isna().all()


def test_decode_gates_takes_several_untrained_draws(
    make_recording: Callable[..., Recording],
) -> None:
    recording, *draws = (make_recording(name, count=60, seed=i) for i, name in enumerate("abc"))
    found = decode_gates(recording, draws, probe_permutations=9, permutations=9)
    each = [linear_probe(draw, 1) for draw in draws]
    mean = (each[0]["balanced_accuracy"] + each[1]["balanced_accuracy"]) / 2
    np.testing.assert_allclose(found["untrained_accuracy"], mean)
    np.testing.assert_array_equal(
        found["untrained_low"], np.minimum(each[0]["low"], each[1]["low"])
    )
    np.testing.assert_array_equal(
        found["untrained_high"], np.maximum(each[0]["high"], each[1]["high"])
    )
    assert (found["untrained_draws"] == 2).all()
    gains = probe_gain(recording, draws)
    for ours, its in (("", "difference"), ("_low", "low"), ("_high", "high")):
        np.testing.assert_array_equal(found[f"untrained_gain{ours}"], gains[its])


def test_joint_usage_is_empty_for_a_network_of_one_gate() -> None:
    alone = joint_usage(outcomes_with_errors({"a": 3}))
    assert alone.empty
    assert {"gate", "kind", "removal_value", "p_removal", "own_log_loss"} <= set(alone.columns)


def test_incomplete_outcomes_are_refused() -> None:
    outcomes = outcomes_with_errors({"a": 3})
    own = outcomes["edit"] == "own"
    with refused("AS707", names=("log_loss",)):
        replacement_effects(outcomes.drop(columns="log_loss"))
    with refused("AS708", names=("row 7",)):
        replacement_effects(outcomes[~(own & (outcomes["row"] == 7))])
    with refused("AS709", names=("row 5",)):
        replacement_effects(pd.concat([outcomes, outcomes[own & (outcomes["row"] == 5)]]))
    with refused("AS710", names=("nothing", "swap_same")):
        edit_contrast(outcomes, "mean", "nothing")


def test_a_probe_that_scored_few_images_is_not_tested() -> None:
    decoding = pd.DataFrame({"gate": ["a"], "kind": "channel", "depth": 1, "constant": False})
    decoding = decoding.assign(balanced_accuracy=1.0, null=0.25, p_max=0.04)
    outcomes = outcomes_with_errors({"a": 0})
    few, enough = (gate_usage(decoding.assign(scored=n), outcomes) for n in (9, 10))
    assert few["p_read"].isna().all()
    assert few["verdict"].tolist() == [NOTHING]
    assert enough["p_read"].tolist() == [0.04]
    assert enough["verdict"].tolist() == [UNUSED]


def test_outcomes_of_other_gates_are_refused() -> None:
    decoding = pd.DataFrame({"gate": ["a", "b"]})
    with refused("AS711", names=("'b'",)):
        gate_usage(decoding, outcomes_with_errors({"a": 3}))


def test_usage_tables_in_another_order_are_refused() -> None:
    table = usage_table([0, 0], [0, 0])
    with refused("AS713"):
        usage_over_seeds([table, table[::-1]])


def test_use_is_not_tested_without_the_best_constant() -> None:
    """As in outcomes of earlier versions, in which the mean was the only constant."""
    outcomes = outcomes_with_errors({"a": 30})
    old = outcomes[outcomes["edit"] != "constant"]
    decoding = pd.DataFrame({"gate": ["a"], "kind": "channel", "depth": 1, "constant": False})
    decoding = decoding.assign(balanced_accuracy=0.9, null=0.1, p_max=0.001)
    found = gate_usage(decoding, old)
    assert found["verdict"].tolist() == [UNTESTED]
    assert found[["removal_value", "p_removal", "detectable"]].isna().all(axis=None)
    assert found["misinformation_value"].tolist() == [0]
    assert gate_usage(decoding, outcomes)["verdict"].tolist() == [USED]


def test_a_gain_is_no_equivalence() -> None:
    """A constant that changes the accuracy by 8% of the images, in either direction."""
    made = outcomes_with_errors({"a": 8, "b": 0})
    gained = made.copy()
    changed = (made["target"] == "a") & (made["edit"] == "constant")
    wrong = made["row"] < 8
    # Without the constant for a, eight images are wrong.
    gained.loc[wrong & ~changed, "prediction"] = 1
    gained.loc[changed, "prediction"] = 0
    for outcomes in (made, gained):
        p = ask(outcomes, smallest_effect=0.09)["p_equivalent"]
        # By hand: at a change of 9%, eight or fewer of 100 images change with probability 0.45.
        assert p["a"] >= stats.binom.cdf(8, 100, 0.09)
        assert p["b"] < 0.01
