"""Comparisons of networks that are independent, or differ by a planted effect."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist

from attnscope.statistics import (
    compare_accuracy,
    compare_class_order,
    compare_geometry,
    compare_seeds,
)
from tests.statistics.calibration.rates import (
    RUNS,
    TEN,
    TIMES,
    expect_coverage,
    expect_false_positives,
    many,
)


def unrelated(write_recording, classes, runs):
    """Return recordings of two independent networks with equal class sizes."""
    return [
        many(
            write_recording,
            lambda rng, n=n: np.random.default_rng([n, rng.integers(1 << 30)]).uniform(
                0, 1, (2 * classes, 5)
            ),
            np.repeat(np.arange(classes), 2),
            name=f"{n}",
            runs=runs,
            names=TEN[:classes],
        )
        for n in range(2)
    ]


@pytest.mark.parametrize("classes", [5, 8])
def test_geometry_of_unrelated_networks(write_recording, classes):
    labels = np.repeat(np.arange(classes), 8)

    def make(network):
        def values(rng):
            own = np.random.default_rng([network, rng.integers(1 << 30)])
            means = own.uniform(0.2, 0.8, (classes, 5))
            return means[labels] + 0.02 * own.normal(size=(len(labels), 5))

        return values

    networks = [
        many(
            write_recording,
            make(n),
            labels,
            name=f"{n}",
            runs=200 * TIMES,
            names=TEN[:classes],
        )
        for n in range(2)
    ]
    frame = compare_geometry(*networks, permutations=99, resamples=1)
    expect_false_positives(frame["p"], conservative=classes == 5)


@pytest.mark.parametrize("classes", [5, 7, 8, 10])
def test_class_order_of_unrelated_networks(write_recording, classes):
    """All orders are enumerated for up to seven classes, and drawn for more.

    With five classes only 2 of 120 orders have p < 0.05, which is 1.7%.
    """
    frame = compare_class_order(*unrelated(write_recording, classes, RUNS))
    expect_false_positives(frame["p"], conservative=classes == 5)


def test_the_interval_of_the_geometry(write_recording):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30)
    profiles = 0.5 + 0.1 * rng.normal(size=(2, 10, 30))
    profiles[1] = 0.6 * profiles[0] + 0.4 * profiles[1]
    recordings = [
        many(
            write_recording,
            lambda rng, n=n: (
                profiles[n][labels]
                + 0.1 * np.random.default_rng([n, rng.integers(1 << 30)]).normal(size=(300, 30))
            ),
            labels,
            name=f"{n}",
            runs=200 * TIMES,
        )
        for n in range(2)
    ]
    truth = stats.spearmanr(*(pdist(p, "sqeuclidean") for p in profiles)).statistic
    frame = compare_geometry(*recordings, resamples=200)
    expect_coverage(frame["low"], frame["high"], truth)


def answering(recording, right):
    """Return the recording of a network that classifies the given images correctly."""
    made, labels = copy.copy(recording), recording.labels
    wrong = (labels + 1) % len(recording.classes)
    made.rows = recording.rows.assign(prediction=np.where(right, labels, wrong))
    return made


@pytest.mark.parametrize("differ", [0, 1])
def test_accuracies_class_by_class(write_recording, differ):
    """Two networks are equally accurate in all ten classes, or in all except the first.

    The first class is then always significant, and the other nine test Holm's second step.
    """
    labels = np.repeat(np.arange(10), 60)
    recording = write_recording(labels=labels, names=TEN)
    rng = np.random.default_rng(8)
    least = []
    for _ in range(RUNS):
        right = rng.random((2, 600)) < 0.7
        right[:, labels < differ] = [[False], [True]]
        made = [answering(recording, each) for each in right]
        p = compare_accuracy(*made)["p_holm"].to_numpy()[1:]
        assert (p[:differ] < 0.05).all()
        least.append(p[differ:].min())
    expect_false_positives(least, conservative=True, of="p_holm")


def test_accuracies_over_seeds_class_by_class(write_recording):
    """Three pairs of seeds with random accuracies in each class."""
    labels = np.repeat(np.arange(5), 60)
    recording = write_recording(labels=labels, names=TEN[:5])
    rng = np.random.default_rng(9)
    least = []
    for _ in range(300 * TIMES):
        share = np.clip(rng.normal(0.7, 0.05, (6, 5)), 0, 1)[:, labels]
        made = [answering(recording, right) for right in rng.random(share.shape) < share]
        p = compare_seeds(made[:3], made[3:], 1)["p_holm"]
        least.append(p[1:].min())  # NaN if all pairs differ by the same amount
    expect_false_positives(least, conservative=True, of="p_holm")
