"""What a writer refuses, and which files it leaves behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from attnscope.recording.recording import Recording, RecordingWriter
from tests.making import refused
from tests.recording.making import CLASSES, GATES, Arrays, make_arrays, make_rows, write


def test_a_recording_is_never_overwritten(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    with refused("AS113", names=(folder,)):
        write(folder)
    assert (folder / "manifest.json").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["recording"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_writer_that_fails_before_its_first_shard_leaves_no_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    writer = RecordingWriter(
        tmp_path / "run/recordings/test",
        gates=GATES,
        classes=CLASSES,
        grad_cam_layers=["layer1"],
        about={},
    )
    with pytest.raises(error), writer:
        raise error
    assert list(tmp_path.iterdir()) == []


def test_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused("AS650", names=(tmp_path / "file" / "r",)):
        write(tmp_path / "file" / "r")


def test_recording_without_images_is_refused(tmp_path: Path) -> None:
    writer = RecordingWriter(
        tmp_path / "r", gates=GATES, classes=CLASSES, grad_cam_layers=[], about={}
    )
    with refused("AS658"), writer:
        pass
    assert list(tmp_path.iterdir()) == []


def test_facts_that_are_not_json_are_refused_at_once(tmp_path: Path) -> None:
    def write(about: dict[str, object]) -> None:
        RecordingWriter(
            tmp_path / "r", gates=GATES, classes=CLASSES, grad_cam_layers=[], about=about
        )

    with pytest.raises(TypeError):
        write({"path": tmp_path})
    with refused("AS105", names=("about.loss",)):
        write({"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_at_the_manifest_keeps_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("attnscope.recording.writer.os.replace", full)
        with pytest.raises(OSError, match="No space left on device"):
            write(tmp_path / "r")
    assert list(tmp_path.iterdir()) == []
    real = os.replace

    def almost_full(source: Path, target: Path) -> None:
        if Path(target).name == "manifest.json":
            full()
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("attnscope.files.os.replace", almost_full)
        with pytest.raises(OSError, match=re.escape(f"3 complete shards are kept in {tmp_path}")):
            write(tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == [".r.partial"]
    with RecordingWriter(
        tmp_path / "r",
        gates=GATES,
        classes=CLASSES,
        grad_cam_layers=["layer1"],
        about={"name": "toy"},
    ):
        pass  # all shards are there
    assert Recording(tmp_path / "r").verify() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a.pop("gate/layer1.attention.spatial"), "gate/layer1.attention.spatial"),
        (lambda a: a.update({"logits": a["logits"][:2]}), "'logits': 2"),
        (
            lambda a: a.update(
                {"gate/layer1.attention.channel": a["gate/layer1.attention.channel"].astype("f2")}
            ),
            "gate/layer1.attention.channel",
        ),
        (lambda a: a.update({key: value[:0] for key, value in a.items()}), "0 rows"),
    ],
    ids=["gate missing", "too short", "float16 gate", "empty"],
)
def test_shard_with_wrong_arrays_is_refused(
    tmp_path: Path, change: Callable[[Arrays], object], named: str
) -> None:
    arrays = make_arrays(3)
    rows = make_rows(arrays)
    change(arrays)
    rows = rows[: len(arrays["images"])]
    writer = RecordingWriter(
        tmp_path / "r", gates=GATES, classes=CLASSES, grad_cam_layers=["layer1"], about={}
    )
    with pytest.raises(ValueError, match=named), writer:
        writer.add_shard(arrays, rows)
    assert list(tmp_path.iterdir()) == []
