"""Usage of gates without an effect, and intervals of flips."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attnscope.statistics import gate_usage, replacement_effects, usage_over_seeds
from attnscope.statistics.questions import QUESTIONS, columns_of
from tests.statistics.calibration.rates import RUNS, TIMES, expect_coverage, expect_false_positives


def test_usage_of_gates_without_effect():
    """Edits of three gates change the log losses at random.

    Images have different difficulties, and all gates are compared with the same outcomes of the
    unedited network, so the tests of the gates depend on each other.
    """
    gates, images = [f"g{k}" for k in range(3)], 50
    decoding = pd.DataFrame({"gate": gates, "kind": "channel", "depth": [1, 2, 3]})
    decoding = decoding.assign(balanced_accuracy=0.5, null=0.5, p_max=1.0, constant=False)
    edits = [("", "own"), *((g, e) for g in gates for e in ("constant", "swap_same", "swap_other"))]
    outcomes = pd.DataFrame(
        [(*edit, row, row % 3) for edit in edits for row in range(images)],
        columns=["target", "edit", "row", "label"],
    )
    rng = np.random.default_rng(10)
    least = {"p_removal": [], "p_misinformation": []}  # with the p of the log losses
    for _ in range(200 * TIMES):
        # Changes in log loss have heavy tails.
        log_loss = (rng.normal(size=images) + rng.standard_t(3, (len(edits), images))).ravel()
        said = (outcomes["label"] + (log_loss <= 0)) % 3
        usage = gate_usage(decoding, outcomes.assign(prediction=said, log_loss=log_loss))
        for p, values in least.items():
            values.append(usage[[p, f"{p}_log_loss"]].min(axis=None))
    for p, values in least.items():
        expect_false_positives(values, conservative=True, of=p)


def test_usage_over_seeds_of_gates_without_effect():
    """Three seeds of six gates; only the removal of the first gate costs, in all seeds.

    That gate is nearly always significant, and the other five test Holm's second step. There are six
    gates, each with a test of the accuracy and one of the log loss, which are independent: the
    family-wise error is at most 1 - (1 - 0.05 / 12)^12 = 4.9%.
    """
    table = pd.DataFrame({"gate": [f"g{k}" for k in range(6)], "kind": "channel"})
    table = table.assign(depth=range(1, 7), balanced_accuracy=0.5, chance=0.1, own_log_loss=2.0)
    table = table.assign(p_read=1.0, verdict="")
    for question in QUESTIONS:
        table[columns_of(question.name)] = np.nan
    rng = np.random.default_rng(12)
    least, found = {"p_removal": [], "p_misinformation": []}, []
    for _ in range(RUNS):
        draws = rng.normal(0, 0.02, (3, 4, 6))
        draws[:, 0, 0] += 0.5
        draws[:, :2] = draws[:, :2].round(3)  # accuracies over a thousand images
        names = (
            "removal_value",
            "misinformation_value",
            "removal_log_loss",
            "misinformation_log_loss",
        )
        usages = [table.assign(**dict(zip(names, draw, strict=True))) for draw in draws]
        frame = usage_over_seeds(usages)
        # Significant or not tested: rounded accuracies of three seeds can be equal.
        found.append(not frame["p_removal"][0] >= 0.05)
        for p, values in least.items():
            both = frame[[p, f"{p}_log_loss"]].to_numpy().ravel()
            values.append(np.nanmin(both[1:] if p == "p_removal" else both))
    assert np.mean(found) > 0.99
    for p, values in least.items():
        expect_false_positives(values, of=p)


def test_the_interval_of_a_share_of_flips():
    """An edit that changes the prediction of one image in twelve."""
    images = 200
    edits = pd.DataFrame(
        {"target": ["", "g"], "edit": ["own", "mean"], "label": 0, "log_loss": 0.0}
    )
    outcomes = edits.loc[np.repeat([0, 1], images)].assign(row=np.tile(np.arange(images), 2))
    rng = np.random.default_rng(13)
    frames = []
    for _ in range(RUNS):
        said = np.concatenate([np.zeros(images, int), rng.random(images) < 1 / 12])
        frames.append(replacement_effects(outcomes.assign(prediction=said), 1))
    frame = pd.concat(frames)
    expect_coverage(frame["flips_low"], frame["flips_high"], 1 / 12, "flips")
