"""Commands on images that are decoded as they are needed write what they write in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from attnscope.commands.main import main
from attnscope.data import images as images_module
from attnscope.data import tasks, workers
from attnscope.data.streamed import StreamedImages
from attnscope.files import read_json
from attnscope.training.loop import TrainingLoop
from tests.capturing.known import Color
from tests.making import refused_command

WAYS = ("memory", "streamed")
TRAIN = (
    *(
        "train",
        "--attention",
        "cbam",
        "--placement",
        "stage",
        "--stem",
        "imagenet",
        "--width",
        "16",
        "--epochs",
        "2",
    ),
    *("--batch-size", "16", "--accumulate", "2", "--seed", "3", "--device", "cpu"),
    *("--precision", "fp32", "--monitor", "--monitor-every", "2", "--image-size", "24"),
)
TIMED = {"seconds", "seconds_per_step", "images_per_second"}


def two() -> Color:
    """Make a network of two classes."""
    return Color(classes=2)


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise of different brightness: 72 training and 44 test images."""
    root, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for split, count in (("train", 36), ("test", 22)):
        for name, level in (("dark", 90), ("light", 140)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(level, 60, (30 + i % 3, 28, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    return root


def stream(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ATTNSCOPE_IMAGE_MEMORY", "0")
    patch.setenv("ATTNSCOPE_IMAGE_WORKERS", "2")
    patch.setattr(workers, "_FEW", 0)
    patch.setattr(tasks, "_TASK_IMAGES", 5)


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each way, with recordings of all splits, interventions and a folded network."""
    root = tmp_path_factory.mktemp("runs")
    for way in WAYS:
        with pytest.MonkeyPatch.context() as patch:
            if way == "streamed":
                stream(patch)
            folder = root / way / "run"  # one name, which recordings store
            run(*TRAIN, "--data", f"folder:{photos}", "--out", folder)
            for split in ("train", "validation", "test"):
                run("capture", folder, "--split", split, "--shard-images", "16", "--batch-size", 8)
            run("intervene", folder, "--experiments", "replace", "--images", "6")
            run("fold", folder, "--tolerance", "100", "--out", root / way / "folded")
    return root


def contents(folder: Path) -> dict[str, Path]:
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def without_times(file: Path) -> Any:
    """Return what a file of a run says, without times and paths."""
    if file.suffix == ".json":
        found = read_json(file)
        return {k: v for k, v in found.items() if k not in {*TIMED, "images"}}
    lines = [line.split(",") for line in file.read_text().splitlines()]
    kept = [i for i, name in enumerate(lines[0]) if name not in TIMED]
    return [[line[i] for i in kept] for line in lines]


def test_the_run_is_the_same(runs: Path) -> None:
    memory, streamed = (contents(runs / way / "run") for way in WAYS)
    assert memory.keys() - {n for n in memory if "tensorboard" in n} == streamed.keys() - {
        n for n in streamed if "tensorboard" in n
    }
    for name in ("model.safetensors", "training_images.safetensors", "model.json"):
        assert memory[name].read_bytes() == streamed[name].read_bytes(), name
    for name in ("metrics.csv", "config.json", "result.json"):
        assert without_times(memory[name]) == without_times(streamed[name]), name
    a, b = (
        [
            {**json.loads(line), "seconds": 0, "since": 0}
            for line in found["gates.jsonl"].read_text().splitlines()
        ]
        for found in (memory, streamed)
    )
    assert a == b
    assert len(a) > 3
    assert "images" not in read_json(memory["config.json"])
    assert read_json(streamed["config.json"])["images"] == "streamed"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_file_of_a_recording_is_the_same(runs: Path, split: str) -> None:
    memory, streamed = (contents(runs / way / "run" / "recordings" / split) for way in WAYS)
    assert list(memory) == list(streamed)
    assert len([name for name in memory if "shard" in name]) > 1
    for name, file in memory.items():
        if name != "manifest.json":
            assert file.read_bytes() == streamed[name].read_bytes(), name
    a, b = (read_json(found["manifest.json"]) for found in (memory, streamed))
    assert b.pop("images") == "streamed"
    for manifest in (a, b):
        del manifest["source"]  # has the path of the run
    assert a == b


def test_interventions_and_the_folded_network_are_the_same(runs: Path) -> None:
    memory, streamed = (contents(runs / way / "run" / "interventions") for way in WAYS)
    tables = [name for name in memory if name.endswith((".csv", ".parquet"))]
    assert len(tables) >= 1
    for name in tables:
        assert memory[name].read_bytes() == streamed[name].read_bytes(), name
    a, b = (load_file(runs / way / "folded" / "model.safetensors") for way in WAYS)
    assert a.keys() == b.keys()
    assert all((a[name] == b[name]).all() for name in a)


def test_a_run_and_a_recording_are_resumed_the_other_way(
    runs: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are stopped while images are in memory, and continued while they are streamed."""
    step, taken = TrainingLoop.step, []

    def stop_in_second_epoch(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    command = (*TRAIN, "--data", f"folder:{photos}", "--out", tmp_path / "run", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "step", stop_in_second_epoch)
        assert main([str(word) for word in command]) == 130
    with monkeypatch.context() as patch:
        stream(patch)
        run(*command)
    expected = runs / "memory" / "run"
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert weights == (expected / "model.safetensors").read_bytes()

    capture = ("capture", expected, "--shard-images", 16, "--batch-size", 8)
    capture = (*capture, "--out", tmp_path / "recording")
    read, batches = images_module.LabeledImages.read, []

    def fail_later(self: Any, rows: Any) -> Any:
        batches.append(1)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return read(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(images_module.LabeledImages, "read", fail_later)
        assert main([str(word) for word in capture]) == 130
    partial = next(tmp_path.glob(".recording.partial"))
    assert len(list(partial.glob("shards/*"))) >= 1
    with monkeypatch.context() as patch:
        stream(patch)
        run(*capture)
    made = contents(tmp_path / "recording")
    for name, file in contents(expected / "recordings" / "test").items():
        if name != "manifest.json":
            assert made[name].read_bytes() == file.read_bytes(), name


def test_images_are_never_decoded_all_at_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(monkeypatch)
    read: list[int] = []
    original = StreamedImages._empty

    def noted(self: StreamedImages, count: int) -> Any:
        read.append(count)
        return original(self, count)

    monkeypatch.setattr(StreamedImages, "_empty", noted)
    network = ("--model", "tests.commands.test_streaming:two", "--data", f"folder:{photos}")
    run("capture", *network, "--image-size", 24, "--batch-size", 8, "--out", tmp_path / "made")
    run(*TRAIN, "--data", f"folder:{photos}", "--out", tmp_path / "run")
    assert max(read) <= 44, "the test split, which is one batch; the training split is larger"
    assert sum(read) > 200


def test_a_file_that_vanishes_during_a_training_is_one_line(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream(monkeypatch)
    step, taken = TrainingLoop.step, []
    victim = photos / "test" / "dark" / "0.jpg"
    content = victim.read_bytes()

    def remove(*arguments: Any) -> Any:
        taken.append(1)
        victim.unlink(missing_ok=True)
        return step(*arguments)

    monkeypatch.setattr(TrainingLoop, "step", remove)
    words = (*TRAIN, "--data", f"folder:{photos}", "--out", tmp_path / "run")
    try:
        refused_command(capsys, "AS243", *words, names=("test/dark/0.jpg",))
    finally:
        victim.write_bytes(content)
    assert len(taken) > 1, "the training ended, and its test split could not be read"
