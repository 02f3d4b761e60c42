"""Comparisons of two kinds of network over seeds, against scipy and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from attnscope.recording.recording import Recording
from attnscope.statistics import compare_seeds, disagreements, joint_usage, usage_over_seeds
from attnscope.statistics.inference import paired_interval
from attnscope.statistics.seeds import group_by_kind
from attnscope.statistics.verdicts import CLASS_USED
from tests.making import refused
from tests.statistics.making import usage_table

Make = Callable[..., Recording]


@pytest.fixture
def kinds(make_recording: Make) -> tuple[list[Recording], list[Recording]]:
    """Three seeds of two kinds; the second is better."""
    first = [make_recording(f"a{i}", seed=i, accuracy=0.5, count=90) for i in range(3)]
    second = [make_recording(f"b{i}", seed=20 + i, accuracy=0.8, count=90) for i in range(3)]
    return first, second


def test_compare_seeds_equals_scipy(kinds: tuple[list[Recording], list[Recording]]) -> None:
    found = compare_seeds(*kinds).set_index("class")
    assert list(found.index) == ["all", "cat", "dog", "owl"]
    assert (found["seeds"] == 3).all()
    p = []
    for k, name in enumerate(found.index):
        of = [
            np.array([r.right[(r.labels == k - 1) | (k == 0)].mean() for r in kind])
            for kind in kinds
        ]
        test = stats.ttest_rel(of[1], of[0])
        interval = test.confidence_interval(0.95)
        row = found.loc[name]
        assert row["difference"] == pytest.approx((of[1] - of[0]).mean())
        assert row["accuracy_a"] == pytest.approx(of[0].mean())
        assert row["p"] == pytest.approx(test.pvalue)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        assert row["image_low"] < row["difference"] < row["image_high"]
        p.append(test.pvalue)
    order = np.argsort(p[1:])
    wanted = np.minimum(np.maximum.accumulate(np.array(p[1:])[order] * [3, 2, 1]), 1)
    np.testing.assert_allclose(found["p_holm"].to_numpy()[1:][order], wanted)
    assert found["p_holm"]["all"] == pytest.approx(p[0])


def test_compare_seeds_is_nan_for_one_pair(
    kinds: tuple[list[Recording], list[Recording]],
) -> None:
    found = compare_seeds(kinds[0][:1], kinds[1][:1])
    assert found[["low", "high", "p", "p_holm"]].isna().all().all()
    assert found["difference"].notna().all()


def test_intervals_of_accuracies_contain_only_possible_values(make_recording: Make) -> None:
    """With two pairs, Student's interval reaches 12.7 standard errors beyond the mean."""
    a = [make_recording(f"a{i}", seed=i, accuracy=0.3, count=90) for i in range(2)]
    b = [make_recording(f"b{i}", seed=9 + i, accuracy=0.6 + 0.3 * i, count=90) for i in range(2)]
    found = compare_seeds(a, b).iloc[0]
    gains = np.array([y.right.mean() - x.right.mean() for x, y in zip(a, b, strict=True)])
    wanted = stats.ttest_rel(gains, [0, 0]).confidence_interval(0.95)
    assert wanted.high > 1
    assert (found["low"], found["high"]) == (pytest.approx(wanted.low), 1)
    tables = [
        usage_table([loss, 0.0], [0.0, 0.0]).assign(
            balanced_accuracy=decoded, removal_log_loss=log_loss
        )
        for loss, decoded, log_loss in ((-0.1, 0.2, 0.1), (0.6, 0.9, 40.0))
    ]
    row = usage_over_seeds(tables).iloc[0]
    assert (row["removal_low"], row["removal_high"]) == (-1, 1)
    assert (row["balanced_low"], row["balanced_high"]) == (0, 1)
    assert row["removal_log_loss_high"] > 100, "logits have no bounds"


def test_compare_seeds_of_equal_networks_has_no_test(make_recording: Make) -> None:
    a = [make_recording(f"a{i}", seed=i) for i in range(2)]
    found = compare_seeds(a, a)
    assert (found["difference"] == 0).all()
    assert found["p"].isna().all()  # no spread to test against
    # Nor if three equal differences differ in their last digits.
    assert np.isnan(paired_interval(np.array([0.1 + 0.2, 0.3, 0.3]))["p"])


def test_compare_seeds_has_no_test_if_all_pairs_differ_equally(make_recording: Make) -> None:
    a = [make_recording(f"a{i}", seed=i, accuracy=0.0, count=90) for i in range(3)]
    b = [make_recording(f"b{i}", seed=i, accuracy=1.0, count=90) for i in range(3)]
    found = compare_seeds(a, b)
    # All pairs differ by 100 points, and a t test has no spread.
    assert (found["difference"] == 1).all()
    assert found[["low", "high", "p"]].isna().all().all()


def test_compare_seeds_refuses_unequal_numbers_and_images(make_recording: Make) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1)
    with refused("AS731", names=(1, 2)):
        compare_seeds([a], [a, b])
    with refused("AS730"):
        compare_seeds([], [])
    with refused("AS721", names=(60, 30)):
        compare_seeds([a], [make_recording("c", count=30)])


def test_group_by_kind_groups_and_orders_seeds(make_recording: Make) -> None:
    made = [make_recording(f"r{i}") for i in range(5)]
    about = [("se", 1), ("cbam", 0), ("se", 0), ("cbam", 1), ("none", 0)]
    for recording, (attention, seed) in zip(made, about, strict=True):
        recording.about |= {"model": {"attention": attention, "width": 16}, "seed": seed}
    kinds = group_by_kind(made)
    assert {name: [r.name for r in kind] for name, kind in kinds.items()} == {
        "se": ["r2", "r0"], "cbam": ["r1", "r3"], "none": ["r4"],
    }  # fmt: skip
    made[0].about["model"] = {"attention": "se", "width": 32}
    assert list(group_by_kind(made)) == ["r0", "r1", "r2", "r4"]
    made[4].about["name"] = "r0"
    with refused("AS734", names=(made[0].folder, made[4].folder, "r0")):
        group_by_kind(made)
    made[4].about["name"] = "r4"
    with refused("AS732", names=(made[3].folder, made[2].folder, 1, 0)):
        compare_seeds([made[3]], [made[2]])
    made[3].about["seed"] = 0
    with refused("AS733", names=(made[1].folder, made[3].folder, 0)):
        group_by_kind(made)
    made[3].about["training_sha256"] = "of more epochs"
    assert [len(kind) for kind in group_by_kind(made).values()] == [1, 1, 1, 1, 1]


def test_disagreements_equal_a_loop(make_recording: Make) -> None:
    a, b = make_recording("a", accuracy=0.6), make_recording("b", seed=1, accuracy=0.7)
    found = disagreements(a, b)
    wanted = []
    for i in range(len(a)):
        if a.right[i] != b.right[i]:
            sure = min(special.softmax(r.logits[i].astype(float)).max() for r in (a, b))
            wanted.append((sure, i, "a" if a.right[i] else "b"))
    assert sorted(found["row"]) == sorted(i for _, i, _ in wanted)
    of_row = {i: (sure, right) for sure, i, right in wanted}
    for row in found.itertuples():
        assert row.certainty == pytest.approx(of_row[row.row][0])
        assert row.right == of_row[row.row][1]
        assert row.label == a.classes[a.labels[row.row]]
        assert row.prediction_b == b.classes[b.predictions[row.row]]
    assert found["certainty"].is_monotonic_decreasing


def test_usage_over_seeds_equals_scipy() -> None:
    values = np.array([[0.01, 0.30], [-0.01, 0.32], [0.02, 0.29]])
    tables = [usage_table(list(row), [-0.02 * k, 0.0]) for k, row in enumerate(values)]
    frame = usage_over_seeds(tables)
    test = stats.ttest_1samp(values, 0)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(frame["removal_value"], values.mean(0))
    np.testing.assert_allclose(frame["removal_low"], interval.low)
    np.testing.assert_allclose(frame["removal_high"], interval.high)
    # The log losses of the first gate and of the second are tests of the same family, if they vary.
    smaller, larger = test.pvalue[1], test.pvalue[0]
    log_loss = stats.ttest_1samp([0.1, -0.1, 0.1], 0).pvalue
    wanted = multipletests([larger, smaller, log_loss], method="holm")[1]
    np.testing.assert_allclose(frame["p_removal"], wanted[:2])
    np.testing.assert_allclose(frame["p_removal_log_loss"], [wanted[2], np.nan])
    # The second gate has the same value for every seed, and no spread to test against.
    assert frame["misinformation_value"].tolist() == pytest.approx([-0.02, 0])
    assert frame["misinformation_low"].isna().tolist() == [False, True]
    assert frame["seeds"].eq(3).all()
    assert frame["reads"].eq(3).all()
    assert frame["balanced_accuracy"].tolist() == pytest.approx([0.2, 0.6])
    assert frame["uses"].eq(0).all()
    assert frame["p_matched"].isna().all()  # it was not measured


def test_usage_over_seeds_counts_the_tests_of_single_seeds() -> None:
    tables = [usage_table([0.1, -0.1], [0, 0.1], p=p) for p in (0.01, 0.2, 0.04)]
    frame = usage_over_seeds(tables)
    assert frame["uses"].tolist() == [2, 0]
    assert frame["harms"].tolist() == [0, 2]
    assert frame["misled"].tolist() == [0, 2]
    assert frame["class_specific"].tolist() == [0, 0]
    specific = [table.assign(verdict=CLASS_USED) for table in tables[:2]]
    assert usage_over_seeds(specific)["class_specific"].tolist() == [2, 2]
    assert usage_over_seeds(tables, level=0.02)["uses"].tolist() == [1, 0]
    # A log loss that surely has the opposite sign is a contradiction, and no use.
    mixed = [table.assign(removal_log_loss=-0.1, removal_log_loss_high=-0.05) for table in tables]
    assert usage_over_seeds(mixed)["uses"].tolist() == [0, 0]
    assert usage_over_seeds(tables, level=0.002)["reads"].tolist() == [0, 3]


def test_usage_over_seeds_of_one_seed_has_no_test() -> None:
    frame = usage_over_seeds([usage_table([0.1, 0.2], [0, 0], p=0.001)])
    assert frame[["removal_low", "p_removal", "p_misinformation"]].isna().all(axis=None)
    with refused("AS712"):
        usage_over_seeds([])
    other = usage_table([0, 0], [0, 0]).assign(gate=["early", "other"])
    with refused("AS713", names=("late",)):
        usage_over_seeds([usage_table([0, 0], [0, 0]), other])


def test_usage_over_seeds_corrects_gates_and_blocks_together() -> None:
    rng = np.random.default_rng(3)
    of_gates = ["depth", "balanced_accuracy", "chance", "p_read"]
    tables = []
    for _ in range(3):
        table = usage_table([0, 0], [0, 0])
        joint = table.assign(gate=["block x", "all"], kind=["block", "all"]).drop(columns=of_gates)
        table = pd.concat([table, joint], ignore_index=True)
        tables.append(table.assign(removal_value=[0.01, 0.02, 0.1, 0.3] + 0.02 * rng.random(4)))
    frame = usage_over_seeds(tables)
    plain = stats.ttest_1samp(np.stack([table["removal_value"] for table in tables]), 0).pvalue
    np.testing.assert_allclose(frame["p_removal"], multipletests(plain, method="holm")[1])
    alone = usage_over_seeds([table[2:].drop(columns=of_gates) for table in tables])
    np.testing.assert_allclose(alone["p_removal"], multipletests(plain[2:], method="holm")[1])
    assert "reads" not in alone


def test_usage_over_seeds_with_outcomes_is_that_of_crossed_seeds_and_images() -> None:
    """Three seeds of one gate: mean and p by hand, from the table of images and seeds."""
    rng = np.random.default_rng(4)
    wrong = (rng.random((3, 80)) < 0.1) | (rng.random(80) < 0.1)
    shift = rng.normal(0.3, 1, (3, 80)) + rng.normal(0, 1, 80)
    outcomes = []
    for seed in range(3):
        own = pd.DataFrame({"row": range(80), "label": 0, "prediction": 0, "log_loss": 2.0})
        edited = own.assign(prediction=wrong[seed].astype(int), log_loss=2.0 + shift[seed])
        frames = [own.assign(target="", edit="own"), edited.assign(target="g", edit="constant")]
        outcomes.append(pd.concat(frames, ignore_index=True))
    usages = [joint_usage(table.replace({"g": "all"})).assign(gate="g") for table in outcomes]
    found = usage_over_seeds(usages, outcomes=outcomes).iloc[0]
    assert found["removal_value"] == pytest.approx(wrong.mean())
    assert found["removal_log_loss"] == pytest.approx(shift.mean())
    seeds, images, mean = shift.mean(1), shift.mean(0), shift.mean()
    rest = shift - seeds[:, None] - images + mean
    parts = [seeds.var(ddof=1) / 3, images.var(ddof=1) / 80]
    variance = sum(parts) - (rest**2).sum() / (2 * 79) / 240
    degrees = variance**2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 79)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    assert found["removal_log_loss_high"] == pytest.approx(mean + half)
    with refused("AS741", names=(3, 2)):
        usage_over_seeds(usages, outcomes=outcomes[:2])
