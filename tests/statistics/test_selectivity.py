"""Selectivity and permutation tests, against loops, SciPy, values by hand and planted effects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from attnscope.statistics import (
    channel_effects,
    class_selectivity,
    class_sums,
    permuted_channel_effects,
    reading,
)
from attnscope.statistics.inference import bounded_mean_interval
from attnscope.statistics.splits import stratified_folds
from tests.making import refused

GATE = "layer1.attention.channel"
TEN = list("abcdefghij")


@pytest.fixture
def uneven(write_recording):
    """Five channels of gamma values; classes of 40, 24, 20, 0 and 1 images."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat([0, 1, 2, 4], [40, 24, 20, 1]))
    values = rng.gamma(3, 0.05, (85, 5))
    values[:, 2] += 0.3 * (labels == 1)
    return write_recording(labels=labels, gates={"g": values}, names=TEN[:5])


def test_selectivity_equals_a_loop(uneven):
    frame = class_selectivity(uneven, "g", permutations=9, seed=5)
    labels, values = uneven.labels, uneven.channel("g").astype(float)
    usable = np.where(labels == 4, -1, labels)  # one image cannot be in both halves
    halves = stratified_folds(usable, 2, np.random.default_rng(5))
    for channel in range(5):
        choose, score = (
            [values[(halves == half) & (labels == k), channel] for k in range(3)] for half in (1, 0)
        )
        best = int(np.argmax([x.mean() for x in choose]))

        def index(*means, best=best):
            a, others = means[best], [m for k, m in enumerate(means) if k != best]
            return (a - np.mean(others)) / (a + np.mean(others))

        means = [x.mean() for x in score]
        row = frame.loc[channel]
        assert row["best"] == TEN[best]
        assert row["selectivity"] == pytest.approx(index(*means), abs=1e-6)
        ends = [
            np.ravel(
                bounded_mean_interval(
                    np.array([x.mean()]), np.array([x.std(ddof=1)]), np.array([len(x)])
                )
            )
            for x in score
        ]
        # What moves the index down: the chosen class lower, and the mean of the others higher.
        others = [k for k in range(3) if k != best]
        rest, center = np.mean([means[k] for k in others]), index(*means)

        def at(a, b):
            return (a - b) / (a + b)

        higher = rest + np.hypot(*(ends[k][1] - means[k] for k in others)) / 2
        lower = rest - np.hypot(*(means[k] - ends[k][0] for k in others)) / 2
        below = np.hypot(center - at(ends[best][0], rest), center - at(means[best], higher))
        above = np.hypot(at(ends[best][1], rest) - center, at(means[best], lower) - center)
        found = (row["low"], row["high"])
        assert found == pytest.approx((center - below, center + above), abs=1e-6)
    assert frame["best"][2] == "b"
    assert frame["p"][2] == 1 / 10


def test_selectivity_by_hand(write_recording):
    # All images of a class are equal, so the halves do not matter: (0.9 - 0.2) / (0.9 + 0.2).
    values = [[0.1, 0.4, 0.0, 0.5]] * 4 + [[0.9, 0.4, 0.3, 0.1]] * 4 + [[0.3, 0.4, 0.0, 0.6]] * 4
    values = np.repeat(values, 6, 0)
    values[0, 3] -= 0.6  # below zero
    frame = class_selectivity(
        write_recording(labels=np.repeat([0, 1, 2], 24), gates={"g": values}, bounds=(-1, 1)), "g"
    )
    assert frame["best"].tolist()[::2] == ["dog", "dog"]
    assert frame["best"][[1, 3]].isna().all()
    assert frame["selectivity"].to_numpy() == pytest.approx(
        [0.7 / 1.1, np.nan, 1, np.nan], nan_ok=True
    )
    assert frame["constant"].tolist() == [False, True, False, False]
    assert frame["negative"].tolist() == [False, False, False, True]
    numbers = ["selectivity", "low", "high", "p", "p_max"]
    assert frame.loc[[1, 3], numbers].isna().all(axis=None)
    assert frame.loc[[0, 2], numbers].notna().all(axis=None)
    assert frame["low"][0] == pytest.approx(frame["high"][0])


def test_selectivity_is_nan_for_a_channel_of_zeros_on_the_scoring_half(write_recording):
    labels = np.repeat([0, 1], 4)
    halves = stratified_folds(labels, 2, np.random.default_rng(0))
    values = np.where(halves == 1, 0.7, 0.0)[:, None]
    frame = class_selectivity(write_recording(labels=labels, gates={"g": values}), "g")
    assert frame[["selectivity", "low", "high", "p", "p_max"]].isna().all(axis=None)
    assert not frame[["constant", "negative"]].any(axis=None)


def test_selectivity_is_zero_on_average_without_effect(write_recording):
    # On the choosing half the largest of ten noisy means is about 0.1 above the others.
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    recording = write_recording(
        labels=labels, gates={"g": rng.uniform(0, 1, (200, 300))}, names=TEN
    )
    frame = class_selectivity(recording, "g", permutations=99)
    assert abs(frame["selectivity"].mean()) < 0.015
    assert frame["p_max"].min() > 0.01


def test_a_class_of_copies_of_one_image_is_left_out(write_recording):
    # The class is chosen on one half and scored on the other, and copies are in one half.
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [30, 26, 12])
    groups = np.append(np.arange(56), [56] * 12)
    values = rng.gamma(3, 0.05, (68, 4))
    values[56:] = values[56] + 0.3
    recording = write_recording(labels=labels, gates={"g": values})
    frame = class_selectivity(recording, "g", permutations=19, seed=5, groups=groups)
    halves = stratified_folds(labels[:56], 2, np.random.default_rng(5))
    means = np.stack(
        [
            [values[:56][(halves == half) & (labels[:56] == k)].mean(0) for k in range(2)]
            for half in range(2)
        ]
    )
    best = means[1].argmax(0)
    a, b = (means[0][each, np.arange(4)] for each in (best, 1 - best))
    assert list(frame["best"]) == [recording.classes[k] for k in best]
    np.testing.assert_allclose(frame["selectivity"], (a - b) / (a + b), atol=1e-6)
    # Twelve copies of one image are not ten images either.
    effects = permuted_channel_effects(recording, "g", 19, groups=groups)
    assert (effects["classes"] == 2).all()
    assert (permuted_channel_effects(recording, "g", 19)["classes"] == 3).all()


def welch(groups, of_all):
    """Welch's F (1951), where the variance of all images counts as a quarter of an image of each class."""
    n = np.array([len(group) for group in groups])
    mean = np.array([group.mean() for group in groups])
    spread = [(len(g) * g.var() + of_all / 4) / (len(g) - 0.75) for g in groups]
    weight, classes = n / np.array(spread), len(n)
    middle = (weight * mean).sum() / weight.sum()
    unsure = ((1 - weight / weight.sum()) ** 2 / (n - 1)).sum()
    between = (weight * (mean - middle) ** 2).sum() / (classes - 1)
    return between / (1 + 2 * (classes - 2) / (classes**2 - 1) * unsure)


def test_welchs_f_equals_statsmodels_for_many_images():
    rng = np.random.default_rng(0)
    groups = [rng.normal(0.1 * k, 1 + k, 2000 * (k + 1)) for k in range(3)]
    expected = anova_oneway(groups, use_var="unequal").statistic
    assert welch(groups, np.concatenate(groups).var()) == pytest.approx(expected, rel=1e-3)


def test_permuted_effects_equal_a_loop(uneven):
    frame = permuted_channel_effects(uneven, "g", permutations=39, seed=5)
    values = uneven.channel("g").astype(float)
    tested = uneven.labels != 4  # a class of one image has no standard error
    labels = uneven.labels[tested]
    orders = np.random.default_rng(5).permuted(np.tile(labels, (40, 1)), axis=1)
    orders[0] = labels
    f = np.array(
        [
            [welch([x[tested][order == k] for k in range(3)], x.var()) for x in values.T]
            for order in orders
        ]
    )
    assert frame["welch"].to_numpy() == pytest.approx(f[0], rel=1e-5)
    assert (frame["classes"] == 3).all()
    for channel in range(5):
        row = frame.loc[channel]
        assert row["p"] == pytest.approx((1 + (f[1:, channel] >= f[0, channel]).sum()) / 40)
        assert row["p_max"] == pytest.approx((1 + (f[1:].max(1) >= f[0, channel]).sum()) / 40)
    assert frame["eta_squared"].to_numpy() == pytest.approx(
        channel_effects(uneven, "g")["eta_squared"].to_numpy(), rel=1e-5
    )


def test_ties_count_as_ties(write_recording):
    """Of two values, every order with the same table of classes and values has the same F."""
    labels = np.repeat([0, 1], [12, 10])
    values = np.where(np.isin(np.arange(22), [0, 1, 2, 3, 4, 12]), 0.1, 0.7)[:, None]
    recording = write_recording(labels=labels, gates={"g": values})
    p = permuted_channel_effects(recording, "g", permutations=5000)["p"][0]
    low = values[:, 0] < 0.5
    f = {
        k: welch([np.repeat([0.1, 0.7], [k, 12 - k]), np.repeat([0.1, 0.7], [6 - k, 4 + k])], 0.07)
        for k in range(7)
    }
    chance = stats.hypergeom(22, 6, 12)
    observed = f[int(low[:12].sum())]
    expected = sum(chance.pmf(k) for k, each in f.items() if each >= observed - 1e-9)
    assert p == pytest.approx(expected, abs=0.02)


def test_permutations_agree_with_welchs_test_on_normal_values(write_recording):
    rng = np.random.default_rng(1)
    values = 0.5 + 0.05 * rng.normal(size=(90, 40))
    recording = write_recording(labels=np.arange(90) % 3, gates={"g": values})
    p = permuted_channel_effects(recording, "g", permutations=2000)["p"]
    expected = [
        anova_oneway([x[k::3] for k in range(3)], use_var="unequal").pvalue for x in values.T
    ]
    assert np.abs(p - expected).max() < 0.04


def test_eta_squared_by_hand(write_recording):
    values = np.array([[1, 2, 3, 2, 3, 4, 5, 6, 7]]).T  # SSB = 26, SSW = 6
    recording = write_recording(labels=np.repeat([0, 1, 2], 3), gates={"g": values})
    assert channel_effects(recording, "g")["eta_squared"][0] == pytest.approx(26 / 32)


@pytest.mark.parametrize("function", [class_selectivity, permuted_channel_effects])
def test_the_planted_channel_is_found_and_the_constant_one_flagged(make_recording, function):
    frame = function(make_recording(count=150, effect=0.3), GATE, permutations=199)
    assert frame["p"][0] == frame["p_max"][0] == 1 / 200
    assert (frame["p_max"].drop(index=[0, 1]) > 0.05).all()
    assert (
        frame["p_max"].dropna() >= frame["p"].dropna() - 1 / 200
    ).all() or function is class_selectivity
    assert frame["constant"].tolist() == [False, True] + [False] * 6
    flags = ["channel", "constant", "classes", "negative"]
    assert frame.loc[1].drop(flags, errors="ignore").isna().all()


@pytest.mark.parametrize("function", [class_selectivity, permuted_channel_effects])
def test_results_do_not_depend_on_the_block_size(uneven, function, monkeypatch):
    expected = function(uneven, "g", permutations=30)
    assert expected.equals(function(uneven, "g", permutations=30))
    monkeypatch.setattr(reading, "_CHUNK", 7)
    monkeypatch.setattr(class_sums, "_DENSE_CLASSES", 2)
    found = function(uneven, "g", permutations=30)
    assert found.drop(columns="best", errors="ignore").to_numpy(float) == pytest.approx(
        expected.drop(columns="best", errors="ignore").to_numpy(float), rel=1e-4, abs=1e-6
    )
    monkeypatch.setattr(class_sums, "_CELLS", 1)  # one permutation at a time
    assert function(uneven, "g", permutations=30)["p"].notna().all()


@pytest.mark.parametrize("function", [class_selectivity, permuted_channel_effects])
@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]])
def test_too_few_classes_or_images_give_nan(write_recording, function, labels):
    frame = function(
        write_recording(labels=labels, gates={"g": [[0.1], [0.2], [0.4]]}), "g", permutations=9
    )
    assert len(frame) == 1
    assert frame[["p", "p_max"]].isna().all(axis=None)


@pytest.mark.parametrize(("images", "has_interval"), [(18, False), (19, True)])
def test_selectivity_has_an_interval_for_halves_of_ten_images(
    write_recording, images, has_interval
):
    # The scoring half is the larger one: it has 9 or 10 images of the first class.
    labels = np.repeat([0, 1], [images, 40 - images])
    frame = class_selectivity(
        write_recording(labels=labels, gates={"g": np.arange(1, 41)[:, None] / 50}), "g", 9
    )
    assert frame["selectivity"].notna().all()
    assert (frame[["low", "high"]].notna() == has_interval).all(axis=None)


@pytest.mark.parametrize("function", [class_selectivity, permuted_channel_effects])
def test_wrong_gates_and_zero_permutations_are_refused(make_recording, function):
    recording = make_recording()
    with refused("AS609", names=("layer1.attention.spatial",)):
        function(recording, "layer1.attention.spatial")
    with refused("AS608", names=("nothing",)):
        function(recording, "nothing")
    with refused("AS701", names=("permutations", 0)):
        function(recording, GATE, permutations=0)


def test_selectivity_p_equals_a_loop_over_orders(uneven):
    frame = class_selectivity(uneven, "g", permutations=39, seed=5)
    labels, values = uneven.labels, uneven.channel("g").astype(float)
    usable = np.where(labels == 4, -1, labels)
    halves = stratified_folds(usable, 2, np.random.default_rng(5))
    rng = np.random.default_rng(6)
    score, choose = (rng.permuted(np.tile(usable[halves == h], (40, 1)), axis=1) for h in (0, 1))
    score[0], choose[0] = usable[halves == 0], usable[halves == 1]
    index = np.zeros((40, 5))
    for i in range(40):
        for channel in range(5):
            x, y = values[halves == 1, channel], values[halves == 0, channel]
            best = np.argmax([x[choose[i] == k].mean() for k in range(3)])
            means = [y[score[i] == k].mean() for k in range(3)]
            others = np.mean(means[:best] + means[best + 1 :])
            index[i, channel] = (means[best] - others) / (means[best] + others)
    assert frame["selectivity"].to_numpy() == pytest.approx(index[0], abs=1e-6)
    standard = (index - index.mean(0)) / index.std(0)
    assert frame["p"].to_numpy() == pytest.approx((1 + (index[1:] >= index[0]).sum(0)) / 40)
    largest = standard[1:].max(1, keepdims=True)
    assert frame["p_max"].to_numpy() == pytest.approx((1 + (largest >= standard[0]).sum(0)) / 40)
