"""Tests and intervals of paired values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from attnscope.statistics.effects import calibrated_log_losses
from attnscope.statistics.inference import (
    mcnemar,
    paired_accuracy_change,
    paired_interval,
    paired_t,
)
from attnscope.statistics.paired import FEWEST_MOVED, find_sharing, moved, shared_t
from attnscope.statistics.resampling import bootstrap_interval
from attnscope.statistics.seed_usage import crossed_interval
from tests.statistics.calibration.rates import (
    TIMES,
    expect_at_most,
    expect_coverage,
    expect_false_positives,
)


@pytest.mark.parametrize(
    ("before", "gain", "loss"), [(0.8, 0.0, 0.0), (0.9, 0.02, 0.06), (0.6, 0.2, 0.3)]
)
def test_interval_of_a_paired_change_in_accuracy(before, gain, loss):
    """300 images, of which the shares ``gain`` and ``loss`` change; also if none can change."""
    rng = np.random.default_rng(0)
    low, high = [], []
    for _ in range(600 * TIMES):
        kind = rng.choice(4, 300, p=[before - loss, 1 - before - gain, gain, loss])
        was, now = np.isin(kind, [0, 3]), np.isin(kind, [0, 2])
        change, *ends = paired_accuracy_change(was, now)
        assert change == pytest.approx(now.mean() - was.mean())
        low.append(ends[0])
        high.append(ends[1])
    if gain == loss == 0:  # no image changes: the interval must have a width
        assert max(low) < 0 < min(high)
        return
    expect_coverage(low, high, gain - loss)


def test_interval_of_a_change_in_log_loss():
    rng = np.random.default_rng(1)
    values = rng.exponential(1, (600 * TIMES, 200)) - 1.3
    ends = [bootstrap_interval(run[:, None], 400, i) for i, run in enumerate(values)]
    low, high = np.array(ends)[:, :, 0].T
    expect_coverage(low, high, -0.3)


def test_paired_t_of_log_losses():
    """Changes in log loss have heavy tails."""
    rng = np.random.default_rng(6)
    before = rng.normal(3, 3, (600 * TIMES, 200))
    after = before + 0.01 * rng.standard_t(3, before.shape)
    expect_false_positives([paired_t(a, b) for a, b in zip(before, after, strict=True)])


def test_log_losses_at_the_best_temperature_of_each_edit():
    """Two noisy versions of the same logits, one of them five times larger."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(400 * TIMES):
        labels = rng.integers(4, size=200)
        shared = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[labels]
        before, after = shared + 0.3 * rng.normal(size=(2, 200, 4))
        losses = [calibrated_log_losses(logits, labels) for logits in (before, 5 * after)]
        found.append(paired_t(*losses))
    expect_false_positives(found)


def test_log_losses_of_networks_that_are_nearly_always_right():
    """Two networks of equal quality, right on 98% of 250 images: the few errors decide.

    The temperatures are fitted to these errors, so the test of one target is too often significant.
    """
    rng = np.random.default_rng(8)
    found = []
    for _ in range(400 * TIMES):
        labels, losses = np.zeros(250, int), []
        shared = rng.normal(size=250)
        for _ in range(2):
            logits = np.tile([0.0, 0.0, -2.0, -2.0], (250, 1))
            noise = np.sqrt(0.5) * (shared + rng.normal(size=250))
            logits[:, 0] = stats.norm.isf(0.02) + noise
            losses.append(calibrated_log_losses(4 * logits, labels))
        few = 0 < moved(losses[1] - losses[0]) < FEWEST_MOVED
        found.append(np.nan if few else paired_t(*losses))
    expect_at_most(found, 0.12)


def test_paired_interval_over_seeds():
    """Three pairs of seeds, without a difference and with a planted one."""
    rng = np.random.default_rng(2)
    without = [paired_interval(rng.normal(0, 0.01, 3)) for _ in range(800 * TIMES)]
    expect_false_positives([found["p"] for found in without])
    planted = [paired_interval(rng.normal(0.02, 0.01, 3)) for _ in range(800 * TIMES)]
    low, high = ([found[end] for found in planted] for end in ("low", "high"))
    expect_coverage(low, high, 0.02)


def test_mcnemar_and_the_bootstrap_interval():
    rng = np.random.default_rng(4)
    p, low, high = [], [], []
    for _ in range(600 * TIMES):
        a, b = rng.random((2, 120)) < 0.7
        p.append(mcnemar(a, b))
        better = a | (rng.random(120) < 0.2)
        ends = bootstrap_interval((better.astype(float) - a)[:, None], 400)
        low.append(ends[0][0])
        high.append(ends[1][0])
    expect_false_positives(p, conservative=True)
    expect_coverage(low, high, 0.3 * 0.2)


@pytest.mark.parametrize("donors", [15, 60])
@pytest.mark.parametrize("moving", [0.05, 1.0])
def test_log_losses_whose_donors_are_reused(donors, moving):
    """200 images, each with two of few donors, some of whose gates are unusual."""
    rng = np.random.default_rng(7)
    p = []
    for _ in range(300 * TIMES):
        first, second = rng.integers(0, donors, (2, 200))
        of_donor = rng.standard_t(4, donors)
        moves = rng.random(200) < moving
        values = (of_donor[first] - of_donor[second] + rng.normal(size=200)) * moves
        sharing = find_sharing(
            np.tile(np.arange(200), 2), np.concatenate([first, second]), len(values)
        )
        p.append(shared_t(values, sharing))
    expect_at_most(p, 0.07)


@pytest.mark.parametrize("between", [0.2, 1.0])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_log_losses_over_seeds_that_share_images_and_donors(seeds, between):
    """Each image has two donors, the same in all seeds; seeds differ by ``between``."""
    rng = np.random.default_rng(8)
    p = []
    for _ in range(200 * TIMES):
        first, second = rng.integers(0, 60, (2, 120))
        donor = rng.standard_t(4, 60)
        shared = rng.normal(size=120) + donor[first] - donor[second]
        values = shared + between * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, 120))
        both = np.concatenate([first, second])
        sharing = find_sharing(np.tile(np.arange(120), 2), both, 120)
        p.append(crossed_interval(values, sharing)["p"])
    expect_at_most(p, 0.07)
