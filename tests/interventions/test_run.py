"""Interventions on runs and recordings from Python."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from attnscope.commands.main import main
from attnscope.interventions import InterventionSetup, run_experiments, study
from attnscope.interventions.run import intervene
from attnscope.recording.outcomes import Outcomes, read_outcomes
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from tests.folding.runs import make_run, untrained, write_digits
from tests.making import refused, refused_command

OPTIONS = {"images": 20, "seed": 3, "batch_size": 7, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A captured run whose folder is not changed by the tests."""
    folder = tmp_path_factory.mktemp("runs")
    model = untrained("se", "stage")
    made = make_run(folder / "se", write_digits(folder / "digits"), model, "layer4")
    assert main(["capture", str(made)]) == 0
    return Run(made)


def expect_equal(found: Outcomes, expected: Outcomes) -> None:
    assert found.about == expected.about
    assert (found.replacement is None) == (expected.replacement is None)
    if expected.replacement is not None:
        pd.testing.assert_frame_equal(found.replacement, expected.replacement)
    assert set(found.tables) == set(expected.tables)
    for name, table in expected.tables.items():
        pd.testing.assert_frame_equal(found.tables[name], table, check_exact=False, rtol=1e-12)


def test_intervene_equals_the_experiments_on_a_setup(run: Run, tmp_path: Path) -> None:
    """For a run, a recording, and the paths of both."""
    recording = run.recording()
    setup = InterventionSetup(
        run.model().to(memory_format=torch.channels_last),
        run.split("test"),
        recording,
        normalization=run.normalization,
        images=20,
        seed=3,
        batch_size=7,
    )
    expected = run_experiments(setup, experiments=["replace"], progress=False)
    targets = [run, str(run.folder), recording, run.recording_folder("test")]
    for number, target in enumerate(targets):
        out = tmp_path / str(number)
        expect_equal(intervene(target, experiments=["replace"], out=out, **OPTIONS), expected)
        expect_equal(read_outcomes(out), expected)


def test_intervene_writes_into_the_run_and_does_not_repeat(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = intervene(run, experiments="decode", **OPTIONS)
    expect_equal(found, read_outcomes(run.interventions_folder("test")))
    kept = run.recording("test").interventions()
    assert kept is not None
    expect_equal(kept, found)
    with monkeypatch.context() as patch:
        patch.delattr(study, "decode_gates")
        expect_equal(intervene(run, experiments=["decode"], **OPTIONS), found)
    found = intervene(run, experiments=["decode", "replace"], **OPTIONS)
    assert found.about["experiments"] == ["decode", "replace"]
    with refused("AS811"):
        intervene(run, experiments=["erase"], **{**OPTIONS, "seed": 4})


def test_the_command_gives_the_outcomes_of_intervene(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--experiments", "replace", "--images", "20", "--seed", "3", "--batch-size", "7"]
    out = tmp_path / "out"
    assert main(["intervene", str(run.folder), *given, "--device", "cpu", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "20 images" in printed
    assert "4 gates" in printed
    assert str(out) in printed
    again = intervene(run, experiments=["replace"], out=tmp_path / "again", **OPTIONS)
    expect_equal(read_outcomes(out), again)
    refused_command(
        capsys, "AS813", "intervene", run.folder, "--experiments", "cut", names=("cut", "decode")
    )


def test_intervene_takes_other_seeds_as_runs_recordings_and_paths(run: Run, tmp_path: Path) -> None:
    seeds: list[Run | Recording | Path] = [run, run.recording(), run.folder]
    for seed in seeds:
        with refused("AS820", names=(run.recording().folder,)):
            intervene(
                run, experiments=["randomize"], seed_runs=[seed], out=tmp_path / "o", **OPTIONS
            )


def test_intervene_refuses_a_damaged_recording_and_other_types(run: Run, tmp_path: Path) -> None:
    recording = run.recording()
    (shard,) = {path.parent for path in recording.folder.glob("shards/*/*.json")}
    file = next(path for path in sorted(shard.iterdir()) if path.suffix != ".json")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with refused("AS824", names=(file.name, recording.folder)):
            intervene(recording, out=tmp_path / "out", **OPTIONS)
    finally:
        file.write_bytes(content)
    with pytest.raises(TypeError, match="int"):
        intervene(3, **OPTIONS)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
