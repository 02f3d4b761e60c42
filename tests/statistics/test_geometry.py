"""Geometry of classes, against SciPy, enumerated orders and planted similarities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial.distance import pdist, squareform

from attnscope.statistics import class_distances, compare_geometry, distances, geometry
from attnscope.statistics.distances import ClassMeans
from attnscope.statistics.splits import stratified_folds
from tests.making import refused

GATE = "layer1.attention.channel"
TEN = list("abcdefghij")


def test_class_distances_equal_scipy(make_recording):
    recording = make_recording(names=TEN[:5])
    frame = class_distances(recording, GATE)
    values = recording.channel(GATE).astype(float)
    means = [values[recording.labels == k].mean(0) for k in range(5)]
    assert frame.to_numpy() == pytest.approx(
        squareform(pdist(means, metric="correlation")), abs=1e-9
    )
    assert list(frame.index) == list(frame.columns) == TEN[:5]


def test_class_distances_by_hand(write_recording):
    values = [[0.1, 0.2, 0.3], [0.2, 0.4, 0.6], [0.3, 0.2, 0.1], [0.7, 0.7, 0.7]]
    frame = class_distances(
        write_recording(labels=[0, 1, 2, 3], gates={"g": values}, names=TEN[:5]), "g"
    )
    expected = [[0, 0, 2], [0, 0, 2], [2, 2, 0]]
    assert frame.iloc[:3, :3].to_numpy() == pytest.approx(np.array(expected), abs=1e-6)
    # There is no correlation for a constant profile and for a class without images.
    assert frame.iloc[3:].isna().all(axis=None)
    assert frame.iloc[:, 3:].isna().all(axis=None)


def distances_of(recording, name, rows):
    """Cross-validated squared distances: means over all pairs of different images, by loops."""
    values, labels = recording.channel(name)[rows].astype(float), recording.labels[rows]
    classes = np.unique(labels)
    groups = [values[labels == k] for k in classes]

    def products(x, y):
        found = [u @ v for i, u in enumerate(x) for j, v in enumerate(y) if x is not y or i != j]
        return np.mean(found)

    size = len(classes)
    found = np.zeros((size, size))
    for i, j in itertools.combinations(range(size), 2):
        x, y = groups[i], groups[j]
        found[i, j] = found[j, i] = products(x, x) + products(y, y) - 2 * products(x, y)
    return found


def test_compare_geometry_equals_an_enumeration_of_all_orders(make_recording):
    a, b = (make_recording(f"{n}", names=TEN[:5], seed=n, effect=2, count=90) for n in (1, 2))
    frame = compare_geometry(a, b, resamples=50)
    assert frame["gate"].tolist() == [GATE, "layer2.attention.channel"]
    assert frame["classes"].tolist() == [5, 5]
    upper = np.triu_indices(5, 1)
    halves = stratified_folds(a.labels, 2, np.random.default_rng(0))
    for _, row in frame.iterrows():
        x, y = (
            distances_of(recording, row["gate"], halves == half)
            for half, recording in enumerate((a, b))
        )
        rho = stats.spearmanr(x[upper], y[upper]).statistic
        assert row["spearman"] == pytest.approx(rho)
        moved = [
            stats.spearmanr(x[upper], y[np.ix_(order, order)][upper]).statistic
            for order in itertools.permutations(range(5))
        ]
        if row["gate"] == GATE:  # the other gate has no class information
            assert row["p"] == pytest.approx(np.mean(np.abs(moved) >= abs(rho) - 1e-9))
            assert row["low"] <= row["high"]
            assert row["ceiling"] > 0.9
        else:
            assert row[["p", "low", "high"]].isna().all()
            assert row["ceiling"] < 0.9


def test_each_network_has_its_own_images(write_recording):
    """Values of the images of the other network do not matter."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    values = rng.normal(size=(4, 6))[labels] + rng.normal(size=(80, 6))
    halves = stratified_folds(labels, 2, np.random.default_rng(0))
    names = TEN[:4]
    a = write_recording("a", labels=labels, gates={"g": values}, names=names)
    changed = np.where((halves == 1)[:, None], 9.0, values)
    other = write_recording("o", labels=labels, gates={"g": changed}, names=names)
    found = [compare_geometry(each, a, resamples=20).loc[0] for each in (a, other)]
    assert found[0].equals(found[1])
    twice = np.repeat(np.arange(80), 2)
    both = write_recording("t", labels=labels[twice], gates={"g": values[twice]}, names=names)
    # Of copies only the first counts: the same numbers as from the images alone.
    assert (
        compare_geometry(both, both, resamples=20, groups=twice)
        .loc[0]
        .equals(compare_geometry(a, a, resamples=20).loc[0])
    )


def profiles(rng, classes=8, channels=30):
    return 0.5 + 0.1 * rng.normal(size=(classes, 3)) @ rng.normal(size=(3, channels)) / 3


def test_compare_geometry_finds_agreement_for_any_order_of_channels(write_recording):
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 8
    means = profiles(rng)
    noise = lambda: 0.01 * rng.normal(size=(160, 30))  # noqa: E731
    a = write_recording("a", labels=labels, gates={"g": means[labels] + noise()}, names=TEN[:8])
    shuffled = means[labels][:, rng.permutation(30)] + noise()
    b = write_recording("b", labels=labels, gates={"g": shuffled}, names=TEN[:8])
    other = write_recording(
        "c", labels=labels, gates={"g": profiles(rng)[labels] + noise()}, names=TEN[:8]
    )
    same = compare_geometry(a, b, permutations=199, resamples=100).loc[0]
    assert same["spearman"] > 0.95
    assert same["p"] == 1 / 200
    assert same["low"] > 0.85
    assert same["ceiling"] > 0.95
    assert compare_geometry(a, other, permutations=199, resamples=100).loc[0, "p"] > 0.05
    # The same network with fewer channels is still similar.
    few = write_recording(
        "d", labels=labels, gates={"g": (means[labels] + noise())[:, :20]}, names=TEN[:8]
    )
    assert compare_geometry(a, few, permutations=199, resamples=20).loc[0, "spearman"] > 0.5


def test_compare_geometry_does_not_depend_on_the_block_size_except_for_the_bootstrap(
    make_recording, monkeypatch
):
    a, b = (make_recording(f"{n}", names=TEN[:5], seed=n, effect=2, count=90) for n in (1, 2))
    expected = compare_geometry(a, b, resamples=200)
    assert compare_geometry(a, b, resamples=200).equals(expected)
    monkeypatch.setattr(geometry, "_CELLS", 1)
    monkeypatch.setattr(distances, "_CELLS", 1)
    found = compare_geometry(a, b, resamples=200)
    assert found[["spearman", "p"]].equals(expected[["spearman", "p"]])
    np.testing.assert_allclose(found["ceiling"], expected["ceiling"], rtol=1e-9)
    assert np.abs(found["low"] - expected["low"]).max() < 0.3


def test_compare_geometry_is_nan_or_refused_without_enough_classes_or_images(write_recording):
    values = np.random.default_rng(0).uniform(0, 1, (24, 4))
    labels = np.repeat([0, 1, 2], [9, 8, 7])
    a = write_recording("a", labels=labels, gates={"g": values})
    row = compare_geometry(a, a, resamples=9).loc[0]
    assert row["classes"] == 2  # a class needs eight images
    assert row[["spearman", "low", "high", "ceiling", "p"]].isna().all()
    b = write_recording("b", labels=labels, gates={"g": values}, names=TEN[:4])
    with refused("AS720", names=(a.folder, b.folder)):
        compare_geometry(a, b)
    c = write_recording("c", labels=labels, gates={"other": values})
    with refused("AS725", names=(a.folder, c.folder)):
        compare_geometry(a, c)
    with refused("AS701", names=("resamples", 0)):
        compare_geometry(a, a, resamples=0)
    with refused("AS701", names=("permutations", 0)):
        compare_geometry(a, a, permutations=0)
    with refused("AS717", names=(24,)):
        compare_geometry(a, a, groups=[0, 1])


def test_squared_errors_of_class_means_are_variances_over_counts():
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1, 2], [3, 5, 9])
    values = rng.normal(size=(17, 4)) * [1, 2, 3, 4]
    means, errors, count = ClassMeans(values - values.mean(0), labels).moments()
    for k in range(3):
        own = values[labels == k]
        assert means[k] == pytest.approx(own.mean(0) - values.mean(0))
        assert errors[k] == pytest.approx((own.var(0, ddof=1) / len(own)).sum())
        assert count[k] == len(own)


def test_the_ceiling_is_the_geometric_mean_of_the_reliabilities(make_recording, monkeypatch):
    recording = make_recording(names=TEN[:5])
    found = {1: 0.81, 2: 0.49}  # by the seed of each network
    monkeypatch.setattr(ClassMeans, "reliability", lambda self, seed: found[seed])
    frame = compare_geometry(recording, recording, permutations=9, resamples=3, seed=1)
    assert frame["ceiling"].unique() == pytest.approx([0.63])


@pytest.mark.parametrize(("apart", "seed"), [(0.0, 1), (0.35, 2), (1.0, 3)])
def test_the_test_for_any_difference_of_classes_is_that_of_scipy(apart, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [20, 12, 4])
    values = rng.normal(size=(36, 5)) + apart * rng.normal(size=(3, 5))[labels]
    values -= values.mean(0)

    def between(places):
        given = labels[places.astype(int)]
        groups = [values[given == k] for k in range(3)]
        return sum(len(group) * (group.mean(0) ** 2).sum() for group in groups)

    theirs = stats.permutation_test(
        (np.arange(36),), between, permutation_type="pairings", alternative="greater",
        n_resamples=1999, vectorized=False, rng=np.random.default_rng(0),
    )  # fmt: skip
    error = 3 * np.sqrt(theirs.pvalue * (1 - theirs.pvalue) / 99)
    found = ClassMeans(values, labels).difference_p(0)
    assert found == pytest.approx(theirs.pvalue, abs=max(error, 0.015))


def test_reliable_distances_of_classes_that_do_not_differ_are_not_compared(write_recording):
    """Distances of noise alone are reliable in some networks, where a small class is far away."""
    labels = np.repeat(np.arange(6), [40, 30, 20, 12, 10, 8])
    halves = stratified_folds(labels, 2, np.random.default_rng(0))
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        bright = rng.normal(size=(120, 1)) * rng.normal(size=12)
        values = special.expit(bright + 0.3 * rng.normal(size=(120, 12))).astype(np.float32)
        parts = [values[halves == half].astype(np.float64) for half in range(2)]
        reliable = [
            ClassMeans(part - part.mean(0), labels[halves == half]).reliability(half)
            for half, part in enumerate(parts)
        ]
        if min(reliable) >= 0.5:
            break
    recording = write_recording(labels=labels, gates={"g": values}, names=TEN[:6])
    row = compare_geometry(recording, recording, resamples=9).loc[0]
    assert row["ceiling"] == pytest.approx(np.sqrt(np.prod(reliable)))
    assert row["ceiling"] >= 0.5
    assert row[["p", "low", "high"]].isna().all()
    assert np.isfinite(row["spearman"])
