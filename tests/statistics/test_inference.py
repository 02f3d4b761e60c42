"""p values, corrections and intervals, against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from attnscope.statistics.inference import (
    ENDS,
    LEVEL,
    bounded_mean_interval,
    holm,
    mcnemar,
    mean_interval,
    mean_share_interval,
    normal_interval,
    paired_accuracy_change,
    paired_interval,
    paired_t,
    significant,
    t_interval,
)


def test_significant_is_below_the_level_and_not_nan():
    assert significant([0.0, 0.049, LEVEL, 0.5, np.nan]).tolist() == [True, True] + [False] * 3
    assert significant(0.2, level=0.3).shape == ()
    assert significant(0.2, level=0.3)
    assert pytest.approx(1 - (ENDS[1] - ENDS[0])) == LEVEL


@pytest.mark.parametrize("tests", [1, 2, 7, 40])
def test_holm_equals_statsmodels(tests):
    rng = np.random.default_rng(tests)
    p = rng.random(tests) ** 3
    p[: tests // 3] = p[0]  # ties
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # Sorted p times 4, 3, 2, 1, never below the previous one.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02, np.nan, 0.02], [0.04, np.nan, 0.04]),
        ([0.6, 0.9], [1, 1]),
        ([], []),
    ],
)
def test_holm_by_hand(p, adjusted):
    assert holm(np.array(p, float)) == pytest.approx(adjusted, nan_ok=True)


@pytest.mark.parametrize("counts", [(30, 9, 2, 5), (10, 0, 6, 0), (3, 4, 4, 3), (0, 1, 0, 0)])
def test_mcnemar_equals_statsmodels(counts):
    a = np.repeat([True, True, False, False], counts)
    b = np.repeat([True, False, True, False], counts)
    theirs = their_mcnemar(np.reshape(counts, (2, 2)), exact=True).pvalue
    assert mcnemar(a, b) == pytest.approx(theirs, rel=1e-12)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_paired_tests_of_equal_values():
    right = np.array([True, False, True])
    assert mcnemar(right, right) == 1
    assert paired_t(np.ones(3), np.ones(3)) == 1
    assert paired_t(np.ones(3), np.zeros(3)) == 0  # equal differences have no t
    assert np.isnan(paired_t(np.ones(1), np.zeros(1)))


@pytest.mark.parametrize("count", [2, 3, 50])
def test_paired_differences_equal_statsmodels(count):
    first, second = np.random.default_rng(count).normal([[0], [0.3]], 1, (2, count))
    theirs = DescrStatsW(second - first)
    p = theirs.ttest_mean(0)[1]
    low, high = theirs.tconfint_mean()
    assert paired_t(first, second) == pytest.approx(p, rel=1e-10)
    found = paired_interval(second - first)
    expected = {"difference": (second - first).mean(), "low": low, "high": high, "p": p}
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("difference", [[0.3], [0.25, 0.25, 0.25], [0.1 + 0.2, 0.3]])
def test_paired_interval_is_nan_without_spread(difference):
    found = paired_interval(np.array(difference))
    assert found.pop("difference") == pytest.approx(difference[0])
    assert np.isnan(list(found.values())).all()


def test_mean_interval_equals_statsmodels():
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(n, 2)) for n in (2, 9, 40)]
    mean, std = (np.stack([f(g) for g in groups]) for f in (lambda g: g.mean(0), sample_std))
    count = np.array([len(group) for group in groups])
    low, high = mean_interval(mean, std, count)
    for k, group in enumerate(groups):
        expected = np.transpose([DescrStatsW(column).tconfint_mean() for column in group.T])
        assert np.stack([low[k], high[k]]) == pytest.approx(expected)
        error = std[k] / np.sqrt(len(group))
        assert t_interval(mean[k], error, len(group) - 1) == pytest.approx(expected)
    alone = mean_interval(np.array([0.4]), np.array([np.nan]), np.array([1]))
    assert np.isnan(alone).all()


def sample_std(values):
    return values.std(0, ddof=1)


def test_normal_interval_equals_statsmodels():
    values = np.random.default_rng(0).normal(size=30)
    theirs = DescrStatsW(values)
    found = normal_interval(values.mean(), values.std(ddof=1) / 30**0.5)
    assert found == pytest.approx(theirs.zconfint_mean())


@pytest.mark.parametrize("right", [0, 1, 7, 20])
def test_the_bounded_interval_of_zeros_and_ones_is_clopper_and_pearsons(right):
    values = np.arange(20) < right
    mean, std, count = np.array([values.mean()]), np.array([values.std(ddof=1)]), np.array([20])
    for scale, shift in ((1, 0), (3, -1)):
        bounds = (shift, scale + shift)
        found = bounded_mean_interval(scale * mean + shift, scale * std, count, bounds)
        expected = scale * np.array(proportion_confint(right, 20, method="beta")) + shift
        assert np.ravel(found) == pytest.approx(expected)


def test_the_bounded_interval_far_from_the_bounds_is_close_to_students():
    values = np.random.default_rng(0).normal(0.5, 0.02, 30)
    mean, std, count = np.array([values.mean()]), np.array([values.std(ddof=1)]), np.array([30])
    found = np.ravel(bounded_mean_interval(mean, std, count))
    assert found == pytest.approx(np.ravel(mean_interval(mean, std, count)), abs=2e-4)


def test_the_bounded_interval_needs_ten_values_and_no_spread_has_no_width():
    mean, std = np.full((4, 1), 0.5), np.array([[0.1], [0.1], [0], [np.nan]])
    low, high = bounded_mean_interval(mean, std, np.array([9, 10, 12, 1]))
    assert np.isnan(low.ravel()).tolist() == np.isnan(high.ravel()).tolist()
    assert np.isnan(low.ravel()).tolist() == [True, False, False, True]
    assert low[2] == high[2] == 0.5


@pytest.mark.parametrize(("right", "count"), [(0, 20), (7, 20), (20, 20), (1, 1)])
def test_mean_share_interval_of_one_share_is_wilsons(right, count):
    expected = proportion_confint(right, count, method="wilson")
    found = mean_share_interval(np.array([right / count]), np.array([count]))
    assert found == pytest.approx(expected)


def test_mean_share_interval_of_two_shares_is_newcombes():
    """The difference p - q is twice the mean of p and 1 - q, minus 1."""
    for (x, n), (y, m) in (((7, 20), (30, 50)), ((0, 10), (9, 9)), ((40, 41), (3, 7))):
        shares, count = np.array([x / n, 1 - y / m]), np.array([n, m])
        expected = confint_proportions_2indep(x, n, y, m, method="newcomb")
        found = [2 * end - 1 for end in mean_share_interval(shares, count)]
        assert found == pytest.approx(expected)


def test_paired_accuracy_change_has_bonett_and_prices_interval():
    """It is the Wald interval of paired shares after one image is added to each kind of flip."""
    kept, gained, lost = 60, 5, 15
    before = np.repeat([True, False, True], [kept, gained, lost])
    after = np.repeat([True, True, False], [kept, gained, lost])
    flips = np.repeat([0.0, 1, -1], [kept, gained + 1, lost + 1])
    half = stats.norm.ppf(0.975) * flips.std() / len(flips) ** 0.5
    found = paired_accuracy_change(before, after)
    assert found == pytest.approx((-10 / 80, flips.mean() - half, flips.mean() + half))
    assert np.isnan(paired_accuracy_change(before[:0], after[:0])).all()
