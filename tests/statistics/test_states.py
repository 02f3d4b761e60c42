"""States of gates over thresholds, against values by hand, loops and `gate_state`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from attnscope.statistics import channel_states, gate_state, image_states, reading, state_sweep
from tests.making import refused

CHANNEL = [
    [0.005, 0.995, 0.51, 0.3, 0.0],
    [0.02, 0.98, 0.45, 0.3, 0.004],
    [0.2, 1.0, 0.5, 0.3, 0.01],
]


@pytest.fixture
def recording(write_recording):
    return write_recording(labels=[0, 1, 2], gates={"g": CHANNEL})


def test_channel_states_by_hand(recording):
    frame = channel_states(recording, "g", [0.01, 0.05]).set_index(["threshold", "channel"])
    fine, coarse = frame.loc[0.01], frame.loc[0.05]
    third = 1 / 3
    assert fine["saturated_low"].tolist() == pytest.approx([third, 0, 0, 0, 1])
    assert fine["saturated_high"].tolist() == pytest.approx([0, 2 * third, 0, 0, 0])
    assert (
        fine["identity"].tolist() == fine["saturated_high"].tolist()
    )  # neutral is the upper bound
    assert fine["stuck"].tolist() == pytest.approx([0, 0, 2 * third, 0, 0])
    assert fine["constant"].tolist() == [False, False, False, True, True]
    assert fine["dead"].tolist() == [False, False, False, False, True]
    assert coarse["saturated_low"].tolist() == pytest.approx([2 * third, 0, 0, 0, 1])
    assert coarse["stuck"].tolist() == pytest.approx([0, 0, 1, 0, 0])
    assert coarse["constant"].tolist() == [False, True, False, True, True]


def test_image_states_by_hand(recording):
    frame = image_states(recording, "g", [0.01])
    assert frame["row"].tolist() == [0, 1, 2]
    assert frame["class"].tolist() == ["cat", "dog", "owl"]
    assert frame["saturated_low"].tolist() == pytest.approx([0.4, 0.2, 0.2])
    assert frame["saturated_high"].tolist() == pytest.approx([0.2, 0, 0.2])
    assert frame["stuck"].tolist() == pytest.approx([0.2, 0, 0.2])


def test_state_sweep_is_the_mean_over_images_with_its_interval(make_recording, monkeypatch):
    recording = make_recording(count=50)
    frame = state_sweep(recording, [0, 0.1])
    assert frame["gate"].tolist() == [gate.name for gate in recording.gates for _ in range(2)]
    assert frame["depth"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    for _, row in frame.iterrows():
        values = recording.gate(row["gate"]).reshape(50, -1)
        shares = (np.abs(values - 0.5) <= row["threshold"]).mean(1)
        assert row["stuck"] == pytest.approx(shares.mean())
        p, trials = shares.mean(), 50
        if shares.std() > 0 and p < 1:
            quantile = stats.norm.ppf(0.975) / stats.t.ppf(0.975, 49)
            trials = max(p * (1 - p) / stats.sem(shares) ** 2 * quantile**2, 50)
            low = stats.beta.ppf(0.025, p * trials, trials - p * trials + 1)
            high = stats.beta.ppf(0.975, p * trials + 1, trials - p * trials)
            assert (row["stuck_from"], row["stuck_to"]) == pytest.approx((low, high))
        elif p in (0, 1):  # no image shows an exception, and exceptions are still possible
            width = 1 - 0.025 ** (1 / 50)
            assert row["stuck_to"] - row["stuck_from"] == pytest.approx(width)
        else:
            assert row["stuck_from"] == row["stuck_to"] == pytest.approx(p)
        channels = (
            channel_states(recording, row["gate"], [row["threshold"]])
            if row["kind"] == "channel"
            else None
        )
        if channels is not None:
            assert row["constant"] == channels["constant"].mean()
            assert row["dead"] == channels["dead"].mean()
            assert row["stuck"] == pytest.approx(channels["stuck"].mean())
    monkeypatch.setattr(reading, "_CHUNK", 7)
    assert state_sweep(recording, [0, 0.1]).equals(frame)


def test_state_sweep_agrees_with_gate_state(make_recording):
    recording = make_recording()
    fine, coarse = state_sweep(recording, [0.01]), state_sweep(recording, [0.02])
    old = gate_state(recording)
    for column in ("saturated_low", "saturated_high"):
        assert fine[column].to_numpy() == pytest.approx(old[column].to_numpy())
    assert coarse["stuck"].to_numpy() == pytest.approx(old["stuck"].to_numpy())  # the range is 1
    exact = state_sweep(recording, [0.0]).set_index("gate")["constant"]
    assert exact["layer1.attention.channel"] == 1 / 8


def test_states_are_of_values_and_not_of_means(write_recording):
    recording = write_recording(labels=[0, 0, 0, 0], gates={"g": [[0.0], [1.0], [0.0], [1.0]]})
    row = state_sweep(recording, [0.01]).loc[0]
    assert row["stuck"] == 0
    assert row["saturated_low"] == row["saturated_high"] == 0.5
    assert (row["constant"], row["dead"]) == (0, 0)


def test_states_use_the_bounds_of_the_gate(write_recording):
    values = [[-0.985, 0.985, 0.015, 0.5], [-0.97, 0.97, 0.03, 0.51]]
    row = state_sweep(
        write_recording(labels=[0, 1], gates={"g": values}, bounds=(-1, 1)), [0.01]
    ).loc[0]
    assert row["saturated_low"] == row["saturated_high"] == row["stuck"] == 1 / 8


def test_state_sweep_with_one_image_or_without_gates(write_recording):
    row = state_sweep(write_recording("one", labels=[0], gates={"g": [[0.0, 0.5]]}), [0.01]).loc[0]
    assert row["saturated_low"] == 0.5
    assert np.isnan(row["saturated_low_from"])
    none = state_sweep(write_recording("none", labels=[0]))
    assert len(none) == 0
    assert list(none)[:4] == ["gate", "kind", "depth", "threshold"]


@pytest.mark.parametrize("thresholds", [[], [0.6], [-0.1], [float("nan")]])
def test_invalid_thresholds_are_refused(recording, thresholds):
    with refused("AS703", names=(thresholds,)):
        state_sweep(recording, thresholds)


def test_channel_statistics_refuse_other_gates(make_recording):
    with refused("AS609", names=("layer1.attention.spatial",)):
        channel_states(make_recording(), "layer1.attention.spatial")


@pytest.mark.parametrize(
    ("bounds", "neutral", "dead"),
    [
        ((0, 1), 1, [0.0]),  # x * sigmoid
        ((1, 2), 1, []),  # x * (1 + sigmoid): 1 changes nothing
        ((-1, 1), 1, [0.0]),  # x * tanh: -1 changes the sign
        ((-1, 1), 0, [-1.0]),  # x + x * tanh
        ((0, 1), 0, []),  # x + x * sigmoid: 0 changes nothing
    ],
)
def test_a_dead_channel_multiplies_by_zero(write_recording, bounds, neutral, dead):
    planted = [-1.0, 0.0, 1.0, 2.0]
    values = np.add.outer([0.004, -0.004], planted)
    recording = write_recording(labels=[0, 1], gates={"g": values}, bounds=bounds)
    recording.gates[0] = replace(recording.gates[0], neutral=neutral)
    features = 1 + np.random.default_rng(0).random((2, 4))
    product = features * values + (features if neutral == 0 else 0)
    vanishes = (np.abs(product / features) < 0.01).all(0)
    frame = channel_states(recording, "g", [0.01])
    inside = (np.array(planted) >= bounds[0]) & (np.array(planted) <= bounds[1])
    np.testing.assert_array_equal(frame["dead"][inside], vanishes[inside])
    assert [p for p, is_dead in zip(planted, vanishes & inside, strict=True) if is_dead] == dead
    assert state_sweep(recording, [0.01])["dead"][0] == frame["dead"].mean()
    one = np.full((2, 1), bounds[0])  # at the low bound, of which only some remove the features
    alone = write_recording("alone", labels=[0, 1], gates={"g": one}, bounds=bounds)
    alone.gates[0] = replace(alone.gates[0], neutral=neutral)
    assert channel_states(alone, "g", [0.01])["saturated_low"].tolist() == [1]
    assert channel_states(alone, "g", [0.01])["dead"].tolist() == [bounds[0] in dead]
