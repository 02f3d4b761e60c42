"""Confused classes, against statsmodels, loops, values by hand and planted groups of classes."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.cluster import hierarchy
from statsmodels.stats.proportion import proportion_confint

from attnscope.statistics import (
    compare_confusion,
    confused_pairs,
    confusion_matrix,
    order_by_confusion,
)
from attnscope.statistics.inference import paired_accuracy_change


def test_confused_pairs_by_hand(write_recording):
    recording = write_recording(
        labels=[0, 0, 0, 0, 1, 1, 2], predictions=[1, 1, 2, 0, 0, 1, 2]
    )  # fmt: skip
    frame = confused_pairs(recording)
    assert frame["true"].tolist() == ["cat", "cat", "dog"]
    assert frame["predicted"].tolist() == ["dog", "owl", "cat"]
    assert frame["count"].tolist() == [2, 1, 1]
    assert frame["images"].tolist() == [4, 4, 2]
    assert frame["rate"].tolist() == [0.5, 0.25, 0.5]
    low, high = proportion_confint([2, 1, 1], [4, 4, 2], method="wilson")
    np.testing.assert_allclose(frame[["low", "high"]], np.stack([low, high], 1), rtol=1e-12)


def test_confused_pairs_are_the_cells_beside_the_diagonal(make_recording):
    recording = make_recording(accuracy=0.4)
    counts = confusion_matrix(recording)
    frame = confused_pairs(recording)
    found = {(row.true, row.predicted): row.count for row in frame.itertuples(index=False)}
    assert found == {
        (true, predicted): counts.loc[true, predicted]
        for true in counts.index
        for predicted in counts.columns
        if true != predicted and counts.loc[true, predicted]
    }
    assert frame["count"].is_monotonic_decreasing


def test_without_errors_no_pair_is_confused(write_recording):
    recording = write_recording(labels=[0, 1, 2])
    assert confused_pairs(recording).empty
    assert order_by_confusion(confusion_matrix(recording).to_numpy()) == [0, 1, 2]


def test_the_order_puts_planted_groups_side_by_side():
    groups = [[0, 3, 6], [1, 4, 7], [2, 5]]
    counts = np.diag([50] * 8)
    for group in groups:
        for i in group:
            for j in group:
                counts[i, j] += 20 + i + j
    order = order_by_confusion(counts)
    assert sorted(order) == list(range(8))
    for group in groups:
        places = sorted(order.index(k) for k in group)
        assert places == list(range(places[0], places[0] + len(group)))


def test_the_order_is_by_rates_and_accepts_classes_without_images():
    # Class 0 has few images: 4 of 8 are predicted as 1. Of class 1, 40 of 4,080 each as 2 and 3.
    counts = np.array(
        [
            [4, 4, 0, 0, 0],
            [0, 4000, 40, 40, 0],
            [0, 0, 4000, 0, 0],
            [0, 0, 0, 4000, 0],
            [0, 0, 0, 0, 0],
        ]
    )
    order = order_by_confusion(counts)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert abs(order.index(0) - order.index(1)) == 1


def test_the_order_is_that_of_the_mean_of_both_directions():
    for seed in range(5):
        counts = np.random.default_rng(seed).integers(0, 30, (7, 7))
        rates = counts / counts.sum(1, keepdims=True)
        distances = [1 - (rates[i, j] + rates[j, i]) / 2 for i, j in combinations(range(7), 2)]
        tree = hierarchy.linkage(distances, "average", optimal_ordering=True)
        assert order_by_confusion(counts) == hierarchy.leaves_list(tree).tolist()


def test_many_classes_have_an_order_at_once():
    rng = np.random.default_rng(0)
    counts = np.diag(np.full(600, 40)) + (rng.random((600, 600)) < 0.01)
    assert sorted(order_by_confusion(counts)) == list(range(600))


def test_compare_confusion_equals_a_loop_over_images(make_recording):
    a, b = make_recording("a", seed=1, accuracy=0.6), make_recording("b", seed=2, accuracy=0.4)
    frame = compare_confusion(a, b)
    cells = [Counter(zip(r.labels, r.predictions, strict=True)) for r in (a, b)]
    assert [(row.true, row.predicted) for row in frame.itertuples()] == [
        (a.classes[i], a.classes[j]) for i, j in sorted(set(cells[0]) | set(cells[1]))
    ]
    for row in frame.itertuples():
        i, j = a.classes.index(row.true), a.classes.index(row.predicted)
        members = a.labels == i
        assert (row.images, row.count_a, row.count_b) == (
            members.sum(), cells[0][i, j], cells[1][i, j],
        )  # fmt: skip
        as_j = [(r.predictions == j)[members] for r in (a, b)]
        expected = paired_accuracy_change(*as_j)
        assert (row.difference, row.low, row.high) == pytest.approx(expected, rel=1e-12)
        assert row.rate_b - row.rate_a == pytest.approx(row.difference, abs=1e-12)


def test_compare_confusion_lists_cells_of_either_network(write_recording):
    a = write_recording("a", labels=[0, 0, 1], predictions=[1, 0, 1])
    b = write_recording("b", labels=[0, 0, 1], predictions=[0, 0, 2])
    frame = compare_confusion(a, b).set_index(["true", "predicted"])
    assert frame["difference"].to_dict() == {
        ("cat", "cat"): 0.5, ("cat", "dog"): -0.5, ("dog", "dog"): -1, ("dog", "owl"): 1,
    }  # fmt: skip
