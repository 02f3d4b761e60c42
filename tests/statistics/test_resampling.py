"""Permutations, bootstraps, folds and samples, against loops, SciPy and enumerated orders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from attnscope.statistics import resampling
from attnscope.statistics.class_sums import class_sums, permuted_labels
from attnscope.statistics.inference import LEVEL
from attnscope.statistics.resampling import (
    bootstrap_interval,
    bootstrap_means,
    bootstrap_sums,
    bootstrap_together,
    centered_interval,
    mantel,
    null_band,
    order_test,
    percentile_interval,
    permutation_p,
    sequential_p,
    upper_limit,
)
from attnscope.statistics.splits import (
    class_partners,
    derangement,
    stratified_folds,
    stratified_sample,
)
from tests.making import refused


def test_bootstrap_means_equal_a_loop_for_every_block_size(monkeypatch):
    values = np.random.default_rng(0).normal(size=(30, 3))
    rng = np.random.default_rng(5)
    expected = [values[rng.integers(0, 30, 30)].mean(0) for _ in range(40)]
    for draws in (2**21, 100, 1):
        monkeypatch.setattr(resampling, "_DRAWS", draws)
        found = bootstrap_means(values, 40, np.random.default_rng(5))
        assert found == pytest.approx(np.array(expected))


def test_several_tables_have_the_resamples_of_one():
    values = np.random.default_rng(0).normal(size=(30, 5))
    both = bootstrap_together([values[:, :2], values[:, 2:]], 40, np.random.default_rng(5))
    alone = bootstrap_means(values, 40, np.random.default_rng(5))
    assert [part.shape for part in both] == [(40, 2), (40, 3)]
    assert np.hstack(both) == pytest.approx(alone)


@pytest.mark.parametrize("classes", [3, 100])
def test_class_sums_equal_a_loop(classes):
    """With few classes they are a dense product, and with many a sparse one."""
    rng = np.random.default_rng(0)
    labels, values = rng.integers(0, classes, (4, 60)), rng.normal(size=(60, 5))
    found = class_sums(labels, classes, values)
    assert found.shape == (4, classes, 5)
    for draw, order in enumerate(labels):
        for k in range(classes):
            assert found[draw, k] == pytest.approx(values[order == k].sum(0))


def one_by_one(drawn, observed, exceedances, most):
    """The rule of Besag and Clifford in plain Python: p, and the number of draws."""
    above = 0
    for made, value in enumerate(drawn[:most], start=1):
        above += value >= observed
        if above == exceedances:
            return above / made, made
    return (above + 1) / (most + 1), most


def test_a_sequential_p_equals_draws_one_by_one():
    rng = np.random.default_rng(0)
    for observed in (-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0):
        for exceedances, most in ((1, 20), (5, 60), (10, 100)):
            drawn = rng.normal(size=most)
            p, used, stopped = sequential_p(drawn, observed, exceedances, most)
            assert (p, used) == one_by_one(drawn, observed, exceedances, most)
            assert stopped
            # What is drawn in addition has no effect, and before the end nothing is known.
            assert sequential_p(drawn[:used], observed, exceedances, most) == (p, used, True)
            if used > 1:
                assert not sequential_p(drawn[: used - 1], observed, exceedances, most)[2]
            full = (1 + (drawn >= observed).sum()) / (most + 1)
            assert sequential_p(drawn, observed, None, most) == (full, most, True)
            assert (p == full) or (p >= exceedances / most)
    # Equal values count as exceeding, although sums in single precision differ in the last digit.
    assert sequential_p(np.array([1 - 1e-8, 0.0, 0.0]), 1.0, 5, 3)[0] == 2 / 4
    with refused("AS716", names=(0,)):
        sequential_p(np.zeros(3), 0.0, 0, 3)


def test_a_sequential_p_has_the_size_of_the_full_one_and_saves_draws():
    """Under the null, P(p <= x) = x for each value x that p can take."""
    rng = np.random.default_rng(1)
    trials, exceedances, most = 4000, 10, 99
    found, full, used = np.zeros(trials), np.zeros(trials), np.zeros(trials)
    for trial in range(trials):
        observed, *drawn = rng.normal(size=1 + most)
        found[trial], used[trial], _ = sequential_p(np.array(drawn), observed, exceedances, most)
        full[trial], _, _ = sequential_p(np.array(drawn), observed, None, most)
    for level in (0.01, 0.05, 0.1, 10 / 50, 10 / 20, 10 / 12):
        low, high = stats.binom.interval(0.999, trials, level)
        assert low <= (found <= level + 1e-12).sum() <= high, level
    assert ((found <= 0.05) == (full <= 0.05)).all()
    assert found.mean() == pytest.approx(full.mean(), abs=0.02)
    assert used.mean() < 0.5 * most


@pytest.mark.parametrize("chance", [0.02, 0.2, 0.5, 0.9])
def test_a_sequential_p_is_the_full_one_in_expectation(chance):
    """For a fixed effect; h / l is biased by less than p (1 - p) / (h - 1)."""
    rng = np.random.default_rng(2)
    drawn = (rng.random((3000, 100)) < chance).astype(float)
    found = np.array([sequential_p(values, 1.0, 10, 100)[0] for values in drawn])
    full = np.array([permutation_p(values, np.asarray(1.0)) for values in drawn])
    assert found.mean() == pytest.approx(full.mean(), abs=chance * (1 - chance) / 9 + 0.005)


def test_bootstrap_sums_equal_a_loop_for_every_block_size(monkeypatch):
    values = np.random.default_rng(0).normal(size=(30, 3))
    rng = np.random.default_rng(5)
    expected = [values.sum(0), *(values[rng.integers(0, 30, 30)].sum(0) for _ in range(40))]
    for draws in (2**22, 300, 1):
        monkeypatch.setattr(resampling, "_SUMMED", draws)
        found = bootstrap_sums(values, 40, np.random.default_rng(5))
        assert found == pytest.approx(np.array(expected))
    assert bootstrap_sums(values[:0], 4, rng).tolist() == [[0, 0, 0]] * 5


def test_bootstrap_interval_equals_scipy():
    values = np.random.default_rng(3).exponential(1, 80)
    low, high = bootstrap_interval(values[:, None], 8000, 1)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=8000, rng=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)
    assert np.isnan(bootstrap_interval(values[:1, None])).all()
    with refused("AS701", names=("resamples", 0)):
        bootstrap_interval(values[:, None], 0)


def test_percentile_interval_leaves_a_fortieth_at_each_end():
    drawn = np.random.default_rng(0).permutation(np.arange(41.0))
    low, high = percentile_interval(np.stack([drawn, 2 * drawn], 1))
    assert low.tolist() == pytest.approx([1, 2])
    assert high.tolist() == pytest.approx([39, 78])


def test_centered_interval_subtracts_the_bias():
    drawn = np.array([0.1, 0.3, np.nan])  # mean 0.2, standard deviation 0.1, observed 0.5
    assert centered_interval(0.5, drawn) == pytest.approx((0.8 - 0.1959964, 0.8 + 0.1959964))


@pytest.mark.parametrize(("count", "band"), [(19, (1, 19)), (39, (1, 39)), (199, (5, 195))])
def test_null_band_by_hand(count, band):
    """A further value from the null is below rank 5 of 199 in 5 of 200 cases: 2.5%."""
    drawn = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert null_band(drawn) == pytest.approx(band)


def test_permutation_p_counts_the_observed_order_and_ties():
    permuted = np.array([[0.1, 5.0], [0.3, 6.0], [0.2, 7.0]])
    # 0.2 ties with one value and is below one; a value slightly below the observed one ties.
    assert permutation_p(permuted, np.array([0.2, 8.0])).tolist() == [3 / 4, 1 / 4]
    assert permutation_p(np.array([1 - 1e-12, 0.9]), np.array(1.0)) == 2 / 3


@pytest.mark.parametrize("draws", [5, 18, 19, 20, 39, 40, 199, 200, 999])
def test_what_exceeds_the_upper_limit_is_significant(draws):
    permuted = np.random.default_rng(draws).integers(0, 30, draws) / 30
    limit = upper_limit(permuted)
    assert np.isnan(limit) == (draws < 20)
    for observed in np.arange(-1, 32) / 30:
        assert (permutation_p(permuted, observed) < LEVEL) == (observed > limit)


def test_permutation_p_equals_scipy():
    a, b = np.random.default_rng(4).normal([[0.8], [0]], 1, (2, 5))
    every = [
        (a.sum() + b.sum() - 2 * np.delete([*a, *b], chosen).sum())
        for chosen in itertools.combinations(range(10), 5)
    ]
    theirs = stats.permutation_test(
        (a, b), lambda x, y: x.sum() - y.sum(), alternative="greater", n_resamples=np.inf
    )
    # All orders except the observed one, which is always counted.
    others = np.delete(every, np.argmin(np.abs(np.array(every) - theirs.statistic)))
    assert permutation_p(others, np.array(theirs.statistic)) == pytest.approx(theirs.pvalue)


def test_stratified_folds_distribute_each_class_evenly():
    labels = np.repeat([0, 1, 2, -1], [11, 8, 3, 4])
    found = stratified_folds(labels, 5, np.random.default_rng(0))
    assert (found[labels < 0] == -1).all()
    for k, counts in enumerate(([3, 2, 2, 2, 2], [2, 2, 2, 1, 1], [1, 1, 1, 0, 0])):
        assert np.bincount(found[labels == k], minlength=5).tolist() == counts


def test_stratified_sample_is_proportional_and_at_most_half_of_each_class():
    labels = np.repeat([0, 1, 2, 3, 4], [100, 40, 2, 1, 7])
    rng = np.random.default_rng(0)
    for images, counts in ((15, [10, 4, 1, 0, 1]), (1000, [50, 20, 1, 0, 3])):
        found = stratified_sample(labels, images, rng)
        assert np.bincount(labels[found], minlength=5).tolist() == counts
        assert (np.diff(found) > 0).all()
    assert len(stratified_sample(np.arange(5), 3, rng)) == 0


@pytest.mark.parametrize("classes", [4, 8])
def test_mantel_permutes_rows_and_columns_together(classes):
    x, noise = (m + m.T for m in np.random.default_rng(classes).random((2, classes, classes)))
    y = x + 4 * noise
    rows, columns = np.triu_indices(classes, 1)
    rho, p = mantel(x, y, 300, 7)
    assert rho == pytest.approx(stats.spearmanr(x[rows, columns], y[rows, columns]).statistic)
    rng = np.random.default_rng(7)
    orders = (
        list(itertools.permutations(range(classes)))  # includes the observed order
        if classes == 4
        else [range(classes), *(rng.permutation(classes) for _ in range(300))]
    )
    found = [
        stats.spearmanr(x[rows, columns], y[np.ix_(order, order)][rows, columns]).statistic
        for order in orders
    ]
    assert p == pytest.approx((np.abs(found) >= abs(rho) - 1e-9).mean())
    assert 1 / len(orders) < p < 0.5  # away from the ends, where wrong orders would pass


def test_order_test_equals_an_enumeration_of_all_orders():
    x, y = np.array([1.0, 2, 4, 8]), np.array([0.1, 0.3, 0.2, 0.9])
    rho, p = order_test(x, y, 0)
    every = [stats.spearmanr(x, order).statistic for order in itertools.permutations(y)]
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert p == pytest.approx(2 * np.mean([r >= rho - 1e-9 for r in every]))
    assert np.isnan(order_test(x[:2], y[:2], 0)).all()
    assert np.isnan(order_test(x, np.ones(4), 0)).all()


def test_class_partners_are_one_cycle_within_each_class():
    labels = np.random.default_rng(0).integers(0, 4, 40)
    labels[7] = 9  # the only image of its class
    for seed in range(10):
        partners = class_partners(labels, seed)
        assert partners[7] == -1
        for k in range(4):
            members = np.flatnonzero(labels == k)
            at, visited = members[0], set()
            while at not in visited:
                visited.add(at)
                at = partners[at]
            assert visited == set(members)
    assert (class_partners(labels, 0) != class_partners(labels, 1)).any()


@pytest.mark.parametrize("count", [2, 3, 50])
def test_derangement_has_no_fixed_point(count):
    for seed in range(20):
        order = derangement(count, seed)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()


def test_derangement_is_uniform_over_partners():
    partners = [derangement(4, seed)[0] for seed in range(600)]
    assert stats.chisquare(np.bincount(partners)[1:]).pvalue > 0.01


def test_labels_of_a_group_move_to_a_group_of_the_same_size():
    groups = np.array([7, 3, 7, 5, 3, 1, 2, 2, 9])
    labels = np.array([0, 1, 0, 2, 1, 3, 4, 5, 6])
    found = permuted_labels(labels, 200, np.random.default_rng(0), groups)
    pairs = [np.flatnonzero(groups == g) for g in (7, 3, 2)]
    single = np.flatnonzero(np.isin(groups, [5, 1, 9]))
    seen = set()
    for order in found:
        blocks = [tuple(order[rows]) for rows in pairs]
        assert sorted(blocks) == [(0, 0), (1, 1), (4, 5)]
        assert sorted(order[single]) == [2, 3, 6]
        seen.add((*blocks, *order[single]))
    assert len(seen) == 36


def test_groups_are_whole_in_folds_and_resamples():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(np.arange(12) % 2, 3), np.repeat(rng.permutation(12), 3)
    folds = stratified_folds(labels, 3, np.random.default_rng(1), groups)
    for group in range(12):
        assert len(set(folds[groups == group])) == 1
    assert np.bincount(folds).tolist() == [12, 12, 12]
    values = rng.normal(size=(36, 2))
    drawn = bootstrap_means(values, 50, np.random.default_rng(2), groups)
    means = np.stack([values[groups == g].mean(0) for g in range(12)])
    # Groups are of one size, so that these are bootstrapped means of the groups.
    assert drawn == pytest.approx(bootstrap_means(means, 50, np.random.default_rng(2)))


def test_values_whose_difference_cancels_count_as_ties():
    observed, permuted = np.array(1e-18), np.array([0.0, 1e-17, -1e-3, 1e-3])
    assert permutation_p(permuted, observed, scale=1.0) == 4 / 5
    assert permutation_p(permuted, observed) == 3 / 5
