"""Interventions on runs and recordings from Python."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attnscope.commands.main import main
from attnscope.files import read_json
from attnscope.interventions import InterventionSetup, run_experiments, study
from attnscope.interventions.few_images import fewest_changes
from attnscope.interventions.plan import Timing
from attnscope.interventions.run import intervene, plan_interventions
from attnscope.recording.outcomes import Outcomes, read_outcomes
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from tests.folding.runs import make_run, untrained, write_digits
from tests.interventions.test_resuming import stopped_after
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


def test_the_number_of_images_follows_from_the_time_and_then_from_the_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """80 images are recorded, of which 40 can be scored."""
    options = {"seed": 3, "device": "cpu", "progress": False, "experiments": ["replace"]}
    options |= {"edits": "mean"}
    out = tmp_path / "out"
    gates = [gate.name for gate in run.recording().gates]
    # A complete forward and one from each of four gates on and from all: a second each.
    slow = Timing(1.0, 1.0, dict.fromkeys(gates, 0.0))
    monkeypatch.setattr("attnscope.interventions.run.time_network", lambda setup: slow)
    plan = plan_interventions(run, **{k: v for k, v in options.items() if k != "progress"}, out=out)
    assert plan.images == 20  # the fewest, although 3 minutes hold none
    assert "20 instead of 40" in plan.notes[0]
    needed = fewest_changes(12)  # accuracy and log loss of four gates, a block and all together
    assert needed != fewest_changes(6)
    assert f"at least {ceil(100 * needed / 20)} points" in plan.notes[1]
    assert not out.exists()
    # 40 seconds for the verification of a batch of 40, and then 6 seconds for each image.
    within = plan_interventions(
        run, experiments="replace", edits="mean", seed=3, minutes=6, out=out
    )
    count = (6 * 60 - 40 * 5) // 6
    assert within.images == pytest.approx(count, abs=5)  # a stratified sample has about as many
    assert f"{count} instead of 40" in within.notes[0]
    (cost,) = within.costs
    assert cost.forwards == within.images * (6 + 5)
    assert cost.seconds == cost.whole == cost.forwards

    found = intervene(run, minutes=6, out=out, **options)
    assert found.about["images"] == within.images
    assert found.about["requested_images"] == count
    # Later calls score the same images, whatever the network takes by then.
    again = intervene(run, out=out, **options, images=None)
    assert again.about == found.about
    assert intervene(run, out=out, **{**options, "edits": "neutral"}).about["images"] == len(
        again.replacement[again.replacement["edit"] == "own"]
    )
    with refused("AS811"):
        intervene(run, out=out, images=40, **options)
    assert str(plan_interventions(run, experiments="replace", edits="mean", seed=3, out=out)) == (
        "every experiment is finished"
    )
    about = read_json(out / "about.json")
    del about["requested_images"]  # as version 0.1 wrote it
    for images in (found.about["images"], 7):
        (out / "about.json").write_text(json.dumps({**about, "images": images}))
        if images == 7:
            with refused("AS811", names=("7", "--images")):
                intervene(run, out=out, **options)
    for minutes in (0, -1, float("nan")):
        with refused("AS826", names=(minutes,)):
            intervene(run, minutes=minutes, out=out, **options)
    with refused("AS823", names=("cut",)):
        intervene(run, out=out, **{**options, "edits": ["cut"]})


def test_options_of_an_experiment_that_is_not_run_are_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with refused("AS828", names=("--seed-runs", "randomize")):
        intervene(run, seed_runs=[run], out=out, **OPTIONS)
    with refused("AS828", names=("--edits", "replace")):
        intervene(run, experiments=["erase"], edits=["mean"], out=out, **OPTIONS)
    assert not out.exists()


def test_a_call_continues_with_the_images_of_an_interrupted_one(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"experiments": ["replace"], "edits": ["mean"], "device": "cpu", "seed": 3}
    out = tmp_path / "out"
    with stopped_after(3), pytest.raises(KeyboardInterrupt):
        intervene(run, out=out, images=20, batch_size=7, **options)
    printed = capsys.readouterr().err
    assert printed.startswith("replace: 20 images, ")
    found = intervene(run, out=out, batch_size=7, **options)
    assert "replace: continues" in capsys.readouterr().err
    whole = intervene(run, out=tmp_path / "whole", images=20, batch_size=7, **options)
    expect_equal(found, whole)
    np.testing.assert_array_equal(found.logits, whole.logits)
    assert capsys.readouterr().out == ""


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
