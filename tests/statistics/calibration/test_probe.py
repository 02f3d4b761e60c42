"""Linear probes of gates without class information, and with a planted effect."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from attnscope.statistics import linear_probe
from attnscope.statistics.resampling import permutation_p
from tests.statistics.calibration.rates import (
    TEN,
    TIMES,
    expect_coverage,
    expect_false_positives,
    many,
)


@pytest.fixture
def compared(monkeypatch):
    """Record what the probe compares for each p: permuted accuracies and the observed one.

    For each call, first those of every gate alone, then those with the highest of all gates.
    """
    pairs = []

    def recorded(permuted, observed):
        pairs.append((permuted, observed))
        return permutation_p(permuted, observed)

    monkeypatch.setattr("attnscope.statistics.probe.permutation_p", recorded)
    return pairs


def with_ties_broken(pairs):
    """Return p of each pair with ties broken at random.

    `linear_probe` counts ties against the effect, so its rate of false positives depends on the
    number of ties. With ties broken at random the rate is 5%, so its lower end can be tested, too.
    """
    rng = np.random.default_rng(11)
    p = []
    for permuted, observed in pairs:
        ties = np.isclose(permuted, observed, rtol=1e-6, atol=0)
        above = ((permuted > observed) & ~ties).sum() + rng.integers(ties.sum() + 1)
        p.append((1 + above) / (1 + len(permuted)))
    return p


def test_the_probe_without_effect(write_recording, compared):
    labels = np.repeat([0, 1], [60, 45])
    recording = many(write_recording, lambda rng: special.expit(rng.normal(size=(105, 3))), labels)
    frame = linear_probe(recording, permutations=99)
    expect_false_positives(frame["p"], conservative=True)
    expect_false_positives(with_ties_broken(compared[: len(frame)]), of="p, ties broken at random")
    expect_coverage(frame["low"], frame["high"], 0.5)
    assert frame["null"].mean() == pytest.approx(0.5, abs=0.005)


def test_the_probe_over_all_gates_without_effect(write_recording, compared):
    """The smallest corrected p of four uninformative gates is below 0.05 in at most 5%."""
    labels = np.repeat([0, 1], [30, 25])
    least, highest = [], []
    for i in range(200 * TIMES):
        rng = np.random.default_rng([3, i])
        gates = {f"g{k}": special.expit(rng.normal(size=(55, 2))) for k in range(4)}
        recording = write_recording(f"r{i}", labels=labels, gates=gates, names=TEN[:2])
        least.append(linear_probe(recording, permutations=39)["p_max"].min())
        highest.append(max(compared[-4:], key=lambda pair: pair[1]))
    expect_false_positives(least, conservative=True, of="p_max")
    expect_false_positives(with_ties_broken(highest), of="p_max, ties broken at random")


def test_the_interval_of_the_probe(write_recording):
    # Two classes one standard deviation from the middle: the best classifier has the accuracy
    # Phi(1), and one fitted on 60 images is only slightly worse.
    labels = np.arange(120) % 2
    recording = many(
        write_recording,
        lambda rng: special.expit(2 * labels - 1 + rng.normal(size=120))[:, None],
        labels,
    )
    frame = linear_probe(recording, permutations=1)
    expect_coverage(frame["low"], frame["high"], stats.norm.cdf(1) - 0.003)
