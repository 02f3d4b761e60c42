"""The exact test of a loss of accuracy, its bound, and how many images it takes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from attnscope.statistics.noninferiority import (
    fewest_images,
    mean_at_most,
    paired_loss_at_most,
    paired_loss_p,
    share_at_least,
    sufficient_images,
)

GAMMA = 1e-4


def score_by_hand(lost: int, gained: int, images: int, tolerance: float) -> float:
    """Tango's statistic, with a numerical maximum of the likelihood."""

    def minus_log_likelihood(share: float) -> float:
        return -float(
            stats.multinomial.logpmf(
                [lost, gained, images - lost - gained],
                images,
                [share + tolerance, share, max(1 - 2 * share - tolerance, 0)],
            )
        )

    bounds = (0, (1 - tolerance) / 2)
    share = optimize.minimize_scalar(
        minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-10}
    ).x
    variance = images * (2 * share + tolerance - tolerance**2)
    return (lost - gained - images * tolerance) / np.sqrt(variance)


@pytest.mark.parametrize(
    ("lost", "gained", "tolerance"), [(0, 0, 0.2), (1, 0, 0.3), (1, 2, 0.15), (2, 3, 0.4)]
)
def test_p_is_the_largest_probability_of_a_result_at_least_as_extreme(
    lost: int, gained: int, tolerance: float
) -> None:
    images = 14
    seen = score_by_hand(lost, gained, images, tolerance)
    extreme = [
        (b, c)
        for b in range(images + 1)
        for c in range(images + 1 - b)
        if score_by_hand(b, c, images, tolerance) <= seen + 1e-6
    ]
    interval = stats.binomtest(gained, images).proportion_ci(1 - GAMMA, "exact")
    largest = 0.0
    for share in np.linspace(interval.low, min(interval.high, (1 - tolerance) / 2), 400):
        shares = [share + tolerance, share, max(1 - 2 * share - tolerance, 0)]
        counts = [[b, c, images - b - c] for b, c in extreme]
        largest = max(largest, stats.multinomial.pmf(counts, images, shares).sum())
    found = paired_loss_p(lost, gained, images, tolerance)
    assert found == pytest.approx(largest + GAMMA, abs=2e-4)


@pytest.mark.parametrize("images", [12, 40])
@pytest.mark.parametrize("tolerance", [0.05, 0.2])
def test_a_loss_as_large_as_the_tolerance_passes_in_at_most_5_percent(
    images: int, tolerance: float
) -> None:
    """The exact size, also where hardly any prediction changes."""
    passing = []
    for gained in range(images + 1):
        lost = -1  # the largest number lost that passes
        for step in (32, 16, 8, 4, 2, 1):
            tried = lost + step
            if tried + gained <= images and paired_loss_p(tried, gained, images, tolerance) <= 0.05:
                lost = tried
        passing += [[b, gained, images - b - gained] for b in range(lost + 1)]
    sizes = (
        [
            stats.multinomial.pmf(
                passing, images, [share + tolerance, share, 1 - 2 * share - tolerance]
            ).sum()
            for share in (0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35)
        ]
        if passing
        else [0.0]
    )
    assert max(sizes) <= 0.05
    if (1 - tolerance) ** images < 0.04:
        assert max(sizes) > 0.02  # it is not needlessly conservative


def test_without_changes_about_three_images_per_point_of_loss_are_needed() -> None:
    """The rule of three: 1 - 0.05^(1/n) is about 3 / n."""
    assert 0.99**500 < paired_loss_p(0, 0, 500, 0.01) < 2 * 0.99**500
    assert paired_loss_at_most(0, 0, 500) == pytest.approx(1 - 0.05 ** (1 / 500), rel=0.01)
    for tolerance in (0.01, 0.1, 0.5):
        fewest = fewest_images(tolerance)
        assert fewest == pytest.approx(np.log(0.05) / np.log(1 - tolerance), abs=1.5)
        assert paired_loss_p(0, 0, fewest, tolerance) <= 0.05
        assert paired_loss_p(0, 0, fewest - 1, tolerance) > 0.05
    assert fewest_images(1) == 1


def test_the_end_of_the_interval_is_where_the_test_begins_to_pass() -> None:
    for lost, gained, images in ((5, 2, 300), (40, 45, 2500), (0, 1, 20)):
        end = paired_loss_at_most(lost, gained, images)
        assert paired_loss_p(lost, gained, images, end + 2e-5) <= 0.05
        assert paired_loss_p(lost, gained, images, end - 2e-5) > 0.05
        assert end > (lost - gained) / images
    assert paired_loss_at_most(0, 40, 100) == 0
    assert paired_loss_at_most(20, 0, 20) == 1
    assert paired_loss_at_most(0, 0, 0) == 1


def test_many_images_give_the_normal_approximation() -> None:
    lost, gained, images, tolerance = 300, 250, 10_000, 0.01
    error = np.sqrt((lost + gained) / images - ((lost - gained) / images) ** 2) / 100
    expected = stats.norm.cdf(((lost - gained) / images - tolerance) / error)
    assert paired_loss_p(lost, gained, images, tolerance) == pytest.approx(expected, abs=0.004)


def test_impossible_arguments_are_refused_and_large_losses_never_pass() -> None:
    assert paired_loss_p(3, 0, 100, 0.03) == 1
    assert paired_loss_p(9, 0, 10, 1) == 0
    assert paired_loss_p(10, 0, 10, 1) == 1
    assert paired_loss_p(0, 0, 0, 0.5) == 1
    assert paired_loss_p(0, 99, 100, 0.5) < 0.001
    for arguments in ((0, 0, 10, 0.0), (0, 0, 10, 1.1), (6, 5, 10, 0.5), (-1, 0, 10, 0.5)):
        with pytest.raises(ValueError, match=r"must be|cannot be"):
            paired_loss_p(*arguments)


def test_ends_of_shares_and_means_are_those_of_scipy() -> None:
    for count, images in ((0, 9), (97, 100), (30, 30)):
        interval = stats.binomtest(count, images, alternative="greater").proportion_ci(0.95)
        assert share_at_least(count, images) == pytest.approx(interval.low)
    values = np.random.default_rng(0).exponential(size=50)
    interval = stats.ttest_1samp(values, 0, alternative="less").confidence_interval(0.95)
    assert mean_at_most(values) == pytest.approx(interval.high)
    assert np.isnan(mean_at_most(values[:1]))


def test_the_number_of_images_that_would_do_gives_80_percent_power() -> None:
    lost, gained, tolerance = 9, 6, 0.02
    needed = sufficient_images(lost, gained, 400, tolerance)
    assert needed is not None
    assert needed > 400
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(needed, [lost / 400, gained / 400, 1 - 15 / 400], 80)
    passed = np.mean([paired_loss_p(b, c, needed, tolerance) <= 0.05 for b, c, _ in drawn])
    assert 0.65 < passed < 0.93
    assert sufficient_images(8, 0, 400, 0.02) is None
    assert sufficient_images(0, 0, 40, 0.02) == fewest_images(0.02)
