"""Predictions, against loops, values by hand and planted accuracies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from attnscope.statistics import (
    calibration,
    calibration_error,
    calibration_summary,
    class_metrics,
    confusion_matrix,
    misclassified,
)
from tests.making import refused

COLUMNS = ["precision", "recall", "f1", "support"]


def logits_of(probabilities):
    return np.log(np.array(probabilities))


def test_confusion_matrix_equals_a_loop(make_recording):
    recording = make_recording(count=100)
    frame = confusion_matrix(recording)
    expected = np.zeros((3, 3))
    for label, prediction in zip(recording.labels, recording.predictions, strict=True):
        expected[label, prediction] += 1
    assert (frame.to_numpy() == expected).all()
    assert (frame.dtypes == np.int64).all()
    assert frame.index.tolist() == frame.columns.tolist() == recording.classes
    assert (frame.index.name, frame.columns.name) == ("true", "predicted")


def test_confusion_matrix_has_the_true_class_in_the_rows(write_recording):
    frame = confusion_matrix(write_recording(labels=[0, 0, 1], predictions=[1, 1, 1]))
    assert frame.loc["cat", "dog"] == 2
    assert frame.loc["dog", "cat"] == 0
    assert frame.loc["owl"].tolist() == frame["owl"].tolist() == [0, 0, 0]


def test_confusion_matrix_shows_the_planted_accuracy(make_recording):
    counts = confusion_matrix(make_recording(count=600, accuracy=0.8)).to_numpy()
    assert counts.sum() == 600
    # Some of the other fifth are correct by chance.
    assert counts.trace() / 600 == pytest.approx(0.8, abs=0.04)


def by_counting(labels, predictions, classes):
    """Return precision, recall, F1 and support of each class; NaN for 0 / 0."""
    rows = []
    for k in range(classes):
        pairs = list(zip(labels, predictions, strict=True))
        both = sum(label == prediction == k for label, prediction in pairs)
        of_class = sum(label == k for label, _ in pairs)
        predicted = sum(prediction == k for _, prediction in pairs)
        parts = (both, predicted), (both, of_class), (2 * both, of_class + predicted)
        rows.append([*(a / b if b else np.nan for a, b in parts), of_class])
    return np.array(rows)


def test_class_metrics_equal_a_loop(make_recording):
    recording = make_recording(count=100, accuracy=0.5)
    frame = class_metrics(recording)
    expected = by_counting(recording.labels, recording.predictions, 3)
    assert (frame[COLUMNS].to_numpy() == expected).all()
    assert frame["class"].tolist() == recording.classes
    assert [str(dtype) for dtype in frame[COLUMNS].dtypes] == ["float64"] * 3 + ["int64"]


def test_support_is_counted_if_no_image_is_correct(write_recording):
    frame = class_metrics(write_recording(labels=[0, 0, 1], predictions=[1, 1, 2]))
    assert frame["support"].tolist() == [2, 1, 0]
    assert frame["support"].dtype == np.int64
    assert frame["precision"].tolist() == pytest.approx([np.nan, 0, 0], nan_ok=True)


def test_tables_of_a_single_class(write_recording):
    recording = write_recording(labels=[0, 0], names=["cat"])
    assert confusion_matrix(recording).to_numpy().tolist() == [[2]]
    assert class_metrics(recording).loc[0, COLUMNS].tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [
        ([0, 0, 1, 2], [0, 1, 1, 1]),  # owl occurs and is never predicted
        ([0, 0, 1, 1], [0, 1, 1, 2]),  # owl is predicted and never occurs
        ([0, 0, 1, 1], [0, 1, 1, 0]),  # owl never occurs and is never predicted
    ],
)
def test_class_metrics_of_0_over_0_are_nan(write_recording, labels, predictions):
    frame = class_metrics(write_recording(labels=labels, predictions=predictions))
    np.testing.assert_array_equal(frame[COLUMNS], by_counting(labels, predictions, 3))
    assert frame[COLUMNS].isna().any(axis=None)


def test_calibration_equals_a_loop(make_recording):
    recording = make_recording(count=200)
    frame = calibration(recording, bins=7)
    confidence = recording.probabilities.max(1)
    right = recording.predictions == recording.labels
    assert frame["low"][0] == 0
    assert frame["high"][6] == 1
    for _, row in frame.iterrows():
        inside = [row["low"] < c <= row["high"] for c in confidence]
        assert row["count"] == sum(inside)
        if any(inside):
            assert row["confidence"] == pytest.approx(confidence[inside].mean())
            assert row["accuracy"] == pytest.approx(right[inside].mean())
        else:
            assert np.isnan(row["confidence"])
            assert np.isnan(row["accuracy"])
    assert frame["count"].sum() == 200


def test_calibration_bins_include_their_upper_edge(write_recording):
    half = write_recording(labels=[0, 0], logits=[[1, 1], [1, 1]], names=["a", "b"])
    assert calibration(half, bins=2)["count"].tolist() == [2, 0]
    sure = write_recording("sure", labels=[0], logits=[[1000, 0]], names=["a", "b"])
    assert calibration(sure, bins=2)["count"].tolist() == [0, 1]


def test_calibration_error_by_hand(write_recording):
    # Two bins have images: confidence 0.9 with 1 of 4 correct, and 0.6 with 1 of 1 correct.
    sure, unsure = [0.9, 0.05, 0.05], [0.6, 0.3, 0.1]
    recording = write_recording(
        labels=[0, 1, 1, 2, 0], logits=logits_of([sure, sure, sure, sure, unsure])
    )
    assert calibration_error(recording) == pytest.approx(4 / 5 * 0.65 + 1 / 5 * 0.4)


def test_calibration_error_of_a_planted_network(write_recording):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 4000)
    labels = (rng.random((4000, 1)) > probabilities.cumsum(1)).sum(1)
    honest = write_recording("honest", labels=labels, logits=logits_of(probabilities))
    boasting = write_recording("boasting", labels=labels, logits=4 * logits_of(probabilities))
    assert calibration_error(honest) < 0.03
    assert calibration_error(boasting) > 0.15


def test_calibration_refuses_zero_bins(make_recording):
    with refused("AS702", names=(0,)):
        calibration(make_recording(), bins=0)


def test_misclassified_by_hand(write_recording):
    recording = write_recording(
        labels=[0, 1, 2, 0, 1],
        logits=logits_of(
            [
                [0.3, 0.6, 0.1],
                [0.1, 0.8, 0.1],  # correct
                [0.9, 0.05, 0.05],
                [0.3, 0.1, 0.6],  # as confident as the first
                [0.45, 0.15, 0.4],
            ]
        ),
    )
    frame = misclassified(recording)
    assert frame["row"].tolist() == [2, 0, 3, 4]
    assert frame["path"].tolist() == [f"test/{i:04d}.png" for i in (2, 0, 3, 4)]
    assert frame["label"].tolist() == ["owl", "cat", "cat", "dog"]
    assert frame["prediction"].tolist() == ["cat", "dog", "owl", "cat"]
    assert frame["confidence"].to_numpy() == pytest.approx([0.9, 0.6, 0.6, 0.45])
    assert frame["loss"].to_numpy() == pytest.approx(-np.log([0.05, 0.3, 0.3, 0.15]), rel=1e-6)


def test_misclassified_equals_a_loop(make_recording):
    recording = make_recording(accuracy=0.5)
    expected = []
    for i in range(len(recording)):
        logits = recording.logits[i].astype(float)
        if logits.argmax() != recording.labels[i]:
            expected.append((-np.exp(logits.max()) / np.exp(logits).sum(), i))
    frame = misclassified(recording)
    assert frame["row"].tolist() == [i for _, i in sorted(expected)]
    assert (-frame["confidence"]).tolist() == pytest.approx([c for c, _ in sorted(expected)])


def test_equally_confident_images_keep_their_order(write_recording):
    sure, unsure = [0.05, 0.9, 0.05], [0.1, 0.6, 0.3]
    recording = write_recording(labels=[0] * 300, logits=logits_of([sure, unsure, unsure] * 100))
    rows = list(range(300))
    assert misclassified(recording)["row"].tolist() == rows[::3] + [i for i in rows if i % 3]


def test_misclassified_is_empty_without_errors(write_recording):
    recording = write_recording(labels=[0, 1, 2, 2])
    frame = misclassified(recording)
    assert list(frame) == ["row", "path", "label", "prediction", "confidence", "loss"]
    assert len(frame) == 0
    assert (class_metrics(recording)[["precision", "recall", "f1"]] == 1).all(axis=None)


def test_scores_of_probabilities_by_hand(write_recording):
    probabilities = [[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.6, 0.3, 0.1]]
    recording = write_recording(labels=[0, 1, 2], logits=logits_of(probabilities))
    found = calibration_summary(recording).set_index("measure")
    # (0.3² + 0.2² + 0.1² + 0.25² + 0.5² + 0.25² + 0.6² + 0.3² + 0.9²) / 3
    assert found.loc["brier", "value"] == pytest.approx((0.14 + 0.375 + 1.26) / 3, abs=1e-6)
    loss = -np.log([0.7, 0.5, 0.1])
    assert found.loc["log_loss", "value"] == pytest.approx(loss.mean(), abs=1e-6)
    ends = stats.t.interval(0.95, 2, loss.mean(), stats.sem(loss))
    assert found.loc["log_loss", "low"] == pytest.approx(max(ends[0], 0), abs=1e-5)
    assert found.loc["log_loss", "high"] == pytest.approx(ends[1], rel=1e-5)
    assert (found["images"] == 3).all()
    alone = calibration_summary(write_recording("one", labels=[0], logits=[[1, 0, 0]]))
    assert alone[["low", "high"]].isna().all(axis=None)


def test_the_debiased_error_is_the_sign_of_one_half_times_the_gap_of_the_other(write_recording):
    """All images in one bin, against halves that are drawn."""
    rng = np.random.default_rng(0)
    images, confidence = 400, 0.8313
    for accuracy in (0.83, 0.85, 0.6):
        right = rng.permutation(np.arange(images) < accuracy * images)
        logits = np.tile(logits_of([[confidence, 1 - confidence]]), (images, 1))
        recording = write_recording(
            f"r{accuracy}", labels=np.where(right, 0, 1), logits=logits, names=["a", "b"]
        )
        found = calibration_summary(recording).set_index("measure").loc["calibration_error"]
        drawn = []
        for _ in range(4000):
            halves = rng.permutation(right.astype(float) - confidence).reshape(2, -1).mean(1)
            drawn.append(np.sign(halves[0]) * halves[1])
        assert found["value"] == pytest.approx(np.mean(drawn), abs=0.003)
        assert found["low"] <= abs(accuracy - confidence) <= found["high"]


def test_the_calibration_error_lies_in_its_interval_and_is_not_cut_at_zero(write_recording):
    values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 1.5, (60, 3))
        chance = special.softmax(logits, axis=1)
        labels = np.array([rng.choice(3, p=each) for each in chance])  # calibrated
        recording = write_recording(f"r{seed}", labels=labels, logits=logits)
        row = calibration_summary(recording).set_index("measure").loc["calibration_error"]
        assert row["low"] <= row["value"] <= row["high"]
        # The standard error by its definition, bin by bin.
        confidence, right = chance.max(1), chance.argmax(1) == labels
        bins, variance = np.ceil(confidence * 15), 0.0
        for each in np.unique(bins):
            inside = bins == each
            c, apart = confidence[inside], (right - confidence)[inside]
            spread = apart.var(ddof=1) / len(c) if len(c) > 1 else 0.0
            variance += np.mean(inside) ** 2 * max(spread, (c * (1 - c)).sum() / len(c) ** 2)
        below = row["value"] - stats.norm.ppf(0.975) * np.sqrt(variance)
        assert row["low"] == pytest.approx(below, abs=1e-5)
        values.append(row["value"])
    assert min(values) < 0 < max(values)
    assert np.mean(values) == pytest.approx(0, abs=0.02)
