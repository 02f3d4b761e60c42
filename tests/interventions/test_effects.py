"""Effects, contrasts and verdicts, against loops, scipy and values by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.interventions.constants import _best
from attnscope.plots.builtin.decodable_and_used import usage_sentence
from attnscope.plots.builtin.static_gates import static_sentence
from attnscope.recording.outcomes import Outcomes, read_outcomes, write_outcomes
from attnscope.statistics import gate_usage
from attnscope.statistics.effects import (
    calibrated_log_losses,
    edit_contrast,
    replacement_effects,
)
from attnscope.statistics.inference import paired_accuracy_change, significant
from attnscope.statistics.verdicts import (
    CLASS_USED,
    HARMS,
    MIXED,
    NOTHING,
    SENSITIVE,
    UNUSED,
    USED,
)
from tests.interventions.known import best_losses, cross_entropy
from tests.making import refused


def test_verdicts_hold_for_many_gates() -> None:
    """With sixteen gates, the corrections do not hide the effects."""
    rng = np.random.default_rng(0)
    gates = [f"g{i:02d}" for i in range(16)]
    probe = pd.DataFrame(
        {
            "gate": gates, "kind": "channel", "depth": range(1, 17),
            "balanced_accuracy": 0.9, "null": 0.1, "p": 1 / 201, "p_max": 1 / 201,
            "constant": False,
        }
    )  # fmt: skip
    probe.loc[[3, 8], ["p_max", "balanced_accuracy"]] = 0.7, 0.1
    # The images that are wrong: 60 of the 100 that are right, or 40 that are never right.
    wrong = {
        "constant": ("g00", "g01", "g03", "g06"),
        "matched_other": ("g00", "g04"),
        "swap_other": ("g01", "g05"),
    }
    moved = {"constant": {"g02": 2, "g06": -2, "g07": 2, "g09": -2}, "swap_other": {"g08": -2}}
    rows = [("", "own", i, i % 10, i % 10, -1.0) for i in range(100)]
    for gate in gates:
        for edit in ("constant", "swap_same", "swap_other", "matched_same", "matched_other"):
            shift = moved.get(edit, {}).get(gate, 0)
            for i in range(100):
                said = (i + 1) % 10 if i < 60 and gate in wrong.get(edit, ()) else i % 10
                rows.append((gate, edit, i, i % 10, said, -1 + rng.normal() + shift))
    outcomes = pd.DataFrame(
        rows, columns=["target", "edit", "row", "label", "prediction", "log_loss"]
    )
    usage = gate_usage(probe, outcomes).set_index("gate")
    wanted = {
        "g00": CLASS_USED,  # a constant and a wrong class cost
        "g01": USED,  # without matched donors, nothing is said about the class
        "g02": USED,  # only the log loss rises
        "g03": USED,  # the probe finds nothing
        "g04": SENSITIVE,
        "g05": SENSITIVE,
        "g06": MIXED,  # accuracy and log loss fall
        "g07": USED,
        "g08": NOTHING,  # the log loss falls with the gate of another class
        "g09": HARMS,  # only the log loss falls
        "g10": UNUSED,
    }
    assert usage.loc[list(wanted), "verdict"].to_dict() == wanted
    assert significant(usage["p_read"]).sum() == 14
    assert usage.loc["g00", "removal_value"] == pytest.approx(0.6)
    assert usage.loc["g09", "removal_log_loss"] == pytest.approx(-2, abs=0.3)
    sentence = usage_sentence(usage.reset_index())
    for value in ("14 of 16", "5 of 16", "g00", "60.0", "g09", "g06"):
        assert value in sentence
    with refused("AS711", names=("g99",)):
        gate_usage(probe.assign(gate=[*gates[:-1], "g99"]), outcomes)


def test_gate_names_that_look_like_numbers_are_read_as_text(tmp_path: Path) -> None:
    names = ["2", "0.1", "null", ""]
    table = pd.DataFrame({"gate": names, "kind": "channel", "p": [0.1, np.nan, 1, 2]})
    write_outcomes(tmp_path / "o", Outcomes({"name": "n"}, None, {"decoding": table}))
    pd.testing.assert_frame_equal(read_outcomes(tmp_path / "o").table("decoding"), table)


def test_effects_equal_those_of_a_loop(make_outcomes: Callable[[], pd.DataFrame]) -> None:
    outcomes = make_outcomes()
    found = replacement_effects(outcomes).set_index(["target", "edit"])
    for (target, edit), row in found.iterrows():
        gained = lost = flips = 0
        shifts = []
        part = outcomes[(outcomes["target"] == target) & (outcomes["edit"] == edit)]
        for _, image in part.iterrows():
            own = outcomes[(outcomes["row"] == image["row"]) & (outcomes["edit"] == "own")].iloc[0]
            was, now = own["prediction"] == own["label"], image["prediction"] == image["label"]
            gained += now and not was
            lost += was and not now
            flips += own["prediction"] != image["prediction"]
            shifts.append(image["log_loss"] - own["log_loss"])
        assert (row["gained"], row["lost"]) == (gained, lost)
        assert row["change"] == pytest.approx((gained - lost) / len(part))
        assert row["flips"] == pytest.approx(flips / len(part))
        assert row["log_loss_change"] == pytest.approx(np.mean(shifts))
        assert row["log_loss_low"] < row["log_loss_change"] < row["log_loss_high"]
        assert row["low"] <= row["change"] <= row["high"]


@pytest.fixture
def make_outcomes() -> Callable[[], pd.DataFrame]:
    def make() -> pd.DataFrame:
        rng = np.random.default_rng(4)
        rows = []
        for target, edit in [("", "own"), ("a", "mean"), ("a", "neutral"), ("all", "mean")]:
            for row in range(40):
                rows.append((target, edit, row, row % 3, rng.integers(3), rng.normal()))
        return pd.DataFrame(
            rows, columns=["target", "edit", "row", "label", "prediction", "log_loss"]
        )

    return make


def test_the_interval_of_flips_is_that_of_wilson(make_outcomes: Callable[[], pd.DataFrame]) -> None:
    outcomes = make_outcomes()
    own = outcomes[outcomes["edit"] == "own"]
    still = own.assign(target="a", edit="still")  # no prediction changes
    found = replacement_effects(pd.concat([outcomes, still])).set_index(["target", "edit"])
    said = own["prediction"].to_numpy()
    for (target, edit), row in found.drop(("a", "still")).iterrows():
        part = outcomes[(outcomes["target"] == target) & (outcomes["edit"] == edit)]
        flips = sum(a != b for a, b in zip(part["prediction"], said, strict=True))
        assert 0 < flips < 40
        wanted = stats.binomtest(flips, 40).proportion_ci(0.95, method="wilson")
        assert (row["flips_low"], row["flips_high"]) == pytest.approx((wanted.low, wanted.high))
    # By hand: without a flip the upper end is z² / (n + z²), z² = 3.8414588.
    ends = tuple(found.loc[("a", "still"), ["flips", "flips_low", "flips_high"]])
    assert ends == pytest.approx((0, 0, 3.8414588 / 43.8414588), abs=1e-8)


def test_the_interval_of_a_paired_change_equals_that_by_hand() -> None:
    """98 images: 50 right twice, 30 wrong twice, 4 gained, 14 lost; one is added to each flip.

    With 5 and 15 of 100 the change is -0.1 and its variance (0.05 + 0.15 - 0.1²) / 100 = 0.0019,
    whose root 0.04358899 times 1.95996398 is 0.08543285.
    """
    counts = [50, 30, 4, 14]
    before = np.repeat([True, False, False, True], counts)
    after = np.repeat([True, False, True, False], counts)
    wanted = (-10 / 98, -0.18543285, -0.01456715)
    assert paired_accuracy_change(before, after) == pytest.approx(wanted, abs=1e-8)
    # Of one image, lost: 1/3 - 2/3 ± 1.95996398 √((1 - 1/9) / 3), no further than -1.
    found = paired_accuracy_change(np.array([True]), np.array([False]))
    assert found == pytest.approx((-1, -1, -1 / 3 + 1.95996398 * np.sqrt(8 / 27)), abs=1e-8)
    assert np.isnan(paired_accuracy_change(before[:0], after[:0])).all()


def test_p_values_of_a_contrast_equal_those_of_scipy(
    make_outcomes: Callable[[], pd.DataFrame],
) -> None:
    """Only images with both edits count, in any order of the rows."""
    outcomes = make_outcomes()
    lacks = (outcomes["edit"] == "neutral") & (outcomes["row"] % 8 == 5)
    mixed = outcomes[~lacks].sample(frac=1, random_state=0)
    said = {(o.edit, o.row): o for o in outcomes[outcomes["target"] != "all"].itertuples()}
    for first, second in (("neutral", "mean"), ("mean", "own")):
        rows = [row for row in range(40) if "neutral" not in (first, second) or row % 8 != 5]
        pairs = [(said[first, row], said[second, row]) for row in rows]
        right = [(a.prediction == a.label, b.prediction == b.label) for a, b in pairs]
        alone = right.count((True, False)), right.count((False, True))
        found = edit_contrast(mixed, first, second).set_index("target").loc["a"]
        assert found["images"] == len(rows)
        assert found["p"] == pytest.approx(stats.binomtest(alone[1], sum(alone), 0.5).pvalue)
        log_loss = np.array([(a.log_loss, b.log_loss) for a, b in pairs])
        assert found["p_log_loss"] == pytest.approx(
            stats.ttest_rel(log_loss[:, 1], log_loss[:, 0]).pvalue
        )
        assert found["change"] == pytest.approx((alone[1] - alone[0]) / len(rows))
        assert found["log_loss_change"] == pytest.approx((log_loss[:, 1] - log_loss[:, 0]).mean())


def test_log_losses_equal_those_of_torch_at_the_best_temperature() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=200)
    logits = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[labels]
    wanted = best_losses(logits, labels)
    for scale in (1.0, 0.02, 30.0):  # a network that is more or less sure
        found = calibrated_log_losses(scale * logits + rng.normal(size=(200, 1)), labels)
        np.testing.assert_allclose(found, wanted, rtol=0.02)
        assert found.mean() == pytest.approx(wanted.mean(), abs=1e-5)
    flat = calibrated_log_losses(rng.normal(size=(5000, 4)), rng.integers(4, size=5000))
    assert flat.mean() == pytest.approx(np.log(4), abs=0.002), "the logits tell nothing"


def test_the_best_log_losses_of_a_network_without_errors_are_zero() -> None:
    labels = np.arange(30) % 3
    noise = np.random.default_rng(0).random((30, 3))
    for scale in (1, 0.02):  # with the second, the highest inverse temperature leaves some loss
        logits = scale * (np.eye(3)[labels] + 0.1 * noise)
        assert calibrated_log_losses(logits, labels).tolist() == [0] * 30


def test_a_constant_is_not_chosen_because_the_network_is_more_sure_with_it() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    logits = rng.normal(size=(300, 3)) + 1.5 * np.eye(3)[labels]
    worse = logits * np.exp(rng.normal(size=(300, 1)))  # the same predictions
    plain = {name: cross_entropy(each, labels) for name, each in (("mean", 0.2 * logits),
                                                                  ("neutral", worse))}  # fmt: skip
    assert plain["neutral"] < plain["mean"], "at its own temperature it looks better"
    assert _best({"neutral": worse, "mean": 0.2 * logits}, labels) == "mean"


def test_the_caption_of_static_gates_names_the_largest_losses() -> None:
    targets = ["a", "b", "block x", "block y", "all"]
    mean = pd.DataFrame(
        {
            "target": targets, "change": [-0.01, 0.0, -0.02, -0.3, -0.4],
            "low": -0.5, "high": 0.1, "accuracy": 0.5, "edit": "constant",
        }
    )  # fmt: skip
    said = static_sentence(mean, np.array([False, False, False, True, True]))
    for value in ("block y", "30.0", "40.0", "50.0", "10.0"):
        assert value in said
    assert "block x" not in said
    said = static_sentence(mean, np.array([True, False, False, False, False]))
    for value in ("1 of 2", " a", "1.0"):
        assert value in said
