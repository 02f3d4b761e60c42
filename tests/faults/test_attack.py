"""The attack of `analysis/attack.py`, with few trials; by hand it has many."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from analysis.attack import Trial, files_of, flips, loads, structure, table_of
from tests.faults.conftest import in_new_process


def faults(trials: list[Trial]) -> list[str]:
    return [f"{trial.kind}: {trial.what}: {trial.problem}" for trial in trials if trial.problem]


def test_every_flipped_bit_is_found(place: Path) -> None:
    """Once in each file of a run, its recording, its interventions and its masks."""
    run = place / "run"
    trials = list(flips(run, len(files_of(run)), np.random.default_rng(0)))
    assert len({trial.what.partition(" ")[0] for trial in trials}) >= 15
    assert faults(trials) == []


def test_what_is_read_is_checked(place: Path) -> None:
    assert faults(list(loads(place / "run", 14, np.random.default_rng(1)))) == []


def test_files_that_are_replaced_are_found_or_named(place: Path) -> None:
    assert faults(list(structure(place / "run", 36, np.random.default_rng(2)))) == []


def test_disturbed_capture_can_be_repeated(base: Path, tmp_path: Path) -> None:
    """The base is copied; what a disturbed command leaves is compared with an undisturbed one."""
    # Disks and signals have tests of their own.
    code = """
base, place = map(Path, sys.argv[1:])
rng = np.random.default_rng(3)
for trial in disturbances(base, ("kills", "writers"), ["capture"], 1, rng, place):
    print(trial.kind, trial.problem)
"""
    lines = in_new_process(code, base, tmp_path / "p").splitlines()
    assert [line.strip() for line in lines] == ["kills", "writers"]


def test_table_counts_what_went_wrong() -> None:
    table = table_of([Trial("flips", "a", ""), Trial("flips", "b", "missed")])
    assert "| flips | 2 | 1 | 1 |" in table
