"""The choice of a fold on toy networks whose gates are known: the short part of the simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.fold_honesty import SCENARIOS, Population, main, mean_share, repeat


def test_gates_that_do_nothing_are_folded_and_the_loss_stays_within_the_tolerance() -> None:
    """Some gates do nothing; others matter, so that the sets pass the tolerance one by one."""
    scenario, times, tolerance = SCENARIOS["mixture"], 20, 1.0
    population = Population.make(scenario, 0, 10_000, 10_000)
    found = repeat(
        population, scenario, images=3000, tolerance=tolerance, times=times, seed=1, stability=1
    )
    above = sum(each.loss > tolerance for each in found)
    assert stats.binomtest(above, times, 0.05, alternative="greater").pvalue > 0.001
    assert np.mean([each.useless for each in found if each.useless is not None]) >= 0.8
    assert max(each.gates for each in found) <= len(scenario.useless) + 1
    assert found[0].jaccard is not None
    assert 0.5 < found[0].jaccard <= 1


def test_the_script_prints_a_row_for_each_kind_of_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    sizes = {"images": 700, "population": 2000, "training": 2000, "stability": 1}
    main(2, 1, tolerance=4, scenarios=("backup",), out=out, **sizes)
    assert SCENARIOS["backup"].about in capsys.readouterr().out.splitlines()[-1]
    assert len(json.loads(out.read_text())["backup"]) == 2


def test_the_interval_of_a_mean_share_is_that_of_student() -> None:
    shares = [0.5, 0.75, 1.0, 1.0]
    low, high = 100 * np.array(stats.ttest_1samp(shares, 0).confidence_interval(0.95))
    assert mean_share(shares) == f"81.2% ({low:.1f} to 100.0)"
    assert high > 100
    assert mean_share([1.0, 1.0]) == "100.0% (100.0 to 100.0)"
