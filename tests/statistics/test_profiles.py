"""Profiles, effects and states of gates, against SciPy, loops, values by hand, planted effects."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy import stats

from attnscope.statistics import (
    channel_effects,
    class_profiles,
    error_position_summary,
    gate_profiles,
    gate_state,
)
from attnscope.statistics.inference import bounded_mean_interval
from tests.making import refused

GATE = "layer1.attention.channel"
MAP = "layer1.attention.spatial"


def test_class_profiles_equal_a_loop_over_scipy(make_recording):
    recording = make_recording(count=50)
    frame = class_profiles(recording, GATE).set_index(["class", "channel"])
    assert len(frame) == 3 * 8
    for k, name in enumerate(recording.classes):
        for channel in range(8):
            values = recording.channel(GATE)[recording.labels == k, channel].astype(float)
            row = frame.loc[(name, channel)]
            assert row["mean"] == pytest.approx(values.mean())
            assert row["std"] == pytest.approx(statistics.stdev(values))
            assert row["count"] == len(values)
            if channel == 1:  # no spread: the interval is the mean
                assert row["low"] == row["high"] == 0.5
            else:
                # Korn and Graubard: the beta interval of as many trials as give this variance.
                p, n = values.mean(), len(values)
                quantile = stats.norm.ppf(0.975) / stats.t.ppf(0.975, n - 1)
                trials = max(p * (1 - p) / stats.sem(values) ** 2 * quantile**2, n)
                low = stats.beta.ppf(0.025, p * trials, trials - p * trials + 1)
                high = stats.beta.ppf(0.975, p * trials + 1, trials - p * trials)
                assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_class_profiles_show_a_planted_effect(make_recording):
    frame = class_profiles(make_recording(count=300, effect=0.3), GATE)
    means = frame[frame["channel"] == 0]["mean"].to_numpy()
    assert means == pytest.approx([0.4, 0.5, 0.6], abs=0.02)
    planted = frame[frame["channel"] == 0]
    assert (planted["low"].to_numpy()[1:] > planted["high"].to_numpy()[:-1]).all()


def test_the_interval_covers_the_mean_in_95_percent(make_recording):
    covered = []
    for seed in range(20):
        frame = class_profiles(make_recording(f"run{seed}", effect=0, seed=seed), GATE)
        frame = frame[frame["channel"] != 1]
        covered.extend((frame["low"] < 0.4) & (frame["high"] > 0.4))
    assert stats.binomtest(sum(covered), len(covered), 0.95).pvalue > 0.01


def test_profiles_of_classes_with_one_or_no_image(write_recording):
    recording = write_recording(labels=[0, 0, 1], gates={"g": [[0.2], [0.4], [0.9]]})
    for frame in (class_profiles(recording, "g"), gate_profiles(recording)):
        assert frame["class"].tolist() == ["cat", "dog", "owl"]
        assert frame["count"].tolist() == [2, 1, 0]
        assert frame["mean"].tolist() == pytest.approx([0.3, 0.9, np.nan], nan_ok=True)
        assert frame["std"].isna().tolist() == [False, True, True]
        assert frame[["low", "high"]].isna().all(axis=None)  # fewer than ten images


def test_the_interval_of_a_gate_without_bounds_is_students(write_recording):
    values = np.random.default_rng(0).normal(size=(12, 1))
    recording = write_recording(
        labels=np.zeros(12, int), gates={"g": values}, bounds=(-np.inf, np.inf)
    )
    row = class_profiles(recording, "g").loc[0]
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values[:, 0]))
    assert (row["low"], row["high"]) == pytest.approx(expected, rel=1e-5)


def test_a_closed_channel_has_an_interval_with_a_width(write_recording):
    values = np.zeros((20, 1))
    row = class_profiles(write_recording(labels=np.zeros(20, int), gates={"g": values}), "g").loc[0]
    # In 20 images none is open: Clopper and Pearson's upper end is 1 - 0.025^(1 / 20).
    assert (row["mean"], row["low"]) == (0, 0)
    assert row["high"] == pytest.approx(1 - 0.025 ** (1 / 20))


@pytest.mark.parametrize("function", [channel_effects, error_position_summary])
def test_values_that_are_not_finite_are_refused(write_recording, function):
    values = np.random.default_rng(0).random((12, 3))
    values[5, 1] = np.nan
    recording = write_recording(labels=np.arange(12) % 3, gates={"g": values})
    with refused("AS704", names=("g",)):
        function(recording, "g") if function is channel_effects else function(recording)


@pytest.mark.parametrize("function", [class_profiles, channel_effects])
def test_channel_statistics_refuse_other_gates(make_recording, function):
    recording = make_recording()
    with refused("AS609", names=(MAP,)):
        function(recording, MAP)
    with refused("AS608", names=("nothing",)):
        function(recording, "nothing")


def test_channel_effects_equal_scipy_and_the_sums_of_squares(make_recording):
    recording = make_recording(count=50)
    frame = channel_effects(recording, GATE)
    assert frame["channel"].tolist() == list(range(8))
    for channel in (0, *range(2, 8)):
        values = recording.channel(GATE)[:, channel].astype(float)
        groups = [values[recording.labels == k] for k in range(3)]
        expected = stats.f_oneway(*groups)
        ssb = sum(len(g) * (g.mean() - values.mean()) ** 2 for g in groups)
        sst = ((values - values.mean()) ** 2).sum()
        msw = (sst - ssb) / (50 - 3)
        row = frame.loc[channel]
        assert row["f"] == pytest.approx(expected.statistic)
        assert row["omega_squared"] == pytest.approx((ssb - 2 * msw) / (sst + msw))


def test_omega_squared_by_hand(write_recording):
    # Means 2, 3 and 6: SSB = 26, SSW = 6, MSW = 1, F = 13, omega² = (26 - 2) / (32 + 1).
    values = np.array([[1, 2, 3, 2, 3, 4, 5, 6, 7]]).T
    recording = write_recording(labels=np.repeat([0, 1, 2], 3), gates={"g": values})
    row = channel_effects(recording, "g").loc[0]
    assert row["f"] == pytest.approx(13)
    assert row["omega_squared"] == pytest.approx(24 / 33)


def test_channel_effects_find_the_planted_channel_and_no_other(make_recording):
    planted = channel_effects(make_recording(effect=0.3), GATE)
    assert planted["omega_squared"].idxmax() == 0
    # The class means 0.4, 0.5 and 0.6 have the variance 0.02 / 3, the noise has 0.2² / 12.
    between, within = 0.02 / 3, 0.04 / 12
    assert planted["omega_squared"][0] == pytest.approx(between / (between + within), abs=0.06)
    none = channel_effects(make_recording("none", effect=0), GATE)
    assert none["omega_squared"].abs().max() < 0.1


def test_omega_squared_is_near_zero_on_average_without_effect(make_recording):
    values = [
        channel_effects(make_recording(f"run{seed}", effect=0, seed=seed), GATE)["omega_squared"]
        for seed in range(20)
    ]
    assert abs(np.nanmean(values)) < 0.01  # eta squared would be 2 / 59 = 0.034


def test_channel_effects_do_not_test_constant_channels(make_recording):
    frame = channel_effects(make_recording(), GATE)
    assert frame["constant"].tolist() == [False, True] + [False] * 6
    assert frame.loc[1, ["f", "omega_squared"]].isna().all()
    assert frame.drop(index=1).notna().all(axis=None)


def test_channel_effects_without_variance_within_classes(write_recording):
    recording = write_recording(labels=[0, 0, 1, 1], gates={"g": [[0.1], [0.1], [0.7], [0.7]]})
    row = channel_effects(recording, "g").loc[0]
    assert (row["f"], row["omega_squared"]) == (np.inf, 1)
    assert not row["constant"]


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]])
def test_channel_effects_are_nan_with_too_few_classes_or_images(write_recording, labels):
    frame = channel_effects(write_recording(labels=labels, gates={"g": [[0.1], [0.2], [0.4]]}), "g")
    assert frame[["f", "omega_squared"]].isna().all(axis=None)
    assert not frame["constant"].any()


def test_channel_effects_with_empty_classes_and_classes_of_one_image(write_recording):
    values = [[0.1], [0.4], [0.2], [0.5], [0.3]]
    recording = write_recording(
        labels=[0, 0, 3, 3, 1], gates={"g": values}, names=["a", "b", "c", "d"]
    )
    row = channel_effects(recording, "g").loc[0]
    expected = stats.f_oneway([0.1, 0.4], [0.2, 0.5], [0.3])
    assert row["f"] == pytest.approx(expected.statistic, rel=1e-5)


def test_gate_profiles_average_the_image_means(make_recording):
    recording = make_recording(count=50)
    frame = gate_profiles(recording)
    assert frame["gate"].drop_duplicates().tolist() == [gate.name for gate in recording.gates]
    assert frame["depth"].tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert frame["kind"].tolist() == (["channel"] * 3 + ["spatial"] * 3) * 2
    for _, row in frame.iterrows():
        inside = recording.labels == recording.classes.index(row["class"])
        means = np.array([image.mean() for image in recording.gate(row["gate"])[inside]], float)
        std, count = means.std(ddof=1), np.array([len(means)])
        ends = bounded_mean_interval(np.array([means.mean()]), np.array([std]), count)
        assert (row["low"], row["high"]) == pytest.approx(np.ravel(ends), rel=1e-5)
        assert row["mean"] == pytest.approx(means.mean())
        assert row["std"] == pytest.approx(means.std(ddof=1), rel=1e-5)
        assert row["count"] == len(means)


def test_gate_profiles_show_a_planted_effect(make_recording):
    # One of eight channels rises by 0.2 from the first class to the last, so the mean by 0.025.
    frame = gate_profiles(make_recording(count=600, effect=0.3)).set_index(["gate", "class"])
    rise = frame.loc[(GATE, "owl"), "mean"] - frame.loc[(GATE, "cat"), "mean"]
    assert rise == pytest.approx(0.025, abs=0.006)
    assert frame.loc[(GATE, "owl"), "low"] > frame.loc[(GATE, "cat"), "high"]


def test_gate_state_by_hand(write_recording):
    channel = [[0.005, 0.995, 0.51, 0.3], [0.02, 0.98, 0.49, 0.3]]
    spatial = [[[0.4, 0.4], [0.4, 0.4]], [[0.5, 0.5], [0.99, 0.75]]]
    frame = gate_state(write_recording(labels=[0, 1], gates={"c": channel, "s": spatial}))
    assert frame["gate"].tolist() == ["c", "s"]
    assert frame["kind"].tolist() == ["channel", "spatial"]
    assert frame["depth"].tolist() == [1, 2]
    assert frame["saturated_low"].tolist() == [1 / 8, 0]
    assert frame["saturated_high"].tolist() == [
        1 / 8,
        1 / 8,
    ]  # 0.99 counts: the threshold is included
    assert frame["stuck"].tolist() == [2 / 8, 2 / 8]
    assert frame["constant"].tolist() == [1 / 4, 1 / 2]  # share of channels; share of images


def test_gate_state_uses_the_bounds_of_the_gate(write_recording):
    # With a range of 2 the margin is 0.02; stuck is within 0.02 of the middle, which is 0.
    values = [[-0.985, 0.985, 0.015, 0.5], [-0.97, 0.97, 0.03, 0.51]]
    row = gate_state(write_recording(labels=[0, 1], gates={"g": values}, bounds=(-1, 1))).loc[0]
    assert row["saturated_low"] == row["saturated_high"] == row["stuck"] == 1 / 8


def test_gate_state_finds_the_planted_constant_channel(make_recording):
    frame = gate_state(make_recording()).set_index("gate")
    assert frame.loc[GATE, "constant"] == 1 / 8
    assert frame.drop(index=GATE)["constant"].eq(0).all()
    assert frame.loc[GATE, "stuck"] >= 1 / 8


def test_a_network_without_gates_gives_no_rows(write_recording):
    recording = write_recording(labels=[0, 1])
    assert list(gate_profiles(recording))[:4] == ["gate", "kind", "depth", "class"]
    assert len(gate_profiles(recording)) == len(gate_state(recording)) == 0
