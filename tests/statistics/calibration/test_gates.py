"""Tests and intervals of channels and gates, without an effect and with a planted one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from attnscope.statistics import (
    between_class_variance,
    class_selectivity,
    permuted_channel_effects,
    state_sweep,
)
from tests.statistics.calibration.rates import TIMES, expect_coverage, expect_false_positives, many


@pytest.fixture
def no_effect(write_recording):
    """Three classes of 12, 8 and 5 images; six skewed, dependent channels without an effect."""
    labels = np.repeat([0, 1, 2], [12, 8, 5])
    mix = np.random.default_rng(0).normal(size=(3, 6))
    return many(
        write_recording, lambda rng: special.expit(rng.exponential(1, (25, 3)) @ mix), labels
    )


def test_permuted_effects_without_effect(write_recording):
    """As ``no_effect``, in classes of at least ten images."""
    mix = np.random.default_rng(0).normal(size=(3, 6))
    recording = many(
        write_recording,
        lambda rng: special.expit(rng.exponential(1, (39, 3)) @ mix),
        np.repeat([0, 1, 2], [17, 12, 10]),
    )
    frames = [
        permuted_channel_effects(recording, gate.name, permutations=99, seed=i)
        for i, gate in enumerate(recording.gates)
    ]
    expect_false_positives([frame["p"][0] for frame in frames])
    expect_false_positives([frame["p_max"].min() for frame in frames], of="p_max")


def test_selectivity_without_effect(no_effect):
    frames = [
        class_selectivity(no_effect, gate.name, permutations=99, seed=i)
        for i, gate in enumerate(no_effect.gates)
    ]
    expect_false_positives([frame["p"][0] for frame in frames])
    expect_false_positives([frame["p_max"].min() for frame in frames], of="p_max")


def test_shares_of_variance_without_effect(no_effect):
    frame = between_class_variance(no_effect, permutations=999)
    expect_false_positives(frame["p"])
    # With so few permutations, interpolated percentiles would leave 9.8% outside.
    frame = between_class_variance(no_effect, permutations=39)
    outside = (frame["omega_squared"] < frame["null_low"]) | (
        frame["omega_squared"] > frame["null_high"]
    )
    expect_false_positives(np.where(outside, 0, 1), of="the null band")
    assert abs(frame["omega_squared"].mean()) < 0.01  # eta squared would be 2 / 24


def test_the_interval_of_selectivity(write_recording):
    labels = np.arange(90) % 3
    means = np.array([0.2, 0.1, 0.3])  # (0.3 - 0.15) / (0.3 + 0.15)
    values = np.random.default_rng(0).gamma(4, 1, (90, 600 * TIMES)) / 4 * means[labels][:, None]
    frame = class_selectivity(write_recording(labels=labels, gates={"g": values}), "g", 9)
    frame = frame[frame["best"] == "owl"]
    expect_coverage(frame["low"], frame["high"], 1 / 3)


def test_the_interval_of_the_share_of_variance(write_recording):
    labels = np.repeat([0, 1, 2], [40, 30, 20])
    means = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0.5]])
    spread = np.array([1, 0.5, 2])
    recording = many(
        write_recording,
        lambda rng: 0.5 + 0.02 * (means[labels] + spread * rng.normal(size=(90, 3))),
        labels,
    )
    offset = means[labels] - means[labels].mean(0)
    between = (offset**2).sum(1).mean()
    frame = between_class_variance(recording, permutations=1)
    expect_coverage(frame["low"], frame["high"], between / (between + (spread**2).sum()))
    assert frame["omega_squared"].mean() == pytest.approx(
        between / (between + (spread**2).sum()), abs=0.01
    )


def test_the_interval_of_a_share_of_saturated_values(write_recording):
    rng_labels = np.zeros(60, int)
    recording = many(
        write_recording, lambda rng: rng.random((60, 8)) < 0.3, rng_labels, names=["a"]
    )
    frame = state_sweep(recording, [0.01])
    expect_coverage(frame["saturated_high_from"], frame["saturated_high_to"], 0.3)
