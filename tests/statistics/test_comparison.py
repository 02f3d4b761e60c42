"""Comparisons of two networks, against SciPy, loops, values by hand and planted differences."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.statistics import (
    compare_accuracy,
    compare_class_order,
    compare_confusion,
    compare_grad_cam,
    compare_profiles,
)
from attnscope.statistics.inference import holm
from tests.making import refused

GATES = ["layer1.attention.channel", "layer2.attention.channel"]
TEN = list("abcdefghij")


@pytest.fixture
def pair(make_recording):
    return make_recording("a", seed=1), make_recording("b", seed=2, spatial=False)


def test_compare_accuracy_equals_a_loop_over_binomtest(pair):
    a, b = pair
    frame = compare_accuracy(a, b)
    assert frame["class"].tolist() == ["all", *a.classes]
    for _, row in frame.iterrows():
        rows = [i for i in range(60) if row["class"] in ("all", a.classes[a.labels[i]])]
        right_a = [bool(a.predictions[i] == a.labels[i]) for i in rows]
        right_b = [bool(b.predictions[i] == b.labels[i]) for i in rows]
        only_a = sum(x and not y for x, y in zip(right_a, right_b, strict=True))
        only_b = sum(y and not x for x, y in zip(right_a, right_b, strict=True))
        assert (row["count"], row["only_a"], row["only_b"]) == (len(rows), only_a, only_b)
        assert row["accuracy_a"] == pytest.approx(np.mean(right_a))
        assert row["accuracy_b"] == pytest.approx(np.mean(right_b))
        assert row["difference"] == pytest.approx(np.mean(right_b) - np.mean(right_a))
        assert row["p"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert frame["p_holm"][0] == frame["p"][0]
    assert frame["p_holm"][1:].to_numpy() == pytest.approx(holm(frame["p"][1:].to_numpy()))


def test_compare_accuracy_by_hand(write_recording):
    labels = [0] * 6 + [1] * 5 + [2]
    a = write_recording("a", labels=labels, predictions=[0] * 6 + [1] * 5 + [0])
    b = write_recording("b", labels=labels, predictions=[0] + [2] * 5 + [0] + [1] * 4 + [0])
    frame = compare_accuracy(a, b)
    assert frame["only_a"].tolist() == [6, 5, 1, 0]
    assert frame["only_b"].tolist() == [0, 0, 0, 0]
    assert frame["p"].tolist() == pytest.approx([2 / 2**6, 2 / 2**5, 1, 1])
    # Holm: three times the smallest p of three; the others are 1 already.
    assert frame["p_holm"].tolist() == pytest.approx([2 / 2**6, 6 / 2**5, 1, 1])
    assert frame["difference"].tolist() == pytest.approx([-6 / 12, -5 / 6, -1 / 5, 0])


def test_compare_accuracy_finds_a_planted_difference_and_its_side(make_recording):
    good = make_recording("good", count=300, accuracy=0.95, seed=1)
    poor = make_recording("poor", count=300, accuracy=0.6, seed=2)
    twin = make_recording("twin", count=300, accuracy=0.95, seed=3)
    found = compare_accuracy(poor, good)
    assert (found["p_holm"] < 0.01).all()
    assert (found["difference"] > 0.15).all()
    assert (compare_accuracy(good, poor)["difference"] == -found["difference"]).all()
    assert (compare_accuracy(good, twin)["p_holm"] > 0.05).all()


def test_compare_accuracy_of_a_network_with_itself_has_p_1(make_recording):
    frame = compare_accuracy(make_recording("a"), make_recording("b"))
    assert (frame[["p", "p_holm"]] == 1).all(axis=None)
    assert (frame[["difference", "only_a", "only_b"]] == 0).all(axis=None)


def test_compare_accuracy_does_not_count_an_empty_class_as_a_test(write_recording):
    labels = [0] * 6 + [1] * 6
    a = write_recording("a", labels=labels)
    b = write_recording("b", labels=labels, predictions=[1] * 6 + [1] * 6)
    frame = compare_accuracy(a, b).set_index("class")
    assert frame.loc["owl", "count"] == 0
    assert frame.loc["owl", ["accuracy_a", "accuracy_b", "difference", "p", "p_holm"]].isna().all()
    assert frame.loc["cat", "p_holm"] == pytest.approx(2 * 2 / 2**6)  # two tests, not three


def test_compare_profiles_equals_a_loop(pair):
    frame = compare_profiles(*pair)
    assert frame["gate"].tolist() == [gate for gate in GATES for _ in range(3)]
    assert frame["class"].tolist() == pair[0].classes * 2
    for column, recording in zip(["distance_a", "distance_b"], pair, strict=True):
        for _, row in frame.iterrows():
            values = recording.channel(row["gate"]).astype(float)
            means = [values[recording.labels == k].mean(0) for k in range(3)]
            middle = sum(means) / 3
            own = means[recording.classes.index(row["class"])]
            expected = np.sqrt(np.mean([(x - y) ** 2 for x, y in zip(own, middle, strict=True)]))
            assert row[column] == pytest.approx(expected)


def test_compare_profiles_shows_a_planted_effect(make_recording):
    a = make_recording("a", count=600, effect=0.6, seed=1)
    b = make_recording("b", count=600, effect=0, seed=2)
    frame = compare_profiles(a, b).set_index(["gate", "class"])
    # Channel 0 of 8 differs from its mean by -0.2, 0 and 0.2: the distance is sqrt(0.2² / 8).
    planted = frame.loc[GATES[0], "distance_a"]
    assert planted.tolist() == pytest.approx([0.2 / 8**0.5, 0, 0.2 / 8**0.5], abs=0.007)
    assert frame.loc[GATES[0], "distance_b"].max() < 0.007
    assert frame.loc[GATES[1]].max(axis=None) < 0.007


def test_compare_profiles_weights_classes_equally_and_skips_empty_ones(write_recording):
    labels = [0, 0, 0, 1]
    a = write_recording("a", labels=labels, gates={"g": [[0.2], [0.2], [0.2], [0.6]]})
    b = write_recording("b", labels=labels, gates={"g": [[0.1, 0.5]] * 3 + [[0.3, 0.9]]})
    frame = compare_profiles(a, b)
    assert frame["distance_a"].tolist() == pytest.approx([0.2, 0.2, np.nan], nan_ok=True)
    # Two channels against one: each distance is over the channels of its own network.
    half = np.sqrt((0.1**2 + 0.2**2) / 2)
    assert frame["distance_b"].tolist() == pytest.approx([half, half, np.nan], nan_ok=True)


def test_networks_without_a_shared_channel_gate_are_refused(write_recording):
    a = write_recording("a", labels=[0, 1], gates={"g": [[0.1], [0.2]]})
    b = write_recording("b", labels=[0, 1], gates={"h": [[0.1], [0.2]]})
    # A gate of the same name but another kind is not shared.
    c = write_recording("c", labels=[0, 1], gates={"g": [[[0.1]], [[0.2]]]})
    for other in (b, c):
        for function in (compare_profiles, compare_class_order):
            with refused("AS725", names=(a.folder, other.folder)):
                function(a, other)


def test_class_order_equals_scipy(make_recording):
    a, b = (make_recording(name, count=200, seed=i, names=TEN) for i, name in enumerate("ab"))
    frame = compare_class_order(a, b)
    distances, rng = compare_profiles(a, b), np.random.default_rng(0)
    assert frame["gate"].tolist() == GATES
    for _, row in frame.iterrows():
        of_gate = distances[distances["gate"] == row["gate"]]
        expected = stats.spearmanr(of_gate["distance_a"], of_gate["distance_b"])
        assert row["spearman"] == pytest.approx(expected.statistic)
        ranks = [stats.rankdata(of_gate[f"distance_{end}"]) for end in "ab"]
        orders = rng.permuted(np.tile(ranks[1], (20_000, 1)), axis=1)
        drawn = (orders - 5.5) @ (ranks[0] - 5.5) / 82.5  # rho of ten ranks without ties
        beyond = [(sign * (drawn - expected.statistic) >= -1e-9).mean() for sign in (1, -1)]
        assert row["p"] == pytest.approx(min(1, 2 * min(beyond)), abs=0.03)
    pd.testing.assert_frame_equal(frame, compare_class_order(a, b))
    assert (compare_class_order(a, b, seed=1)["p"] != frame["p"]).any()


def test_class_order_shows_a_planted_order(make_recording):
    a, b = (
        make_recording(name, count=1000, seed=i, names=TEN, effect=1) for i, name in enumerate("ab")
    )
    frame = compare_class_order(a, b).set_index("gate")
    assert frame.loc[GATES[0], "spearman"] > 0.8  # planted
    assert frame.loc[GATES[0], "p"] < 0.01
    assert frame.loc[GATES[1], "p"] > 0.01  # not planted


def recordings_of_profiles(write_recording, first, second):
    names = TEN[: len(first)]
    labels = np.arange(len(first))
    return (
        write_recording(name, labels=labels, names=names, gates={"g": np.array(values)[:, None]})
        for name, values in (("a", first), ("b", second))
    )


@pytest.mark.parametrize(
    "second", [[0.0, 0.1, 0.3, 0.9], [0.9, 0.3, 0.1, 0.2], [0.2, 0.2, 0.3, 0.9]]
)
def test_class_order_enumerates_all_orders_of_few_classes(write_recording, second):
    a, b = recordings_of_profiles(write_recording, [0.0, 0.1, 0.4, 0.9], second)
    distances = compare_profiles(a, b)
    x, y = distances["distance_a"], distances["distance_b"]
    rho = stats.spearmanr(x, y).statistic
    every = [stats.spearmanr(x, order).statistic for order in itertools.permutations(y)]
    above = np.mean([r >= rho - 1e-9 for r in every])
    below = np.mean([r <= rho + 1e-9 for r in every])
    row = compare_class_order(a, b).loc[0]
    assert row["spearman"] == pytest.approx(rho)
    assert row["p"] == pytest.approx(min(1, 2 * min(above, below)))


def test_class_order_of_three_classes_is_never_significant(make_recording):
    frame = compare_class_order(make_recording("a"), make_recording("b"))
    assert frame["spearman"].tolist() == pytest.approx([1, 1])
    assert frame["p"].tolist() == pytest.approx([1 / 3, 1 / 3])


@pytest.mark.parametrize("first", [[0.1, 0.7], [0.5, 0.5, 0.5]])
def test_class_order_is_nan_for_two_classes_or_equal_distances(write_recording, first):
    a, b = recordings_of_profiles(write_recording, first, np.linspace(0, 1, len(first)) ** 2)
    frame = compare_class_order(a, b)
    assert frame["gate"].tolist() == ["g"]
    assert frame[["spearman", "p"]].isna().all(axis=None)


def test_compare_grad_cam_equals_scipy_and_sets(pair):
    a, b = pair
    frame = compare_grad_cam(a, b, "true").set_index("class")
    rho, iou = [], []
    for x, y in zip(a.grad_cam(target="true"), b.grad_cam(target="true"), strict=True):
        x, y = np.maximum(x, 0).ravel(), np.maximum(y, 0).ravel()
        rho.append(stats.spearmanr(x, y).statistic)
        top, other = set(np.argsort(-x)[:3]), set(np.argsort(-y)[:3])
        iou.append(len(top & other) / len(top | other))
    rho, iou = np.array(rho), np.array(iou)
    assert list(frame.index) == ["all", *a.classes]
    assert frame["scored"].tolist() == [60, 20, 20, 20]
    assert frame.loc["all", ["spearman", "iou"]].tolist() == pytest.approx([rho.mean(), iou.mean()])
    for k, name in enumerate(a.classes):
        expected = [rho[a.labels == k].mean(), iou[a.labels == k].mean()]
        assert frame.loc[name, ["spearman", "iou"]].tolist() == pytest.approx(expected)


def test_compare_grad_cam_separates_agreement_from_the_null(write_recording):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 3
    fine = rng.uniform(0.1, 1, (200, 4, 4)).astype(np.float16)
    a = write_recording("a", labels=labels, grad_cam=fine.repeat(2, 1).repeat(2, 2))
    b = write_recording("b", labels=labels, grad_cam=fine)
    frame = compare_grad_cam(a, b)
    assert frame["spearman"].tolist() == pytest.approx([1] * 4)
    assert frame["iou"].tolist() == pytest.approx([1] * 4)
    assert frame["null_spearman"].abs().max() < 0.1
    assert frame["null_iou"].max() < 0.2
    other = compare_grad_cam(a, b, seed=1)
    assert not frame["null_spearman"].equals(other["null_spearman"])


def test_compare_grad_cam_does_not_score_a_map_of_zeros(write_recording):
    cam = np.arange(16.0).reshape(4, 2, 2)
    dead = cam.copy()
    dead[1] = -1
    a = write_recording("a", labels=[0, 1, 1, 0], grad_cam=cam)
    b = write_recording("b", labels=[0, 1, 1, 0], grad_cam=dead)
    for first, second in ((a, b), (b, a)):
        frame = compare_grad_cam(first, second)
        assert frame["scored"].tolist() == [3, 2, 1, 0]
        assert frame["constant"].tolist() == [1, 0, 1, 0]
        assert frame["spearman"].isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("changed", "code", "names"),
    [
        ({"names": ["cat", "dog", "fox"]}, "AS720", ("fox",)),
        ({"names": ["cat", "owl", "dog"]}, "AS720", ()),
        ({"labels": [0, 1, 2]}, "AS721", (4, 3)),
        ({"labels": [0, 1, 1, 0]}, "AS723", ("row 2", 2, 1)),
        ({"prefix": "other"}, "AS722", ("row 0", "test/0000.png", "other/0000.png")),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        compare_accuracy,
        compare_confusion,
        compare_profiles,
        compare_class_order,
        compare_grad_cam,
    ],
)
def test_recordings_of_different_images_are_refused(
    write_recording, function, changed, code, names
):
    a = write_recording("a", labels=[0, 1, 2, 0])
    b = write_recording("b", **{"labels": [0, 1, 2, 0], **changed})
    with refused(code, names=(a.folder, b.folder, *names)):
        function(a, b)
