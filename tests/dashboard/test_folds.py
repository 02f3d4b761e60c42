"""Folded networks are found beside the network from which they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attnscope.dashboard.folds import find_folds
from attnscope.files import write_sealed
from attnscope.recording.recording import Recording

Maker = Callable[..., Recording]
LOSSES = {
    "images": 359, "before": 0.96, "after": 0.95, "loss": 1.0, "low": -0.5, "high": 2.5,
    "at_most": 2.2, "agreement": 0.98,
}  # fmt: skip
BUILT = {
    "run": "runs/cbam", "weights_sha256": "w", "folded": {"a": "norm", "b": "map"},
    "dynamic": ["c"], "chosen": None, "validation": LOSSES, "test": LOSSES,
    "parameters": [100, 90], "stored_values": 7,
}  # fmt: skip
OTHER = {
    "recording": "captured", "folded": {"a": "before"}, "dynamic": [], "unused": ["b"],
    "chosen": {"tolerance": 0.5}, "accuracy": {**LOSSES, "loss": 0.25}, "split": "test",
    "parameters": [100, 80], "stored_values": 0, "source": {"weights": "w", "network": {}},
}  # fmt: skip


@pytest.fixture
def recording(make_recording: Maker, tmp_path: Path) -> Recording:
    recording = make_recording("cbam")
    recording.about["weights_sha256"] = "w"
    return recording


def put(folder: Path, made: object) -> None:
    folder.mkdir(exist_ok=True)
    write_sealed(folder / "fold.json", made)


def test_a_fold_is_recognized_by_the_weights(recording: Recording, tmp_path: Path) -> None:
    put(tmp_path / "moved", BUILT)
    put(tmp_path / "another", {**BUILT, "weights_sha256": "other"})
    (found,) = find_folds(tmp_path, recording)
    assert found.folder == tmp_path / "moved"
    assert (found.gates, found.total) == (("a", "b"), 3)
    assert found.tolerance is None, "nothing was tested"
    assert found.parameters == (100, 90)
    assert found.stored_values == 7
    assert found.losses is not None
    assert vars(found.losses) == {
        "split": "test",
        **{key: LOSSES[key] for key in LOSSES if key != "at_most"},
    }
    recording.about.pop("weights_sha256")
    assert find_folds(tmp_path, recording) == []


def test_a_fold_of_any_network_is_found(recording: Recording, tmp_path: Path) -> None:
    put(tmp_path / "other", OTHER)
    put(tmp_path / "unscored", {**OTHER, "accuracy": None})
    found, unscored = find_folds(tmp_path, recording)
    assert (found.gates, found.total, found.tolerance) == (("a",), 2, 0.5)
    assert found.losses is not None
    assert found.losses.loss == 0.25
    assert unscored.losses is None


def test_a_fold_that_cannot_be_read_hides_no_other(recording: Recording, tmp_path: Path) -> None:
    put(tmp_path / "good", BUILT)
    for name, text in (("a", "{"), ("b", "[]"), ("c", json.dumps({"weights_sha256": "w"}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fold.json").write_text(text)
    assert [found.folder.name for found in find_folds(tmp_path, recording)] == ["good"]


def test_no_fold_outside_the_folder_is_read(recording: Recording, tmp_path: Path) -> None:
    put(tmp_path / "outside", BUILT)
    here = tmp_path / "here"
    (here / "run").mkdir(parents=True)
    os.symlink(tmp_path / "outside", here / "linked")
    os.symlink(tmp_path / "outside/fold.json", here / "run/fold.json")
    assert find_folds(here, recording) == []
