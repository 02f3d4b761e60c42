"""Experiments that run one after another and are written as they end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attnscope.interventions import (
    Erasing,
    run_experiments,
    run_experiments_in,
    study,
)
from attnscope.interventions.replacement import Replaced, replace_and_keep
from attnscope.plots import Unavailable
from attnscope.plots.usage import usage_of
from attnscope.recording.outcomes import find_outcomes, read_outcomes
from tests.interventions.toy import toy_setup
from tests.making import refused


def test_an_interrupted_call_continues_with_equal_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, folder = toy_setup("used", tmp_path), tmp_path / "out"
    made: list[str] = []

    def counted(*args: Any, **kwargs: Any) -> Replaced:
        made.append("replace")
        return replace_and_keep(*args, **kwargs)

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    wanted = ["replace", "decode", "erase"]
    monkeypatch.setattr(study, "replace_and_keep", counted)
    with monkeypatch.context() as patch:
        patch.setattr(study, "erase", killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiments_in(folder, setup, experiments=wanted, progress=False)
    kept = read_outcomes(folder)
    assert kept.about["experiments"] == ["replace", "decode"]
    assert set(kept.tables) == {"effects", "constants", "decoding"}
    found = run_experiments_in(folder, setup, experiments=wanted, progress=False)
    assert made == ["replace"]
    assert found.about["experiments"] == wanted
    complete = run_experiments(setup, experiments=wanted, progress=False)
    assert found.about == complete.about
    pd.testing.assert_frame_equal(found.replacement, complete.replacement)
    assert set(found.tables) == set(complete.tables)
    for name, table in complete.tables.items():
        pd.testing.assert_frame_equal(found.tables[name], table, check_exact=False, rtol=1e-12)
    made.clear()
    again = run_experiments_in(str(folder), setup, experiments=["replace"], progress=False)
    assert again.about == found.about
    assert made == []
    other = toy_setup("constant", tmp_path)
    with refused("AS811", names=(folder,)):
        run_experiments_in(folder, other, experiments=["ablate"], progress=False)


def test_experiments_with_other_controls_are_repeated(tmp_path: Path) -> None:
    setup, folder = toy_setup("used", tmp_path), tmp_path / "out"
    other = toy_setup("constant", tmp_path).recording
    wanted = ["decode", "randomize"]
    found = run_experiments_in(folder, setup, experiments=wanted, progress=False)
    assert "seed" not in set(found.table("randomization")["randomized"])
    assert found.table("decoding")["untrained_accuracy"].isna().all()
    found = run_experiments_in(folder, setup, [other], experiments=wanted, progress=False)
    assert "seed" in set(found.table("randomization")["randomized"])
    assert found.about["experiments"] == wanted
    assert found.about["controls"] == {"randomize": [other.id]}
    found = run_experiments_in(folder, setup, untrained=other, experiments=wanted, progress=False)
    assert found.table("decoding")["untrained_accuracy"].notna().all()
    assert found.about["controls"] == {"randomize": [other.id], "decode": [other.id]}
    assert "seed" in set(found.table("randomization")["randomized"])  # it was not repeated
    with refused("AS810", names=(tmp_path,)):
        run_experiments_in(tmp_path, setup, progress=False)


@pytest.mark.parametrize(
    ("scored", "taken"), [(1000, (100, 200, 500)), (400, (50, 100, 250)), (3000, (300, 600, 1500))]
)
def test_each_experiment_uses_its_share_of_the_scored_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: int, taken: tuple[int, int, int]
) -> None:
    setup = toy_setup("used", tmp_path)
    setup.scored = np.arange(scored)
    requested: dict[str, int] = {}

    def remember(name: str, answer: Any) -> Callable[..., Any]:
        def experiment(*_: Any, images: int, **__: Any) -> Any:
            requested[name] = images
            return answer

        return experiment

    table = pd.DataFrame()
    monkeypatch.setattr(study, "ablate_channels", remember("ablate", table))
    monkeypatch.setattr(study, "erase", remember("erase", Erasing(table, table)))
    monkeypatch.setattr(study, "randomize_gates", remember("randomize", table))
    experiments = ["ablate", "erase", "randomize"]
    study.run_experiments(setup, experiments=experiments, progress=False)
    assert requested == dict(zip(experiments, taken, strict=True))


def test_missing_outcomes_and_unknown_experiments_are_refused(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    assert find_outcomes(setup.recording) is None
    with refused("AS631", names=(tmp_path / "none", "attnscope intervene")):
        read_outcomes(tmp_path / "none")
    outcomes = run_experiments(setup, experiments=["decode"], progress=False)
    with pytest.raises(Unavailable) as caught:
        usage_of(outcomes)
    assert caught.value.code == "AS906"
    with refused("AS630", names=("effects",)):
        outcomes.table("effects")
    with refused("AS813", names=("cut", "decode", "randomize")):
        run_experiments(setup, experiments=["cut"])
