"""What a folder of runs contains, compared with what was written into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnscope.dashboard import inventory
from attnscope.dashboard.inventory import Entry, list_entries, read_accuracy
from attnscope.files import is_locked, locked, write_json
from attnscope.recording.recording import Recording
from tests.making import refused
from tests.recording.making import make_arrays, write

Maker = Callable[..., Recording]
MODEL = {"name": "resnet18", "attention": "cbam", "width": 16}


def listed(root: Path) -> dict[str, Entry]:
    found = list_entries(root)
    assert [entry.label for entry in found] == sorted(entry.label for entry in found)
    return {entry.label: entry for entry in found}


def make_run(folder: Path, *files: str, **config: object) -> Path:
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"data": "digits", "seed": 3, "classes": ["a"], **config})
    write_json(folder / "model.json", MODEL)
    for name in files:
        (folder / name).write_text("{}")
    return folder


def test_a_recording_is_described_by_its_manifest(make_recording: Maker, tmp_path: Path) -> None:
    recording = make_recording("cbam", count=50, shard=20)
    (entry,) = list_entries(tmp_path)
    assert entry == inventory.Entry(
        "cbam/test", recording.folder, tmp_path / "cbam", inventory.WHOLE,
        data="made by the test", split="test", images=50, classes=3, gates=4,
        changed=(recording.folder / "manifest.json").stat().st_mtime, size=entry.size,
    )  # fmt: skip
    shards = recording.folder.glob("shards/*/*")
    files = [*(f for f in shards if f.suffix != ".json"), recording.folder / "manifest.json"]
    assert entry.size == sum(file.stat().st_size for file in files)
    assert entry.can_be_opened


def test_the_labels_are_those_of_recordings_in_and_outside_runs(tmp_path: Path) -> None:
    write(tmp_path / "alone")
    write(tmp_path / "run/recordings/validation")
    assert list(listed(tmp_path)) == ["alone", "run/validation"]
    assert list(listed(tmp_path / "run")) == ["run/validation"]
    (entry,) = list_entries(tmp_path / "alone")
    assert (entry.label, entry.run) == ("alone", None)
    (entry,) = list_entries(tmp_path / "run/recordings/validation")
    assert (entry.label, entry.run) == ("validation", None), "the run lies outside"


def test_the_accuracy_is_that_of_the_recording(make_recording: Maker) -> None:
    recording = make_recording(accuracy=0.6, count=77)
    assert read_accuracy(recording.folder) == np.mean(recording.predictions == recording.labels)


def test_a_recording_without_labels_has_no_accuracy(tmp_path: Path) -> None:
    folder = write(tmp_path / "alone", make_arrays(), label_kind="none")
    assert np.isnan(read_accuracy(folder))


@pytest.mark.parametrize("name", ["arrays.safetensors", "rows.parquet"])
@pytest.mark.parametrize("how", ["removed", "empty"])
def test_a_missing_or_empty_file_is_damage(
    name: str, how: str, make_recording: Maker, tmp_path: Path
) -> None:
    recording = make_recording("cbam")
    file = recording.folder / "shards/00001" / name
    file.unlink()
    if how == "empty":
        file.touch()
    (entry,) = list_entries(tmp_path)
    assert entry.state == inventory.DAMAGED
    assert str(file) in entry.note
    assert entry.note.endswith("[AS606]")
    assert entry.can_be_opened, "the manifest says what is there"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"format": 99}, "AS602"),
        ({"kind": "moments"}, "AS603"),
        ({"gates": 7}, "AS604"),
        ({"count": 1}, "AS604"),
        ({"gates": [{"kind": "nothing", "grid": None}]}, "AS604"),
        ({"about": 1}, "AS604"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_damage_with_its_own_line(
    change: dict[str, object], code: str, make_recording: Maker, tmp_path: Path
) -> None:
    file = make_recording("cbam").folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest.pop("checksum", None)
    file.write_text(json.dumps({**manifest, **change}))
    (entry,) = list_entries(tmp_path)
    assert entry.state == inventory.DAMAGED
    assert entry.note.endswith(f"[{code}]")
    assert not entry.can_be_opened
    with refused(code):
        Recording(file.parent)


def test_a_manifest_is_read_again_when_it_has_changed(
    make_recording: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_recording("cbam")
    read = []
    read_json = inventory.read_json
    monkeypatch.setattr(inventory, "read_json", lambda file: read.append(file) or read_json(file))
    assert listed(tmp_path)["cbam/test"].images == 60
    del read[:]
    assert listed(tmp_path)["cbam/test"].images == 60
    assert read == []
    shutil.rmtree(tmp_path / "cbam")
    make_recording("cbam", count=30)
    assert listed(tmp_path)["cbam/test"].images == 30
    assert len(read) == 1


def test_a_run_without_a_recording_is_listed_with_its_state(tmp_path: Path) -> None:
    trained = make_run(tmp_path / "trained", "model.safetensors", "result.json")
    make_run(tmp_path / "folded", "model.safetensors", "fold.json")
    make_run(tmp_path / "stopped", "checkpoint.safetensors")
    busy = make_run(tmp_path / "busy")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    with locked(tmp_path / ".busy.lock"):
        found = listed(tmp_path)
    assert {label: entry.state for label, entry in found.items()} == {
        "broken": inventory.DAMAGED,
        "busy": inventory.TRAINING,
        "folded": inventory.NOT_RECORDED,
        "stopped": inventory.INTERRUPTED,
        "trained": inventory.NOT_RECORDED,
    }
    assert not any(entry.can_be_opened for entry in found.values())
    entry = found["trained"]
    assert (entry.network, entry.data, entry.seed) == ("resnet18 cbam", "digits", 3)
    assert (entry.run, entry.folder) == (trained, trained)
    assert listed(busy)["busy"].state == inventory.INTERRUPTED


def test_a_run_with_a_recording_is_not_listed_twice(make_recording: Maker, tmp_path: Path) -> None:
    recording = make_recording("cbam")
    for name in ("config.json", "model.safetensors", "result.json"):
        (recording.folder.parents[1] / name).write_text("{}")
    assert list(listed(tmp_path)) == ["cbam/test"]


@pytest.mark.parametrize("place", ["cbam/recordings", "."])
def test_a_recording_that_is_being_written_is_growing(place: str, tmp_path: Path) -> None:
    (tmp_path / "cbam").mkdir()
    (tmp_path / "cbam/config.json").write_text("{}")
    partial = tmp_path / place / ".test.partial"
    for shard in ("00000", "00001", ".00002.partial"):
        (partial / "shards" / shard).mkdir(parents=True)
    plan = {"about": {"source": "digits", "split": "test", "model": MODEL}}
    write_json(partial / "plan.json", {**plan, "images": 100, "images_a_shard": 32})
    label = "cbam/test" if place != "." else "test"
    with locked(partial.with_name(".test.lock")):
        entry = listed(tmp_path)[label]
        assert entry.state == inventory.GROWING
        assert "64 of 100 images" in entry.note
        assert (entry.network, entry.data, entry.split) == ("resnet18 cbam", "digits", "test")
        assert entry.run == (tmp_path / "cbam" if place != "." else None)
        assert not entry.can_be_opened
    assert listed(tmp_path)[label].state == inventory.INTERRUPTED


def test_asking_for_a_lock_does_not_take_it(tmp_path: Path) -> None:
    file = tmp_path / ".run.lock"
    assert not is_locked(file)
    assert not file.exists()
    with locked(file):
        assert is_locked(file)
        assert is_locked(file)
    file.touch()
    assert not is_locked(file), "a killed process left it"
    with locked(file):
        pass


def test_nothing_outside_the_folder_is_listed(make_recording: Maker, tmp_path: Path) -> None:
    outside = make_recording("outside").folder
    make_run(tmp_path / "elsewhere", "model.safetensors", "result.json")
    here = tmp_path / "here"
    (here / "run").mkdir(parents=True)
    os.symlink(outside, here / "linked")
    os.symlink(tmp_path / "elsewhere", here / "run-linked")
    os.symlink(tmp_path / "elsewhere/config.json", here / "run/config.json")
    partial = tmp_path / "growing"
    partial.mkdir()
    write_json(partial / "plan.json", {"about": {"source": "secret"}, "images": 1})
    os.symlink(partial, here / ".grown.partial")
    found = listed(here)
    assert {label: entry.state for label, entry in found.items()} == {
        "linked": inventory.DAMAGED,
        "run": inventory.DAMAGED,
    }
    assert "AS607" in found["linked"].note
    assert not any(entry.data for entry in found.values())


def test_an_empty_folder_has_nothing_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    assert list_entries(tmp_path) == []
    with refused("AS620", names=(tmp_path / "missing",)):
        list_entries(tmp_path / "missing")
