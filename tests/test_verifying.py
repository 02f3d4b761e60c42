"""Verification of runs, recordings, moments and folders of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save

from analysis.attack import time_limit
from attnscope.commands.main import main
from attnscope.data.fingerprints import Fingerprints, write_fingerprints
from attnscope.files import write_json, write_sealed
from attnscope.hashes import write_hashes
from attnscope.integrity import sealed_arrays
from attnscope.recording.masking import add_masks
from attnscope.recording.outcomes import Outcomes, outcomes_folder, write_outcomes
from attnscope.recording.places import masks_file
from attnscope.recording.recording import Recording
from attnscope.run_config import expect_unchanged
from attnscope.verifying import Verified, verify
from tests.making import lock_folders, refused, refused_command
from tests.recording.making import flip, found_problems, write

Make = Callable[..., Recording]
ARCHIVE = Path(__file__).parent / "compatibility/v0.1.tar.xz"
FILES = ("config.json", "model.json", "model.safetensors", "metrics.csv", "gates.jsonl")
"""Files of a run whose content does not matter here."""


def add_masks_of_a_half(recording: Recording, folder: Path) -> Path:
    """Give the images masks; return the file that stores them."""
    half = np.zeros(recording.pictures(slice(0, 1)).shape[1:3], np.uint8)
    half[:, : half.shape[1] // 2] = 1
    folder.mkdir(exist_ok=True)
    for path in recording.rows["path"]:
        Image.fromarray(half).save(folder / f"{Path(path).stem}.png")
    add_masks(recording, folder)
    return masks_file(recording.folder)


def add_outcomes(recording: Recording) -> Path:
    table = pd.DataFrame({"gate": ["a", "b"], "balanced_accuracy": [0.25, 0.75]})
    about = {"name": "toy", "recording": recording.id, "experiments": ["decode"]}
    folder = outcomes_folder(recording.folder)
    write_outcomes(folder, Outcomes(about, None, {"decoding": table}))
    return folder


@pytest.fixture
def run(make_recording: Make, tmp_path: Path) -> Path:
    """A finished run with a recording, interventions and masks."""
    recording = make_recording(count=6)
    run = recording.folder.parents[1]
    add_outcomes(recording)
    add_masks_of_a_half(recording, tmp_path / "masks")  # the size of images is not in this run
    for name in FILES:
        (run / name).write_text(f'"what {name} holds"\n')
    write_fingerprints(
        run / "images.parquet", {"test": Fingerprints(["a"], ["cat"], np.ones(1, np.uint64))}
    )
    write_hashes(run, {"result.json": b"{}\n"})
    (run / "result.json").write_text("{}\n")
    return run


def contents(found: list[Verified], folder: Path) -> dict[str, str]:
    """Where -> what is intact there; nothing is wrong or unchecked."""
    assert [(each.problems, each.unchecked) for each in found] == [((), "")] * len(found)
    return {str(each.folder.relative_to(folder)): each.content for each in found}


def test_a_run_is_verified_with_everything_in_it(run: Path) -> None:
    assert contents(verify(run), run) == {
        ".": "the files of the run",
        "recordings/test": "6 images, 4 gates",
        "interventions/test": "the tables of interventions",
        "masks/test": "the masks of images",
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, "AS681") for name in (*FILES, "images.parquet", "result.json")),
        ("hashes.json", "AS119"),
        ("recordings/test/shards/00000/arrays.safetensors", "AS681"),
        ("interventions/test/decoding.csv", "AS632"),
        ("masks/test/arrays.safetensors", "AS696"),
    ],
)
def test_a_flipped_bit_in_a_run_is_found_where_it_is(run: Path, name: str, code: str) -> None:
    flip(run / name, (run / name).stat().st_size // 2)
    damaged = [each for each in verify(run) if each.problems]
    assert len(damaged) == 1
    found_problems(list(damaged[0].problems), (code, run / name))
    assert (run / name).is_relative_to(damaged[0].folder)


@pytest.mark.parametrize("name", ["../outside", "/dev/zero", "recordings/../config.json", "..", ""])
def test_hashes_name_only_files_of_the_run(run: Path, name: str) -> None:
    """A file that someone else made must not lead out of the folder."""
    (run.parent / "outside").write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    write_sealed(run / "hashes.json", {"files": {name: digest}})
    with time_limit(20):
        found_problems(list(verify(run)[0].problems), ("AS119", run / "hashes.json"))


def test_a_missing_file_of_a_run_is_found(run: Path) -> None:
    (run / "gates.jsonl").unlink()
    found_problems(list(verify(run)[0].problems), ("AS682", run / "gates.jsonl"))


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "masks/test/arrays.safetensors", "interventions/test/about.json"),
        *("interventions/test/decoding.csv", "recordings/test/manifest.json"),
    ],
)
def test_pipes_and_links_to_outside_are_not_read(run: Path, name: str) -> None:
    file, outside = run / name, run.parent / "outside"
    file.rename(outside)
    os.mkfifo(file)
    assert any(name in problem for each in verify(run) for problem in each.problems)
    file.unlink()
    file.symlink_to(outside)
    assert any(name in problem for each in verify(run) for problem in each.problems)


def test_a_recording_may_be_named_as_masks_are(run: Path) -> None:
    (run / "recordings/test").rename(run / "recordings/test-masks")
    (run / "recordings/other-masks").mkdir()  # holds no recording
    (run / "recordings/test-masks/plan.json").write_text("{}")
    found = {str(each.folder.relative_to(run)): each.problems for each in verify(run)}
    assert "recordings/other-masks" not in found
    assert found["recordings/test-masks"]


def test_what_does_not_belong_into_a_run_is_found(run: Path) -> None:
    """Other programs that read the whole folder would wait at a pipe, or leave the folder."""
    os.mkfifo(run / "pipe")
    (run / "astray").symlink_to(run.parent)
    (run / "here").symlink_to("config.json")
    found_problems(
        list(verify(run)[0].problems), ("AS607", run / "astray"), ("AS692", run / "pipe")
    )


def test_a_recording_is_verified_with_its_masks_and_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "mine")
    add_outcomes(Recording(folder))
    file = add_masks_of_a_half(Recording(folder), tmp_path / "pictures")
    wanted = ["mine", "mine-interventions", "mine-masks"]
    assert list(contents(verify(folder), tmp_path)) == wanted
    # Others are found with it in a folder, and named as the folder is.
    shutil.copytree(folder, tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert [str(each.folder) for each in verify(".")] == [*wanted, "other"]
    flip(file, file.stat().st_size - 1)
    assert [bool(each.problems) for each in verify(".")] == [False, False, True, False]


def test_fingerprints_of_a_recording_are_checked_and_no_link(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    known = Fingerprints(["a"], ["cat"], np.ones(1, np.uint64))
    write_fingerprints(folder / "images.parquet", {"test": known})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("checksum")
    content = (folder / "images.parquet").read_bytes()
    manifest["images_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Recording(folder).verify() == []
    flip(folder / "images.parquet", 9)
    found_problems(Recording(folder).verify(), ("AS681", folder / "images.parquet"))
    (tmp_path / "aside").write_bytes(content)
    (folder / "images.parquet").unlink()
    found_problems(Recording(folder).verify(), ("AS682", folder / "images.parquet"))
    (folder / "images.parquet").symlink_to(tmp_path / "aside")
    found_problems(Recording(folder).verify(), ("AS607", folder / "images.parquet"))


def test_masks_of_an_earlier_recording_are_said_to_be_unchecked(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    add_masks_of_a_half(Recording(folder), tmp_path / "pictures")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("checksum")  # recordings of 0.1 have none
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert [(each.content, bool(each.unchecked)) for each in verify(folder)] == [
        ("8 images, 2 gates", False),
        ("the masks of images", True),
    ]


def test_what_lies_beside_untrained_recordings_is_no_recording(run: Path) -> None:
    """Interventions and masks of an untrained network lie where its recordings do."""
    (run / "config.json").rename(run / "config")
    shutil.copytree(run / "recordings/test", run / "untrained/test")
    untrained = Recording(run / "untrained/test")
    add_outcomes(untrained)
    add_masks_of_a_half(untrained, run.parent / "masks")
    (run / "config").rename(run / "config.json")
    found = contents(verify(run), run)
    assert list(found)[-3:] == [
        *("untrained/test", "untrained/test-interventions", "untrained/test-masks"),
    ]
    (run / "untrained/empty").mkdir()
    assert [str(each.folder) for each in verify(run) if each.problems] == [
        str(run / "untrained/empty")
    ]


def test_a_folder_of_runs_names_the_damaged_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copytree(run, tmp_path / "runs/good")
    shutil.copytree(run, tmp_path / "runs/hurt")
    (tmp_path / "runs/notes").mkdir()
    assert main(["verify", str(tmp_path / "runs")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    file = tmp_path / "runs/hurt/model.safetensors"
    flip(file, 3)
    refused_command(capsys, "AS962", "verify", tmp_path / "runs", names=(file,))


@pytest.mark.parametrize("name", ["recordings/test", "interventions/test", "masks/test"])
def test_a_folder_one_may_not_enter_is_not_called_empty(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lock_folders(monkeypatch, run / name)
    found = verify(run)
    assert [str(each.folder) for each in found if each.problems] == [str(run / name)]
    (problem,) = (problem for each in found for problem in each.problems)
    assert "Permission denied" in problem
    assert len(found) == 4  # the others are checked


def test_a_run_one_may_not_enter_is_not_passed_over(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_folders(monkeypatch, run)
    found_problems(list(verify(run.parent)[-1].problems), ("AS692", run, "Permission denied"))


def test_a_hidden_folder_of_runs_and_of_recordings_is_left_out(run: Path, tmp_path: Path) -> None:
    """What an interrupted command was writing begins with a dot."""
    (tmp_path / "runs").mkdir()
    shutil.copytree(run, tmp_path / "runs/good")
    shutil.copytree(run, tmp_path / "runs/.unfinished")
    recordings = tmp_path / "runs/good/recordings"
    shutil.copytree(recordings / "test", recordings / ".unfinished")
    for hidden in (tmp_path / "runs/.unfinished", recordings / ".unfinished"):
        for file in hidden.rglob("*.safetensors"):
            flip(file, 3)
    found = verify(tmp_path / "runs")
    assert len(found) == 4
    assert not any(each.problems or ".unfinished" in str(each.folder) for each in found)


def test_a_damaged_checkpoint_of_a_run_in_training_is_found(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "config.json", {})
    content = sealed_arrays(save({"weight": np.arange(4, dtype=np.float32)}))
    (run / "checkpoint.safetensors").write_bytes(b"".join(content))
    assert verify(run)[0].problems == ()
    flip(run / "checkpoint.safetensors", (run / "checkpoint.safetensors").stat().st_size - 3)
    (found,) = verify(run)
    found_problems(list(found.problems), ("AS681", run / "checkpoint.safetensors"))


def test_a_run_in_training_is_said_to_be_unfinished(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run/config.json", {})
    (found,) = verify(tmp_path / "run")
    assert (found.problems, bool(found.unchecked)) == ((), True)


def test_what_cannot_be_checked_of_a_run_of_0_1_is_said(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    run = tmp_path / "run"
    found = {str(each.folder.relative_to(run)): each for each in verify(run)}
    assert list(found) == [".", "recordings/test", "interventions/test", "moments/test"]
    assert all(not each.problems for each in found.values())
    # Recordings and moments of 0.1 have hashes; the other files do not.
    assert [bool(each.unchecked) for each in found.values()] == [True, False, True, False]
    assert "decoding.csv" in found["interventions/test"].unchecked
    (run / "model.safetensors").unlink()
    found_problems(list(verify(run)[0].problems), ("AS682", run / "model.safetensors"))
    flip(run / "moments/test/shards/00000/arrays.safetensors", 200)
    assert [bool(each.problems) for each in verify(run)] == [True, False, False, True]
    # Moments alone, too.
    assert [bool(each.problems) for each in verify(run / "moments/test")] == [True]


def test_folders_without_recordings_are_refused(tmp_path: Path) -> None:
    with refused("AS530", names=(tmp_path / "none",)):
        verify(tmp_path / "none")
    with refused("AS601", names=(tmp_path, "attnscope capture")):
        verify(tmp_path)


def test_damaged_fingerprints_of_a_run_are_not_taken_for_changed_images(run: Path) -> None:
    flip(run / "images.parquet", 9)
    with refused("AS119", names=(run / "images.parquet",)):
        expect_unchanged(run, "folder:photos", {}, allowed=True)
