"""Orders of classes and channels, against all orders of small examples and SciPy's tree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from attnscope.statistics import ordering
from attnscope.statistics.ordering import contrast, difference_order, differences, similarity_order


def test_groups_that_were_mixed_are_put_side_by_side():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(4), 6))
    rows = 10 * np.eye(4)[group] + rng.normal(scale=0.1, size=(24, 4))
    ordered = group[similarity_order(rows)]
    assert np.count_nonzero(np.diff(ordered)) == 3, "each group is one run"


def test_points_on_a_line_are_sorted():
    places = np.random.default_rng(1).permutation(30).astype(float)
    ordered = places[similarity_order(places[:, None])]
    assert list(ordered) in ([*range(30)], [*range(29, -1, -1)])


def test_the_order_is_the_shortest_that_the_tree_allows():
    rows = np.random.default_rng(2).normal(size=(6, 3))
    tree = hierarchy.linkage(pdist(rows), "average")

    def orders(node: hierarchy.ClusterNode) -> list[list[int]]:
        if node.is_leaf():
            return [[node.id]]
        pairs = itertools.product(orders(node.get_left()), orders(node.get_right()))
        return [order for a, b in pairs for order in (a + b, b + a)]

    def length(order: list[int]) -> float:
        return float(np.linalg.norm(np.diff(rows[order], axis=0), axis=1).sum())

    shortest = min(length(order) for order in orders(hierarchy.to_tree(tree)))
    assert length(list(similarity_order(rows))) == pytest.approx(shortest)


def test_many_rows_are_ordered_by_the_tree_alone(monkeypatch):
    rows = np.random.default_rng(3).normal(size=(20, 3))
    monkeypatch.setattr(ordering, "OPTIMAL", 19)
    expected = hierarchy.leaves_list(hierarchy.linkage(pdist(rows), "average"))
    assert list(similarity_order(rows)) == list(expected)


def test_rows_without_values_are_last():
    rows = np.array([[np.nan, 1], [0, 0], [5, 5], [0.1, 0], [np.nan, np.nan]])
    order = list(similarity_order(rows))
    assert order[3:] == [0, 4]
    assert order[:3] in ([1, 3, 2], [2, 3, 1])
    assert list(similarity_order(rows[:2])) == [1, 0]
    assert list(similarity_order(np.full((2, 3), np.nan))) == [0, 1]
    assert sorted(similarity_order(np.ones((5, 2)))) == [0, 1, 2, 3, 4], "all rows are equal"


MEANS = np.array([[0.2, 0.5], [0.4, 0.5], [np.nan, np.nan], [0.9, 0.2]])


def test_differences_are_from_the_mean_over_the_classes_that_have_images():
    apart = differences(MEANS)
    np.testing.assert_allclose(apart[[0, 1, 3]], [[-0.3, 0.1], [-0.1, 0.1], [0.4, -0.2]])
    assert np.isnan(apart[2]).all()
    assert list(difference_order(MEANS)) == [3, 0, 1, 2]


def test_contrast_compares_the_chosen_classes_with_the_others():
    table = contrast(MEANS, [0, 2], [0, 1])
    assert list(table["channel"]) == [0, 1]
    np.testing.assert_allclose(table["inside"], [0.2, 0.5])
    np.testing.assert_allclose(table["outside"], [0.65, 0.35])
    np.testing.assert_allclose(table["difference"], [-0.45, 0.15])
    assert list(contrast(MEANS, [1], [1, 0])["channel"]) == [1, 0], "0.15 against 0.15: as given"
    assert contrast(MEANS, [2], [0])["inside"].isna().all()
    assert contrast(MEANS, [0, 1, 2, 3], [0])["outside"].isna().all()
