"""Rank correlations, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from attnscope.statistics.ranks import rank_correlation, standard_ranks


def test_rank_correlation_with_ties_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 50, 16)).astype(np.float32)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b) == pytest.approx(expected)


def test_standard_ranks_multiply_to_spearmans_rho():
    a, b = np.random.default_rng(1).integers(0, 6, (2, 9)).astype(float)
    found = standard_ranks(a) @ standard_ranks(b)
    assert found == pytest.approx(stats.spearmanr(a, b).statistic)
    assert np.isnan(standard_ranks(np.ones((1, 4)))).all()
