"""The rate of false verdicts, with few simulated data sets; `analysis/verdicts.py` has many."""

from __future__ import annotations

import pytest

from analysis.verdicts import count_false


@pytest.mark.parametrize("used", [0, 1, 8])
def test_verdicts_are_rarely_false(used: int) -> None:
    """At a rate of 5%, more than 2 of 8 data sets have a false verdict in 0.6% of all runs."""
    rates = count_false(used, 8, seed=1, edits={"constant": 0})
    assert rates.false <= 2
    if used:
        assert rates.found > 0.5
