"""Intervals of map agreement and of the positions of misclassified images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from attnscope.statistics import error_position_summary
from attnscope.statistics.agreement import center_map, score_intervals, score_maps
from tests.statistics.calibration.rates import TEN, TIMES, expect_coverage, many


def test_the_intervals_of_map_agreement():
    """All maps share a central peak, and gates are correlated with their own Grad-CAM."""
    middle = 2 * center_map((4, 4))

    def scores(images, seed):
        rng = np.random.default_rng([9, seed])
        own, noise = rng.normal(size=(2, images, 4, 4))
        cam = middle + own
        gate = middle + 0.5 * own + rng.uniform(0.5, 1, (images, 1, 1)) * noise
        labels = np.arange(images) % 3
        return score_maps(gate.astype(np.float32), cam.astype(np.float32), labels, seed), labels

    truth = scores(30000, 10**6)[0].mean()
    assert truth["null_spearman"] > 0.1
    frames = [score_intervals(*scores(60, seed), 3, 200, seed) for seed in range(400 * TIMES)]
    for row in (0, 1):  # all 60 images, and the 20 of a class
        means = pd.concat([frame.loc[[row]] for frame in frames])
        above = truth["spearman"] - truth["null_spearman"]
        for score, value in (*truth[["spearman", "iou"]].items(), ("above_null", above)):
            of = f"{score}, {60 if row == 0 else 20} images"
            expect_coverage(means[f"{score}_low"], means[f"{score}_high"], value, of)


@pytest.mark.parametrize("pull", [0.0, 0.5])
def test_the_positions_of_errors(write_recording, pull):
    """Intervals cover the planted position ``pull``, which is 0 without an effect."""
    rng = np.random.default_rng(7)
    count = 800
    labels = np.arange(count) % 4
    corner = 0.5 + 0.1 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    wrong = (np.arange(count) // 4) % 8 == 0
    other = (labels + rng.integers(1, 4, count)) % 4
    logits = rng.uniform(0, 1, (count, 4))
    logits[np.arange(count), np.where(wrong, other, labels)] = 4
    middle = corner[labels] + (wrong * pull)[:, None] * (corner[other] - corner[labels])
    recording = many(
        write_recording,
        lambda rng: middle + 0.06 * rng.normal(size=(count, 3)),
        labels,
        runs=200 * TIMES,
        names=TEN[:4],
        logits=logits,
    )
    frame = error_position_summary(recording, resamples=200)
    # Class means are corners of a tetrahedron, so the position toward a third class is half.
    truths = {
        "predicted": pull,
        "third": pull / 2,
        "runner_up": 0,
        "predicted - third": pull / 2,
        "predicted - runner_up": pull,
    }
    for toward, truth in truths.items():
        rows = frame[frame["toward"] == toward]
        expect_coverage(rows["low"], rows["high"], truth, toward)
