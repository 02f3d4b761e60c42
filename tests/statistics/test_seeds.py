"""Two kinds of network over several trainings, against scipy and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from attnscope.errors import InputError
from attnscope.plots import PLOTS
from attnscope.plots.seed_differences import seeds_sentence
from attnscope.plots.seed_usage import seed_usage_sentence
from attnscope.plots.subjects import TwoKinds
from attnscope.recording.recording import Recording
from attnscope.statistics import compare_seeds, disagreements, usage_over_seeds
from attnscope.statistics.inference import paired_interval
from attnscope.statistics.seeds import group_by_kind

Make = Callable[..., Recording]


@pytest.fixture
def kinds(make_recording: Make) -> tuple[list[Recording], list[Recording]]:
    """Three seeds of two kinds; the second is better."""
    first = [make_recording(f"a{i}", seed=i, accuracy=0.5, count=90) for i in range(3)]
    second = [make_recording(f"b{i}", seed=20 + i, accuracy=0.8, count=90) for i in range(3)]
    return first, second


def test_over_seeds_as_scipy(kinds: tuple[list[Recording], list[Recording]]) -> None:
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


def test_one_seed_says_nothing_of_another(
    kinds: tuple[list[Recording], list[Recording]],
) -> None:
    found = compare_seeds(kinds[0][:1], kinds[1][:1])
    assert found[["low", "high", "p", "p_holm"]].isna().all().all()
    assert found["difference"].notna().all()
    assert "One training of each says nothing" in seeds_sentence(found, "SE", "CBAM")


def test_the_sentence_says_so_when_no_class_differs(make_recording: Make) -> None:
    a = [make_recording(f"a{i}", seed=i) for i in range(2)]
    found = compare_seeds(a, a)
    assert (found["difference"] == 0).all()
    assert found["p"].isna().all()  # no spread: nothing to hold a difference against
    sentence = seeds_sentence(found, "SE", "CBAM")
    assert "the same in each pair" in sentence
    assert "3 could not be tested" in sentence
    # Nor where three equal differences differ in their last digits.
    assert np.isnan(paired_interval(np.array([0.1 + 0.2, 0.3, 0.3]))["p"])


def test_a_class_that_differs_is_named(make_recording: Make) -> None:
    a = [make_recording(f"a{i}", seed=i, accuracy=0.0, count=90) for i in range(3)]
    b = [make_recording(f"b{i}", seed=i, accuracy=1.0, count=90) for i in range(3)]
    found = compare_seeds(a, b)
    # All pairs differ by the same, 100 points, and a t test has no spread to say more with.
    assert (found["difference"] == 1).all()
    assert found[["low", "high", "p"]].isna().all().all()
    assert "differ by the same" in seeds_sentence(found, "SE", "CBAM")
    b[0] = make_recording("b9", seed=3, accuracy=0.9, count=90)
    table = compare_seeds(a, b)
    table["p_holm"] = [np.nan, 0.5, 0.01, 0.7]
    sentence = seeds_sentence(table, "SE", "CBAM")
    assert f" 1 of 3 classes differ: dog ({100 * table.loc[2, 'difference']:+.1f})." in sentence


def test_numbers_and_images_must_match(make_recording: Make) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1)
    with pytest.raises(InputError, match="1 against 2 recordings"):
        compare_seeds([a], [a, b])
    with pytest.raises(InputError, match="0 against 0"):
        compare_seeds([], [])
    with pytest.raises(InputError, match="not of the same images"):
        compare_seeds([a], [make_recording("c", count=30)])


def test_seeds_of_one_kind_are_found_and_ordered(make_recording: Make) -> None:
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
    with pytest.raises(InputError, match="are both called r0"):
        group_by_kind(made)
    made[4].about["name"] = "r4"
    with pytest.raises(InputError, match=r"has seed 1, .* seed 0"):
        compare_seeds([made[3]], [made[2]])
    made[3].about["seed"] = 0
    with pytest.raises(InputError, match="of one kind and seed"):
        group_by_kind(made)
    made[3].about["training_sha256"] = "of more epochs"
    assert [len(kind) for kind in group_by_kind(made).values()] == [1, 1, 1, 1, 1]


def test_disagreements_against_a_loop(make_recording: Make) -> None:
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


def test_the_picture_has_the_table_and_images(
    kinds: tuple[list[Recording], list[Recording]],
) -> None:
    names = ("SE", "CBAM")
    picture = PLOTS["seed_differences"].make(TwoKinds(names, *kinds))
    same = PLOTS["seed_differences"].make(TwoKinds(names, kinds[0], kinds[0]))
    assert len(picture.figures) == 2
    assert len(same.figures) == 1  # no image tells a network from itself
    assert "points of accuracy over 3 seeds" in picture.caption
    titles = [ax.get_title(loc="center") for ax in picture.figures[1].axes]
    assert sum(title.startswith("is ") for title in titles) == 12


def usage(class_value: list[float], dynamic_value: list[float], p: float = 0.5) -> pd.DataFrame:
    """One training's `gate_usage` of two gates, as far as it is summed up."""
    return pd.DataFrame(
        {
            "gate": ["early", "late"],
            "kind": "channel",
            "depth": [1, 2],
            "balanced_accuracy": [0.2, 0.6],
            "chance": 0.1,
            "p_read": [0.04, 0.001],
            "class_value": class_value,
            "p_used": p,
            "class_margin": [0.1, 0.2],
            "p_margin": [0.5, 0.01],
            "dynamic_value": dynamic_value,
            "p_dynamic": p,
            "dynamic_margin": [0.3, 0.0],
            "margin_std": 2.0,
        }
    )


def test_usage_over_seeds_as_scipy() -> None:
    values = np.array([[0.01, 0.30], [-0.01, 0.32], [0.02, 0.29]])
    tables = [usage(list(row), [-0.02 * k, 0.0]) for k, row in enumerate(values)]
    frame = usage_over_seeds(tables)
    test = stats.ttest_1samp(values, 0)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(frame["class_value"], values.mean(0))
    np.testing.assert_allclose(frame["class_low"], interval.low)
    np.testing.assert_allclose(frame["class_high"], interval.high)
    smaller, larger = test.pvalue[1], test.pvalue[0]
    np.testing.assert_allclose(frame["p_used"], [max(larger, 2 * smaller), 2 * smaller])
    # The second gate has the same value in every training: there is nothing to hold it against.
    assert frame["dynamic_value"].tolist() == pytest.approx([-0.02, 0])
    assert frame["dynamic_low"].isna().tolist() == [False, True]
    assert frame["seeds"].eq(3).all()
    assert frame["reads"].eq(3).all()
    assert frame["balanced_accuracy"].tolist() == pytest.approx([0.2, 0.6])
    assert frame["uses"].eq(0).all()
    assert frame["moves"].tolist() == [0, 3]
    assert frame["p_margin"].isna().all()
    said = seed_usage_sentence(frame, "se")
    assert "Whether the class in the gates moves the margins could not be tested." in said
    assert "By its own test no training sees its class used. At no gate" in said
    assert "By its own test no training sees the image's own better. Whether" in said
    assert said.endswith("By its own test at least one training sees them moved at 1.")
    assert "At 1 all trainings give the same number, and nothing can be tested." in said
    assert "read from 2 of 2 gates in every training, best from late" in said
    assert "Its class is used at 1, most at late: +30.3 points" in said
    assert "At no gate is the image's own seen to be better" in said
    moved = [table.assign(class_margin=[0, -0.1 - k / 999]) for k, table in enumerate(tables)]
    said = seed_usage_sentence(usage_over_seeds(moved), "se")
    assert "in the gates moves the margins at 1, most at late: by −0.1 logits, 5.1 % of" in said


def test_usage_over_seeds_counts_what_single_trainings_say() -> None:
    tables = [usage([0.1, -0.1], [0, 0.1], p=p) for p in (0.01, 0.2, 0.04)]
    frame = usage_over_seeds(tables)
    assert frame["uses"].tolist() == [2, 0]
    assert frame["harms"].tolist() == [0, 2]
    assert frame["needs_own"].tolist() == [0, 2]
    assert usage_over_seeds(tables, level=0.02)["uses"].tolist() == [1, 0]
    assert usage_over_seeds(tables, level=0.6)["moves"].tolist() == [3, 3]
    assert usage_over_seeds(tables, level=0.002)["reads"].tolist() == [0, 3]


def test_one_training_says_nothing_of_another_ones_gates() -> None:
    frame = usage_over_seeds([usage([0.1, 0.2], [0, 0], p=0.001)])
    assert frame[["class_low", "p_used", "p_dynamic"]].isna().all(axis=None)
    assert "no test over trainings" in seed_usage_sentence(frame, "se")
    with pytest.raises(InputError, match="give one table"):
        usage_over_seeds([])
    other = usage([0, 0], [0, 0]).assign(gate=["early", "other"])
    with pytest.raises(InputError, match="have other gates"):
        usage_over_seeds([usage([0, 0], [0, 0]), other])


def test_no_use_over_seeds_is_said_with_how_far_intervals_reach() -> None:
    tables = [usage([0.01 * k, -0.01 * k], [0.0, 0.0]) for k in (1, -1, 0.5)]
    frame = usage_over_seeds(tables)
    said = seed_usage_sentence(frame, "cbam")
    reach = f"{100 * frame['class_high'].max():+.1f}"
    assert f"used over the trainings; intervals reach up to {reach} points." in said
    assert "better than the mean over the trainings. At 2 all" in said
    worse = usage_over_seeds(
        [table.assign(class_value=[0, -0.2 - k / 999]) for k, table in enumerate(tables)]
    )
    said = seed_usage_sentence(worse, "x")
    assert "Its class does harm at 1, most at late: −20.1 points" in said
    said = seed_usage_sentence(usage_over_seeds([usage([0.1, -0.1], [0, 0], p=0.01)] * 2), "x")
    assert (
        "By its own test at least one training sees its class used at 1. By its own test at least "
        "one training sees its class doing harm at 1." in said
    )
    everything = usage_over_seeds([t.assign(p_read=1.0) for t in tables])
    assert "from none of the 2 gates" in seed_usage_sentence(everything, "cbam")


def test_gates_together_over_seeds_are_corrected_by_themselves() -> None:
    rng = np.random.default_rng(3)
    of_gates = ["depth", "balanced_accuracy", "chance", "p_read"]
    tables = []
    for _ in range(3):
        table = usage([0, 0], [0, 0])
        joint = table.assign(gate=["block x", "all"], kind=["block", "all"]).drop(columns=of_gates)
        table = pd.concat([table, joint], ignore_index=True)
        tables.append(table.assign(class_value=[0.01, 0.02, 0.1, 0.3] + 0.02 * rng.random(4)))
    frame = usage_over_seeds(tables)
    plain = stats.ttest_1samp(np.stack([table["class_value"] for table in tables]), 0).pvalue
    np.testing.assert_allclose(frame["p_used"][2:], plain[2:])
    np.testing.assert_allclose(frame["p_used"][:2].min(), 2 * plain[:2].min())
    alone = usage_over_seeds([table[2:].drop(columns=of_gates) for table in tables])
    np.testing.assert_allclose(alone["p_used"], plain[2:])
    assert "reads" not in alone
