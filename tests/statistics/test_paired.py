"""Paired comparisons with several donors per image, against enumeration, scipy and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.statistics import edit_contrast, replacement_effects
from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.paired import (
    accuracy_interval,
    detectable_loss,
    detectable_shift,
    equivalence_t,
    find_sharing,
    mean_interval,
    moved,
    shared_t,
    sign_flip,
)
from attnscope.statistics.seed_usage import crossed_interval
from tests.making import refused


def test_the_sign_flip_test_equals_the_enumeration_of_all_signs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        steps = rng.integers(-3, 4, 9)
        sums = [abs(sum(np.multiply(signs, steps))) for signs in product((-1, 1), repeat=9)]
        wanted = np.mean([found >= abs(steps.sum()) for found in sums])
        assert sign_flip(steps) == pytest.approx(wanted, abs=1e-12)
    lost = np.array([-1] * 9 + [1] * 2 + [0] * 40)
    assert sign_flip(lost) == pytest.approx(stats.binomtest(2, 11).pvalue, abs=1e-12)
    assert sign_flip(np.zeros(5, int)) == 1


def test_the_interval_of_single_donors_is_that_of_paired_accuracy_changes() -> None:
    before, after = (np.random.default_rng(seed).random(60) < 0.7 for seed in (0, 1))
    wanted = paired_accuracy_change(before, after)[1:]
    assert accuracy_interval(after.astype(float) - before) == pytest.approx(wanted, abs=1e-12)


def test_the_interval_of_log_losses_is_that_of_scipy() -> None:
    values = np.random.default_rng(2).normal(size=30)
    for level in (0.9, 0.95):
        wanted = stats.ttest_1samp(values, 0).confidence_interval(level)
        assert mean_interval(values, level=level) == pytest.approx(tuple(wanted))


def test_images_that_share_a_donor_are_found() -> None:
    sharing = find_sharing(np.array([0, 1, 2, 2, 3]), np.array([7, 8, 7, 9, -1]), 4)
    assert sharing is not None
    np.testing.assert_array_equal(np.argwhere(sharing.connected.toarray()), [[0, 2], [2, 0]])
    assert sharing.donors == 3
    assert find_sharing(np.arange(4), np.arange(4), 4) is None
    # By hand: deviations -1, 0, 1, 0 have squares 2; the pair (0, 2) adds twice -1: at least 1.
    assert sharing.inflation(np.array([0.0, 1, 2, 1])) == 1
    # Deviations 1, -1, 1, -1: squares 4, the pair adds 2, and 6 of 16 pairs are dependent.
    assert sharing.inflation(np.array([2.0, 0, 2, 0])) == pytest.approx(6 / 4 / (1 - 6 / 16))


def test_shared_donors_do_not_yield_false_findings() -> None:
    """Twenty donors for 200 images, whose outcomes depend on their donor alone."""
    rng = np.random.default_rng(3)
    plain, shared = [], []
    for _ in range(300):
        donor = rng.integers(0, 20, 200)
        values = rng.normal(size=20)[donor] + rng.normal(size=200)
        plain.append(stats.ttest_1samp(values, 0).pvalue)
        shared.append(shared_t(values, find_sharing(np.arange(200), donor, 200)))
    assert np.mean(np.array(plain) < 0.05) > 0.3
    assert np.mean(np.array(shared) < 0.05) <= 0.085


def test_few_donors_are_refused() -> None:
    donor = np.arange(100) % 9
    sharing = find_sharing(np.arange(100), donor, 100)
    assert np.isnan(shared_t(np.random.default_rng(0).normal(size=100), sharing))
    assert np.isnan(mean_interval(np.arange(100.0), sharing)).all()
    rows = [("", "own", i, 0, 0, 1.0, -1) for i in range(4)]
    rows += [("g", "swap_any", i, 0, int(i == 0), 2.0 + i, 7) for i in range(4)]
    columns = ["target", "edit", "row", "label", "prediction", "log_loss", "donor"]
    row = edit_contrast(pd.DataFrame(rows, columns=columns), "swap_any", "own").iloc[0]
    assert row["change"] == 0.25
    assert row[["low", "high", "log_loss_low", "log_loss_high", "p", "p_log_loss"]].isna().all()


def test_log_losses_of_few_images_that_move_are_not_tested() -> None:
    def outcomes(count: int) -> pd.DataFrame:
        own = pd.DataFrame({"row": range(60), "label": 0, "prediction": 0, "log_loss": 1.0})
        log_loss = np.where(np.arange(60) < count, 0.5 - 0.01 * np.arange(60), 1.0)
        edited = own.assign(log_loss=log_loss)
        return pd.concat(
            [own.assign(target="", edit="own"), edited.assign(target="g", edit="mean")]
        )

    found = [edit_contrast(outcomes(n), "mean", "own")["p_log_loss"].item() for n in (0, 9, 10)]
    assert found[0] == 1
    assert np.isnan(found[1])
    assert found[2] < 0.01
    assert moved(np.array([1, -0.5, 0.005, 0])) == 2


def test_what_could_be_seen_is_seen_with_a_power_of_80_percent() -> None:
    """Simulated losses of the stated size are significant in four of five data sets."""
    loss = detectable_loss(250, 0.05 / 40)
    rng = np.random.default_rng(4)
    found = np.mean([2.0 ** (1 - lost) <= 0.05 / 40 for lost in rng.binomial(250, loss, 4000)])
    assert found == pytest.approx(0.8, abs=0.02)
    # By hand: (z(0.975) + z(0.8)) / √100 = (1.959964 + 0.841621) / 10.
    assert detectable_shift(100, 0.05) == pytest.approx(0.2801585, abs=1e-6)
    assert np.isnan(detectable_loss(5, 0.05 / 40))
    assert np.isnan(detectable_shift(1, 0.05))


def several_donors() -> pd.DataFrame:
    """Two images with an edit of two donors each: one of four outcomes is wrong."""
    rows = [("", "own", 0, 0, 0, 2.0, -1, -1), ("", "own", 1, 1, 1, 4.0, -1, -1)]
    rows += [
        ("g", "matched_other", 0, 0, 1, -1.0, 10, 1), ("g", "matched_other", 0, 0, 0, 1.0, 11, 1),
        ("g", "matched_other", 1, 1, 1, 3.0, 12, 0), ("g", "matched_other", 1, 1, 1, 2.0, 13, 0),
    ]  # fmt: skip
    columns = ["target", "edit", "row", "label", "prediction", "log_loss", "donor", "donor_class"]
    return pd.DataFrame(rows, columns=columns)


def test_an_image_with_several_donors_counts_with_their_mean() -> None:
    logits = np.array([[2, 0], [0, 4], [0, 1], [1, 0], [0, 3], [0, 2]], np.float32)
    found = replacement_effects(several_donors(), logits=logits).iloc[0]
    assert found["images"] == 2
    assert found["accuracy"] == 0.75
    assert found["change"] == -0.25
    assert found["log_loss_change"] == pytest.approx((-2 + -1.5) / 2)
    assert (found["flips"], found["agreement"]) == (0.25, 0.75)
    # The first image is predicted as its first donor's class.
    assert (found["interchange"], found["interchange_own"]) == (0.25, 0)

    def divergence(own: list[float], new: list[float]) -> float:
        return stats.entropy(np.exp(own) / np.exp(own).sum(), np.exp(new) / np.exp(new).sum())

    each = [divergence(logits[k // 2], logits[k + 2]) for k in range(4)]
    assert found["kl"] == pytest.approx(np.mean(each), rel=1e-6)
    assert np.isnan(replacement_effects(several_donors())["kl"]).all()
    with refused("AS740", names=(5, 6)):
        replacement_effects(several_donors(), logits=logits[:5])


def test_the_contrast_of_edits_with_several_donors_is_that_of_their_means() -> None:
    rng = np.random.default_rng(5)
    frames = []
    for edit, count in (("own", 1), ("matched_same", 2), ("matched_other", 2)):
        row = np.repeat(np.arange(40), count)
        frames.append(
            pd.DataFrame(
                {
                    "target": "" if edit == "own" else "g", "edit": edit, "row": row, "label": 0,
                    "prediction": rng.random(len(row)) < (0.6 if edit == "matched_other" else 0.2),
                    "log_loss": rng.normal(size=len(row)),
                }
            )
        )  # fmt: skip
    table = pd.concat(frames, ignore_index=True).astype({"prediction": int})
    found = edit_contrast(table, "matched_other", "matched_same").iloc[0]
    mean = table.assign(right=table["prediction"] == 0).groupby(["edit", "row"])[
        ["right", "log_loss"]
    ]
    means = mean.mean()
    difference = (means.loc["matched_same"] - means.loc["matched_other"]).astype(float)
    assert found["change"] == pytest.approx(difference["right"].mean())
    assert found["p"] == pytest.approx(sign_flip((2 * difference["right"]).round().astype(int)))
    assert found["p_log_loss"] == pytest.approx(stats.ttest_1samp(difference["log_loss"], 0).pvalue)


def test_the_interval_over_crossed_seeds_and_images_covers_other_images() -> None:
    """Three seeds share their images: a t interval over seeds alone covers far too little."""
    rng = np.random.default_rng(6)
    false = {"crossed": [], "seeds": []}
    for _ in range(400):
        values = (
            rng.normal(size=(1, 100)) + 0.1 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 100))
        )
        false["crossed"].append(crossed_interval(values)["p"])
        false["seeds"].append(stats.ttest_1samp(values.mean(1), 0).pvalue)
    rates = {name: np.mean(np.array(p) < 0.05) for name, p in false.items()}
    assert rates["crossed"] <= 0.07
    assert rates["seeds"] > 0.09
    none = crossed_interval(values[:1])
    assert np.isnan([none["low"], none["p"]]).all()


def test_the_variance_over_crossed_seeds_and_images_is_that_of_a_loop() -> None:
    """Sums over all pairs that share a seed or an image, minus those that share both."""
    rng = np.random.default_rng(7)
    values = rng.normal(size=(4, 30)) + 0.1 * rng.normal(size=(4, 1)) + rng.normal(size=(1, 30))
    seeds, images = values.shape
    mean = values.mean()
    of_seeds = [row.mean() - mean for row in values]
    of_images = [column.mean() - mean for column in values.T]
    parts = [
        sum(x**2 for x in each) / (len(each) - 1) / len(each) for each in (of_seeds, of_images)
    ]
    rest = sum(
        (values[s, i] - mean - of_seeds[s] - of_images[i]) ** 2
        for s in range(seeds)
        for i in range(images)
    )
    variance = sum(parts) - rest / (seeds - 1) / (images - 1) / seeds / images
    degrees = variance**2 / (parts[0] ** 2 / (seeds - 1) + parts[1] ** 2 / (images - 1))
    low, high = stats.t.interval(0.95, degrees, mean, np.sqrt(variance))
    found = crossed_interval(values)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(mean) / np.sqrt(variance), degrees))


def test_seeds_that_differ_more_than_images_have_the_degrees_of_freedom_of_seeds() -> None:
    values = np.random.default_rng(9).normal(size=(3, 200)) + np.array([[-1.0], [0.5], [2.0]])
    found = crossed_interval(values)
    error = (found["high"] - found["difference"]) / stats.t.ppf(0.975, 2)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["difference"]) / error, 2))
    assert error == pytest.approx(stats.sem(values.mean(1)), rel=0.05)


def test_two_seeds_have_one_degree_of_freedom() -> None:
    """However small the difference of two seeds is by chance."""
    values = np.random.default_rng(8).normal(0.2, 1, (2, 100))
    values[1] += values[0].mean() - values[1].mean() + 1e-6
    found = crossed_interval(values)
    half = found["high"] - found["difference"]
    error = half / stats.t.ppf(0.975, 1)
    assert 0 < error < 0.2
    assert found["p"] == pytest.approx(2 * stats.t.sf(found["difference"] / error, 1))


def test_equivalence_is_two_one_sided_t_tests() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(0.02, 0.3, 200)
    for smallest in (0.03, 0.05, 0.1):
        expected = max(
            stats.ttest_1samp(difference, smallest, alternative="less").pvalue,
            stats.ttest_1samp(difference, -smallest, alternative="greater").pvalue,
        )
        assert equivalence_t(difference, smallest) == pytest.approx(expected)
    few = np.zeros(200)
    few[:9] = 0.01
    assert equivalence_t(few, 0.1) == 1
    assert equivalence_t(np.zeros(200), 1e-9) == 1
