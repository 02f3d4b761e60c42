"""Selectivity and permutation tests, against loops, SciPy, values by hand and planted effects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from attnscope.statistics import (
    channel_effects,
    class_selectivity,
    permuted_channel_effects,
    reading,
    resampling,
)
from attnscope.statistics.resampling import stratified_folds
from tests.making import refused

GATE = "layer1.attention.channel"
TEN = list("abcdefghij")


@pytest.fixture
def uneven(write_recording):
    """Five channels of gamma values; classes of 14, 9, 6, 0 and 1 images."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat([0, 1, 2, 4], [14, 9, 6, 1]))
    values = rng.gamma(3, 0.1, (30, 5))
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
        parts = []
        for k in range(3):
            step = 1e-5
            moved = [m + step * (j == k) for j, m in enumerate(means)]
            slope = (index(*moved) - index(*means)) / step
            parts.append(slope**2 * score[k].var(ddof=1) / len(score[k]))
        freedom = sum(parts) ** 2 / sum(
            p**2 / (len(x) - 1) for p, x in zip(parts, score, strict=True)
        )
        half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
        assert row["high"] == pytest.approx(min(index(*means) + half, 1), abs=1e-3)
        assert row["low"] == pytest.approx(max(index(*means) - half, -1), abs=1e-3)
    assert frame["best"][2] == "b"
    assert frame["p"][2] == 1 / 10


def test_selectivity_by_hand(write_recording):
    # All images of a class are equal, so the halves do not matter: (0.9 - 0.2) / (0.9 + 0.2).
    values = [[0.1, 0.4, 0.0, 0.5]] * 4 + [[0.9, 0.4, 0.3, 0.1]] * 4 + [[0.3, 0.4, 0.0, 0.6]] * 4
    values = np.array(values)
    values[0, 3] -= 0.6  # below zero
    frame = class_selectivity(
        write_recording(labels=np.repeat([0, 1, 2], 4), gates={"g": values}, bounds=(-1, 1)), "g"
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


def test_permuted_effects_equal_a_loop_over_scipy(uneven):
    frame = permuted_channel_effects(uneven, "g", permutations=39, seed=5)
    labels, values = uneven.labels, uneven.channel("g").astype(float)
    compact = np.unique(labels, return_inverse=True)[1]
    orders = np.random.default_rng(5).permuted(np.tile(compact, (40, 1)), axis=1)
    orders[0] = compact
    f = np.array(
        [
            [stats.f_oneway(*(x[order == k] for k in range(4))).statistic for x in values.T]
            for order in orders
        ]
    )
    for channel in range(5):
        row = frame.loc[channel]
        assert row["p"] == pytest.approx((1 + (f[1:, channel] >= f[0, channel]).sum()) / 40)
        assert row["p_max"] == pytest.approx((1 + (f[1:].max(1) >= f[0, channel]).sum()) / 40)
    assert frame["eta_squared"].to_numpy() == pytest.approx(
        channel_effects(uneven, "g")["eta_squared"].to_numpy(), rel=1e-5
    )


def test_permutations_agree_with_the_f_test_on_normal_values(write_recording):
    rng = np.random.default_rng(1)
    values = 0.5 + 0.05 * rng.normal(size=(90, 40))
    recording = write_recording(labels=np.arange(90) % 3, gates={"g": values})
    p = permuted_channel_effects(recording, "g", permutations=2000)["p"]
    assert np.abs(p - channel_effects(recording, "g")["p"]).max() < 0.04


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
    assert frame.loc[1].drop(["channel", "constant"]).dropna().tolist() in ([], [False])


@pytest.mark.parametrize("function", [class_selectivity, permuted_channel_effects])
def test_results_do_not_depend_on_the_block_size(uneven, function, monkeypatch):
    expected = function(uneven, "g", permutations=30)
    assert expected.equals(function(uneven, "g", permutations=30))
    monkeypatch.setattr(reading, "_CHUNK", 7)
    monkeypatch.setattr(resampling, "_DENSE_CLASSES", 2)
    found = function(uneven, "g", permutations=30)
    assert found.drop(columns="best", errors="ignore").to_numpy(float) == pytest.approx(
        expected.drop(columns="best", errors="ignore").to_numpy(float), rel=1e-4, abs=1e-6
    )
    monkeypatch.setattr(resampling, "_CELLS", 1)  # one permutation at a time
    assert function(uneven, "g", permutations=30)["p"].notna().all()


@pytest.mark.parametrize("function", [class_selectivity, permuted_channel_effects])
@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]])
def test_too_few_classes_or_images_give_nan(write_recording, function, labels):
    frame = function(
        write_recording(labels=labels, gates={"g": [[0.1], [0.2], [0.4]]}), "g", permutations=9
    )
    assert len(frame) == 1
    assert frame[["p", "p_max"]].isna().all(axis=None)


def test_selectivity_has_no_interval_for_a_half_of_one_image(write_recording):
    labels = [0, 0, 1, 1, 1, 1]
    frame = class_selectivity(
        write_recording(labels=labels, gates={"g": np.arange(1, 7)[:, None] / 8}), "g", 9
    )
    assert frame["selectivity"].notna().all()
    assert frame[["low", "high"]].isna().all(axis=None)


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
