"""Positions of misclassified images, against a loop, values by hand and planted positions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from attnscope.statistics import error_position_summary, error_positions, misclassification
from attnscope.statistics.splits import stratified_folds
from tests.making import refused

GATE = "layer1.attention.channel"
TOWARD = ["predicted", "third", "runner_up", "predicted - third", "predicted - runner_up"]


def plant(
    write_recording,
    *,
    pull=0.6,
    near=0.2,
    noise=0.03,
    count=600,
    channels=12,
    seed=0,
    name="planted",
):
    """A fifth of each class is misclassified at position ``pull``, a fifth is correct at ``near``."""
    rng = np.random.default_rng(seed)
    means = 0.5 + 0.1 * rng.normal(size=(4, channels))
    labels = np.arange(count) % 4
    kind = (np.arange(count) // 4) % 5
    other = (labels + rng.integers(1, 4, count)) % 4
    share = np.where(kind == 0, pull, np.where(kind == 1, near, 0))[:, None]
    values = (
        means[labels]
        + share * (means[other] - means[labels])
        + noise * rng.normal(size=(count, channels))
    )
    logits = rng.uniform(0, 0.1, (count, 4))
    logits[np.arange(count), labels] = 2
    ordinary = np.where(kind <= 1, other, -1)
    logits[ordinary >= 0, ordinary[ordinary >= 0]] = 1
    wrong = kind == 0
    logits[wrong, other[wrong]] = 3
    # All others have the next class as runner-up and lie at the mean of their class.
    plain = kind > 1
    logits[plain, (labels[plain] + 1) % 4] = 0.5
    return write_recording(
        name, labels=labels, gates={"g": values}, logits=logits, names=list("abcd")
    )


def test_planted_positions_are_found(write_recording):
    recording = plant(write_recording)
    frame = error_positions(recording, "g")
    assert len(frame) == 120
    assert frame["row"].tolist() == np.flatnonzero(~recording.right).tolist()
    assert frame["position"].mean() == pytest.approx(0.6, abs=0.03)
    assert (frame["label"] != frame["prediction"]).all()
    summary = error_position_summary(recording).set_index("toward")
    assert summary.index.tolist() == TOWARD
    assert summary.loc["predicted", "position"] == pytest.approx(0.6, abs=0.03)
    assert summary.loc["predicted - third", "low"] > 0.1
    assert summary.loc["predicted - runner_up", "low"] > 0.1
    assert summary.loc["predicted", "images"] == 120
    assert (summary["unplaced"] == 0).all()
    for end, sign in (("low", -1), ("high", 1)):
        assert (sign * (summary[end] - summary["position"]) > 0).all()


def test_positions_equal_a_loop(make_recording):
    recording = make_recording(count=90, accuracy=0.6, effect=0.9)
    frame = error_positions(recording, GATE, seed=2).set_index("row")
    x, labels = recording.channel(GATE).astype(float), recording.labels
    folds = stratified_folds(labels, 5, np.random.default_rng(2))
    compared = 0
    for i in frame.index:
        usable = recording.right & (folds != folds[i])
        groups = [x[usable & (labels == k)] for k in range(3)]
        means = [g.mean(0) for g in groups]
        errors = [(g.std(0, ddof=1) ** 2 / len(g)).sum() for g in groups]
        t, p = labels[i], recording.predictions[i]
        c = 3 - t - p

        def parts(to, t=t, i=i, means=means, errors=errors):
            line = means[to] - means[t]
            return (x[i] - means[t]) @ line - errors[t], line @ line - errors[t] - errors[to]

        for column, to in (("position", p), ("third", c)):
            along, length = parts(to)
            if length > 0:
                assert frame.loc[i, column] == pytest.approx(along / length, rel=1e-6)
                compared += 1
            else:
                assert np.isnan(frame.loc[i, column])
        if parts(p)[1] > 0:
            assert frame.loc[i, "distance"] == pytest.approx(np.sqrt(parts(p)[1] / 8))
    assert compared > 20


def test_mean_position_is_a_ratio_of_sums(write_recording):
    recording = plant(write_recording, noise=0.1, count=400)
    frame = error_positions(recording, "g")
    summary = error_position_summary(recording, resamples=20).set_index("toward")
    weight = frame["distance"] ** 2  # the denominator divided by the number of channels
    known = ~frame["position"].isna()
    assert known.all()
    assert summary.loc["predicted", "position"] == pytest.approx(
        (frame["position"] * weight).sum() / weight.sum()
    )
    difference = summary["position"]["predicted"] - summary["position"]["third"]
    assert summary["position"]["predicted - third"] == pytest.approx(difference)


def test_positions_are_not_biased_by_noise_of_the_class_means(write_recording):
    # With means over few noisy images, a plain projection would be clearly above 0.
    found = [
        error_position_summary(
            plant(
                write_recording,
                pull=0,
                near=0,
                noise=0.3,
                count=80,
                channels=60,
                seed=s,
                name=f"r{s}",
            ),
            1,
        ).set_index("toward")["position"]["predicted"]
        for s in range(60)
    ]
    assert abs(np.median(found)) < 0.1


def test_runner_ups_match_the_pairs_and_their_weights(write_recording):
    # Two pairs: a predicted as b (three times) and as c (once); runner-ups at 0.2 and 0.6.
    corner = np.array([[0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    rows = []  # label, logits, position, class of the position
    for k in range(4):
        rows += [(k, 4 * np.eye(4)[k] + np.eye(4)[3 - k], 0.0, 0)] * 10
    a, b, c = 4 * np.eye(4)[0], np.eye(4)[1], np.eye(4)[2]
    rows += [(0, a + 8 * b, 0.5, 1)] * 3 + [(0, a + 8 * c, 0.9, 2)]
    rows += [(0, a + b, 0.2, 1)] * 2 + [(0, a + c, 0.6, 2)] * 2
    labels = np.array([row[0] for row in rows])
    values = np.array([corner[k] + share * (corner[to] - corner[0]) for k, _, share, to in rows])
    values[labels != 0] = corner[labels[labels != 0]]
    recording = write_recording(
        labels=labels, gates={"g": values}, logits=[row[1] for row in rows], names=list("abcd")
    )
    assert (~recording.right).sum() == 4
    summary = error_position_summary(recording, resamples=200).set_index("toward")
    # The runner-ups move the mean of their class a little, so these values are not exact.
    assert summary["position"]["predicted"] == pytest.approx((3 * 0.5 + 0.9) / 4, abs=0.05)
    assert summary["position"]["runner_up"] == pytest.approx((3 * 0.2 + 0.6) / 4, abs=0.05)
    assert summary["images"].tolist() == [4, 4, 4, 4, 4]


def test_images_without_means_or_runner_ups_are_counted_as_unplaced(write_recording):
    labels = np.repeat([0, 1, 2], 6)
    predictions = np.array([0] * 5 + [1] + [1] * 5 + [2] + [0] * 6)
    logits = 4 * np.eye(3)[predictions] + np.eye(3)[2]  # the runner-up is always the owl
    rng = np.random.default_rng(0)
    recording = write_recording(
        labels=labels, gates={"g": rng.uniform(0, 1, (18, 4))}, logits=logits
    )
    summary = error_position_summary(recording, resamples=20).set_index("toward")
    # No owl is correct: seven of the eight misclassified images involve a class without a mean.
    assert summary.loc["predicted", "images"] == 1
    assert summary.loc["predicted", "unplaced"] == 7
    assert summary.loc["runner_up", "images"] == 0
    assert summary.loc["third", "images"] == 0
    assert summary["low"].isna().all()
    frame = error_positions(recording, "g")
    assert frame["position"].isna().sum() >= 7


def test_positions_are_empty_without_errors(write_recording):
    recording = write_recording(labels=[0, 0, 1, 1], gates={"g": [[0.1], [0.2], [0.3], [0.4]]})
    assert len(error_positions(recording, "g")) == 0
    summary = error_position_summary(recording, resamples=5)
    assert summary[["position", "low", "high"]].isna().all(axis=None)
    assert (summary[["images", "unplaced"]] == 0).all(axis=None)
    with refused("AS701", names=("resamples", 0)):
        error_position_summary(recording, resamples=0)
    assert len(error_position_summary(write_recording("none", labels=[0, 1]))) == 0


def test_positions_of_a_constant_gate_are_nan(write_recording):
    labels = np.arange(30) % 3
    recording = write_recording(
        labels=labels,
        gates={"g": np.full((30, 2), 0.5)},
        predictions=np.where(np.arange(30) < 6, 0, labels),
    )
    assert error_positions(recording, "g")["position"].isna().all()
    assert error_position_summary(recording, 9)["position"].isna().all()


def test_error_position_summary_is_deterministic_and_covers_every_gate(make_recording):
    recording = make_recording(count=90)
    first = error_position_summary(recording, resamples=30)
    assert first.equals(error_position_summary(recording, resamples=30))
    assert first["gate"].tolist() == [gate.name for gate in recording.gates for _ in range(5)]
    assert first["depth"].tolist() == [d for d in (1, 2, 3, 4) for _ in range(5)]


def test_images_that_are_no_copies_have_the_same_positions_with_groups(write_recording):
    recording = plant(write_recording, count=200, noise=0.1)
    plain = error_position_summary(recording, resamples=50)
    grouped = error_position_summary(recording, resamples=50, groups=np.arange(200))
    for column in ("position", "images", "unplaced"):
        np.testing.assert_allclose(plain[column], grouped[column])
    same = plain["toward"].isin(("predicted", "third", "predicted - third"))
    np.testing.assert_allclose(plain[same][["low", "high"]], grouped[same][["low", "high"]])


def test_copies_make_no_interval_narrower(write_recording):
    """Every image four times: only with groups is the interval that of the images."""
    once = plant(write_recording, count=200, noise=0.3)
    rows = np.repeat(np.arange(200), 4)
    four = write_recording(
        "four",
        labels=once.labels[rows],
        gates={"g": once.gate("g")[rows]},
        logits=once.logits[rows],
        names=list("abcd"),
    )
    widths = [
        (frame["high"] - frame["low"]).to_numpy()
        for frame in (
            error_position_summary(once, 300),
            error_position_summary(four, 300),
            error_position_summary(four, 300, groups=rows),
        )
    ]
    assert (widths[1] < 0.75 * widths[0]).all()  # half as wide, but for noise
    np.testing.assert_allclose(widths[2], widths[0], rtol=0.35)
    with refused("AS717", names=(800,)):
        error_position_summary(four, groups=[1])


def test_the_movement_of_the_class_mean_cancels_in_differences_to_controls():
    """The controls of the only pair are all images of the class, so they move as its mean does."""
    rng = np.random.default_rng(4)
    along, length = rng.normal(size=(20, 3)), rng.random((20, 3))
    lines = SimpleNamespace(
        gram=np.zeros((5, 3, 3)), along=lambda rows: along[rows], length=lambda rows: length[rows]
    )
    wrong, pair = rng.normal(size=(4, 2)), 0 * 3 + 1  # images of class 0 that are taken for 1
    sums = misclassification._bootstrap_pairs(
        lines, wrong, np.full(4, pair), {pair: np.arange(20)}, 50, rng, None, None
    )
    assert sums[:, 2].std() > 0.1
    np.testing.assert_allclose(sums[:, 4], 4 * along[:, 1].mean())
