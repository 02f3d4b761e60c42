"""Differences of probes, against a loop over halves and planted information."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import balanced_accuracy_score

from attnscope.statistics import gate_logits, probe_gain
from attnscope.statistics.splits import stratified_folds
from tests.making import refused
from tests.statistics.test_probe import by_definition, chosen, sigmoids


def cross_fitted(x, labels, seed, classes=3):
    halves = stratified_folds(labels, 2, np.random.default_rng(seed))
    found = np.zeros(len(labels), int)
    for half in range(2):
        fit, score = halves == 1 - half, halves == half
        best = chosen(x[fit], labels[fit], classes, seed + 1)
        found[score] = by_definition(x[fit], labels[fit], x[score], classes, best)
    return found


def test_the_difference_equals_a_loop_over_halves(write_recording):
    labels, logits = sigmoids(90, 1)
    inputs = logits + np.random.default_rng(5).normal(size=logits.shape)
    recording = write_recording(
        labels=labels, gates={"g": special.expit(logits)}, pooled={"g": inputs}
    )
    row = probe_gain(recording, seed=3).loc[0]
    own = cross_fitted(gate_logits(recording, "g")[0].astype(float), labels, 3)
    other = cross_fitted(inputs.astype(np.float32).astype(float), labels, 3)
    assert row["control"] == "pooled_input"
    assert row["accuracy"] == pytest.approx(balanced_accuracy_score(labels, own))
    assert row["control_accuracy"] == pytest.approx(balanced_accuracy_score(labels, other))
    assert row["difference"] == pytest.approx(row["accuracy"] - row["control_accuracy"])
    apart = (own == labels).astype(float) - (other == labels)
    within = [((apart[labels == k] - apart[labels == k].mean()) ** 2).sum() for k in range(3)]
    error = np.sqrt(sum((each + 2 / 3) / 30**2 for each in within)) / 3
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.99 * error, rel=0.01)


def test_a_class_of_copies_of_one_image_is_left_out(write_recording):
    labels, logits = sigmoids(80, 1, classes=2)
    values = special.expit(np.append(logits, np.full((3, 6), 3.0), 0))
    inputs = np.random.default_rng(5).normal(size=values.shape)
    recording = write_recording(
        labels=np.append(labels, [2] * 3), gates={"g": values}, pooled={"g": inputs}
    )
    row = probe_gain(recording, seed=3, groups=np.append(np.arange(80), [80] * 3)).loc[0]
    x = gate_logits(recording, "g")[0][:80].astype(float)
    own = cross_fitted(x, labels, 3, classes=2)
    assert row["accuracy"] == pytest.approx(balanced_accuracy_score(labels, own))
    assert row["images"] == 80


def test_a_gate_that_lost_information_is_below_its_input(write_recording):
    labels, logits = sigmoids(150, 3)
    gates = {"g": special.expit(sigmoids(150, 0)[1])}
    recording = write_recording("own", labels=labels, gates=gates, pooled={"g": logits})
    row = probe_gain(recording).loc[0]
    assert row["high"] < -0.2
    untrained = [
        write_recording(
            f"u{i}", labels=labels, gates={"g": special.expit(sigmoids(150, 0, seed=i)[1])}
        )
        for i in range(3)
    ]
    frame = probe_gain(recording, untrained).set_index("control")
    assert frame.loc["untrained", "draws"] == 3
    assert frame.loc["untrained", "low"] < 0 < frame.loc["untrained", "high"]
    same = probe_gain(recording, recording).set_index("control").loc["untrained"]
    assert same["difference"] == 0
    assert same["low"] == -same["high"] < 0  # no image differs, and the interval has a width


def test_controls_that_were_not_recorded_have_no_row_and_others_are_refused(write_recording):
    labels, logits = sigmoids(30, 1)
    gates = {"g": special.expit(logits)}
    recording = write_recording("a", labels=labels, gates=gates)
    assert len(probe_gain(recording)) == 0
    other = write_recording("b", labels=labels[::-1], gates=gates)
    with refused("AS723", names=(other.folder,)):
        probe_gain(recording, other)
    with refused("AS717", names=(30,)):
        probe_gain(recording, groups=[1])
