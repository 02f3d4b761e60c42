"""Outcomes of interventions that are missing or damaged are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from tests.making import refused


def test_missing_and_damaged_outcomes_are_refused(
    make_recording: Callable[..., Recording],
    add_interventions: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = add_interventions(make_recording("cbam"))
    outcomes = read_outcomes(folder)
    assert outcomes.experiments == ["decode", "replace"]
    with refused("AS630", names=("cbam", "ablation", "attnscope intervene")):
        outcomes.table("ablation")
    with refused("AS631", names=(tmp_path,)):
        read_outcomes(tmp_path)
    (folder / "replacement.parquet").write_bytes(b"not Parquet")
    with refused("AS632", names=(folder,)):
        read_outcomes(folder)
