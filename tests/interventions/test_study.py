"""Experiments that run one by one and are written as they end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attnscope import InputError
from attnscope.interventions import (
    Erasing,
    intervene,
    intervene_in,
    replace_gates,
    study,
)
from attnscope.plots import Unavailable
from attnscope.plots.usage import usage_of
from attnscope.recording.outcomes import find_outcomes, read_outcomes
from tests.interventions.toy import toy_setup


def test_what_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, folder = toy_setup("used", tmp_path), tmp_path / "out"
    made: list[str] = []

    def counted(*args: Any, **kwargs: Any) -> pd.DataFrame:
        made.append("replace")
        return replace_gates(*args, **kwargs)

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    wanted = ["replace", "decode", "erase"]
    monkeypatch.setattr(study, "replace_gates", counted)
    with monkeypatch.context() as patch:
        patch.setattr(study, "erase", killed)
        with pytest.raises(KeyboardInterrupt):
            intervene_in(folder, setup, experiments=wanted, progress=False)
    kept = read_outcomes(folder)
    assert kept.about["experiments"] == ["replace", "decode"]
    assert set(kept.tables) == {"effects", "decoding"}
    found = intervene_in(folder, setup, experiments=wanted, progress=False)
    assert made == ["replace"]
    assert found.about["experiments"] == wanted
    whole = intervene(setup, experiments=wanted, progress=False)
    assert found.about == whole.about
    pd.testing.assert_frame_equal(found.replacement, whole.replacement)
    assert set(found.tables) == set(whole.tables)
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(found.tables[name], table, check_exact=False, rtol=1e-12)
    with pytest.raises(InputError, match="holds these experiments already"):
        intervene_in(folder, setup, experiments=["erase"], progress=False)
    other = toy_setup("constant", tmp_path)
    with pytest.raises(InputError, match="is of another recording"):
        intervene_in(folder, other, experiments=["ablate"], progress=False)


def test_what_was_made_with_other_controls_is_made_again(tmp_path: Path) -> None:
    setup, folder = toy_setup("used", tmp_path), tmp_path / "out"
    other = toy_setup("constant", tmp_path).recording
    wanted = ["decode", "randomize"]
    found = intervene_in(folder, setup, experiments=wanted, progress=False)
    assert "seed" not in set(found.table("randomization")["randomized"])
    assert found.table("decoding")["untrained_accuracy"].isna().all()
    with pytest.raises(InputError, match="holds these experiments already"):
        intervene_in(folder, setup, experiments=wanted, progress=False)
    found = intervene_in(folder, setup, [other], experiments=wanted, progress=False)
    assert "seed" in set(found.table("randomization")["randomized"])
    assert found.about["experiments"] == wanted
    assert found.about["controls"] == {"randomize": [other.id]}
    with pytest.raises(InputError, match="holds these experiments already"):
        intervene_in(folder, setup, [other], experiments=wanted, progress=False)
    found = intervene_in(folder, setup, untrained=other, experiments=wanted, progress=False)
    assert found.table("decoding")["untrained_accuracy"].notna().all()
    assert found.about["controls"] == {"randomize": [other.id], "decode": [other.id]}
    assert "seed" in set(found.table("randomization")["randomized"])  # it was not made again
    with pytest.raises(InputError, match="is no folder of interventions"):
        intervene_in(tmp_path, setup, progress=False)


@pytest.mark.parametrize(
    ("scored", "taken"), [(1000, (100, 200, 500)), (400, (50, 100, 250)), (3000, (300, 600, 1500))]
)
def test_how_many_images_each_experiment_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: int, taken: tuple[int, int, int]
) -> None:
    setup = toy_setup("used", tmp_path)
    setup.scored = np.arange(scored)
    asked: dict[str, int] = {}

    def remember(name: str, answer: Any) -> Callable[..., Any]:
        def experiment(*_: Any, images: int, **__: Any) -> Any:
            asked[name] = images
            return answer

        return experiment

    table = pd.DataFrame()
    monkeypatch.setattr(study, "ablate_channels", remember("ablate", table))
    monkeypatch.setattr(study, "erase", remember("erase", Erasing(table, table)))
    monkeypatch.setattr(study, "randomize_gates", remember("randomize", table))
    experiments = ["ablate", "erase", "randomize"]
    study.intervene(setup, experiments=experiments, progress=False)
    assert asked == dict(zip(experiments, taken, strict=True))


def test_outcomes_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    assert find_outcomes(setup.recording) is None
    with pytest.raises(InputError, match="make them with attnscope intervene"):
        read_outcomes(tmp_path / "none")
    outcomes = intervene(setup, experiments=["decode"], progress=False)
    with pytest.raises(Unavailable, match="replaced no gate"):
        usage_of(outcomes)
    with pytest.raises(InputError, match="have no effects"):
        outcomes.table("effects")
    with pytest.raises(InputError, match="experiment 'cut' is not known"):
        intervene(setup, experiments=["cut"])
