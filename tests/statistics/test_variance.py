"""Shares of variance between classes, against loops, covariances and planted effects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from attnscope.statistics import (
    between_class_variance,
    channel_effects,
    class_selectivity,
    class_sums,
    linear_probe,
    permuted_channel_effects,
    reading,
)
from tests.making import refused

TEN = list("abcdefghij")


def squares(values, labels):
    """SSB and SSW from pairwise distances alone (Anderson 2001)."""
    d = squareform(pdist(values)) ** 2
    sst = d.sum() / 2 / len(values)
    ssw = sum(
        d[np.ix_(labels == k, labels == k)].sum() / 2 / (labels == k).sum()
        for k in np.unique(labels)
    )
    return sst - ssw, ssw


def test_shares_equal_those_from_pairwise_distances(make_recording):
    recording = make_recording(count=50)
    frame = between_class_variance(recording, permutations=19, seed=4)
    assert frame["gate"].tolist() == [gate.name for gate in recording.gates]
    assert frame["depth"].tolist() == [1, 2, 3, 4]
    orders = np.random.default_rng(4).permuted(np.tile(recording.labels, (20, 1)), axis=1)
    for _, row in frame.iterrows():
        values = recording.gate(row["gate"]).reshape(50, -1).astype(float)

        def shares(labels, values=values):
            ssb, ssw = squares(values, labels)
            msw = ssw / 47
            return ssb / (ssb + ssw), (ssb - 2 * msw) / (ssb + ssw + msw)

        eta, omega = shares(recording.labels)
        assert row["eta_squared"] == pytest.approx(eta, rel=1e-5)
        assert row["omega_squared"] == pytest.approx(omega, abs=1e-6)
        null = np.array([shares(order) for order in orders[1:]])
        assert row["p"] == pytest.approx((1 + (null[:, 0] >= eta).sum()) / 20)
        assert (row["null_low"], row["null_high"]) == pytest.approx(
            tuple(np.quantile(null[:, 1], [0.025, 0.975], method="weibull")), abs=1e-6
        )
    assert frame["constant"].tolist() == [1, 0, 0, 0]


def test_share_of_one_channel_equals_the_analysis_of_variance(write_recording):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [20, 9, 5])
    recording = write_recording(labels=labels, gates={"g": rng.uniform(0, 1, (34, 1))})
    row, effect = (
        between_class_variance(recording, 9).loc[0],
        channel_effects(recording, "g").loc[0],
    )
    assert row["eta_squared"] == pytest.approx(effect["eta_squared"], rel=1e-5)
    assert row["omega_squared"] == pytest.approx(effect["omega_squared"], abs=1e-6)


def test_a_planted_effect_is_outside_the_null_band(make_recording):
    frame = between_class_variance(make_recording(count=240, effect=0.3, seed=1), permutations=199)
    # 0.02 / 3 between classes, and 0.2² / 12 within classes in each of seven varying channels.
    truth = (0.02 / 3) / (0.02 / 3 + 7 * 0.04 / 12)
    assert frame["low"][0] < truth < frame["high"][0]
    assert frame["p"][0] == 1 / 200
    assert frame["omega_squared"][0] > frame["null_high"][0]
    assert (frame["p"][1:] > 0.02).all()
    assert ((frame["null_low"] < 0) & (frame["null_high"] > 0)).all()


def test_standard_error_equals_the_jackknife(write_recording):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    values = 0.5 + 0.05 * (rng.normal(size=(120, 4)) + labels[:, None])
    row = between_class_variance(write_recording(labels=labels, gates={"g": values}), 9).loc[0]
    omegas = []
    for i in range(120):
        keep = np.arange(120) != i
        ssb, ssw = squares(values[keep], labels[keep])
        msw = ssw / 116
        omegas.append((ssb - 2 * msw) / (ssb + ssw + msw))
    # Stratified: the spread about the mean of the class.
    variance = (
        sum(np.var([omegas[i] for i in range(120) if labels[i] == k]) * 40 for k in range(3))
        * 119
        / 120
    )
    half = 1.98 * np.sqrt(variance)
    assert row["high"] - row["omega_squared"] == pytest.approx(half, rel=0.05)


def test_results_do_not_depend_on_the_block_size(make_recording, monkeypatch):
    recording = make_recording()
    expected = between_class_variance(recording, 50)
    monkeypatch.setattr(reading, "_CHUNK", 7)
    monkeypatch.setattr(class_sums, "_DENSE_CLASSES", 2)
    columns = ["eta_squared", "omega_squared", "low", "high", "null_low", "null_high", "p"]
    found = between_class_variance(recording, 50)
    assert found[columns].to_numpy() == pytest.approx(
        expected[columns].to_numpy(), rel=1e-4, abs=1e-6
    )


def test_shares_are_nan_for_constant_gates_and_too_few_images(write_recording):
    numbers = ["eta_squared", "omega_squared", "low", "high", "null_low", "null_high", "p"]
    constant = between_class_variance(
        write_recording("c", labels=[0, 0, 1], gates={"g": [[0.5, 0.25]] * 3}), 9
    )
    assert constant[numbers].isna().all(axis=None)
    assert constant["constant"].tolist() == [2]
    for labels in ([0, 1, 2], [1, 1, 1]):
        frame = between_class_variance(
            write_recording(f"r{labels}", labels=labels, gates={"g": [[0.1], [0.2], [0.4]]}), 9
        )
        assert frame[numbers].isna().all(axis=None)
    single = between_class_variance(
        write_recording("s", labels=[0, 0, 1], gates={"g": [[0.1], [0.2], [0.4]]}), 9
    )
    assert single["p"].notna().all()
    assert single[["low", "high"]].isna().all(axis=None)  # no spread in a class of one image
    assert len(between_class_variance(write_recording("n", labels=[0, 1]), 9)) == 0
    with refused("AS701", names=("permutations", 0)):
        between_class_variance(write_recording("p", labels=[0, 1]), 0)


def test_channels_of_a_small_spread_are_resolved(write_recording):
    # The channel is almost closed, close to the precision of float32.
    labels = np.arange(60) % 3
    values = (1e-6 * (1 + labels + np.random.default_rng(0).uniform(0, 0.1, 60)))[:, None]
    row = between_class_variance(write_recording(labels=labels, gates={"g": values}), 99).loc[0]
    assert row["eta_squared"] > 0.99
    assert row["p"] == 1 / 100


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_non_finite_values_are_refused(write_recording, wrong):
    """A NaN compares as False and would get the smallest possible p."""
    labels = np.arange(60) % 3
    values = np.random.default_rng(0).random((60, 4))
    values[7, 2] = wrong
    recording = write_recording(labels=labels, gates={"g": values})
    for measure in (
        lambda: between_class_variance(recording, 9),
        lambda: permuted_channel_effects(recording, "g", 9),
        lambda: class_selectivity(recording, "g", 9),
        lambda: linear_probe(recording, 9),
    ):
        with refused("AS704", names=("'g'", 1, recording.folder)):
            measure()
