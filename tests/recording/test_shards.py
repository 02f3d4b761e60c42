"""An unfinished folder of shards is hidden, belongs to one capture, and has one writer.

More than 400 lines, because all tests are about one thing: the folder that is being written.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from attnscope.files import locked, read_json
from attnscope.recording import partial
from attnscope.recording import writer as shards
from attnscope.recording.recording import Recording, RecordingWriter
from tests.making import refused
from tests.recording.making import (
    CLASSES,
    GATES,
    SIZES,
    flip,
    found_problems,
    make_arrays,
    make_rows,
)

STARTS = (0, 3, 7)


def writer(folder: Path, **changed: Any) -> RecordingWriter:
    given: dict[str, Any] = {
        "gates": GATES,
        "classes": CLASSES,
        "grad_cam_layers": ["layer1"],
        "about": {"name": "toy", "precision": "fp32"},
        "identity": {"weights": "ab" * 32, "batch_size": 4},
    }
    return RecordingWriter(folder, **{**given, **changed})


def add(to: RecordingWriter, index: int) -> None:
    arrays = make_arrays()
    piece = slice(STARTS[index], STARTS[index] + SIZES[index])
    rows = make_rows(arrays)[piece]
    to.add_shard({key: value[piece] for key, value in arrays.items()}, rows, index)


def write(folder: Path, order: tuple[int, ...] = (0, 1, 2), **changed: Any) -> Path:
    with writer(folder, **changed) as to:
        for index in order:
            add(to, index)
    return folder


def interrupted(folder: Path, order: tuple[int, ...] = (0, 1), **changed: Any) -> Path:
    """Write some shards and fail; return the hidden folder that is left."""

    def fail() -> None:
        with writer(folder, **changed) as to:
            for index in order:
                add(to, index)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    return folder.with_name(f".{folder.name}.partial")


def resume(folder: Path, **changed: Any) -> Path:
    """Add the shards that are missing, as a capture does."""
    with writer(folder, **changed) as to:
        for index in range(3):
            if not to.has(index):
                add(to, index)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_order_of_images_does_not_depend_on_order_of_arrival(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", order)
    assert contents(a) == contents(b)
    assert Recording(b).rows["path"].tolist() == make_rows(make_arrays())["path"].tolist()


def test_resume_keeps_complete_shards_and_removes_leftovers(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    partial = interrupted(tmp_path / "r")
    assert names(tmp_path) == [".r.partial", "whole"]
    (partial / "shards" / ".00002.0123abcd.partial").mkdir()
    (partial / "shards" / ".00002.0123abcd.partial" / "rows.parquet").touch()
    (partial / ".plan.json.0123abcd.partial").touch()
    with writer(tmp_path / "r") as to:
        assert [to.has(i) for i in range(3)] == [True, True, False]
        assert names(partial / "shards") == ["00000", "00001"]
        add(to, 2)
    assert contents(tmp_path / "r") == contents(whole)
    assert names(tmp_path) == ["r", "whole"]


@pytest.mark.parametrize(
    ("changed", "differences"),
    [
        ({"identity": {"weights": "cd" * 32, "batch_size": 4}}, "(weights)"),
        ({"identity": {"weights": "ab" * 32, "batch_size": 8}}, "(batch size 4, now 8)"),
        ({"identity": {"weights": "cd" * 32, "batch_size": 8}}, "(batch size 4, now 8; weights)"),
        ({"identity": None}, "(batch size; weights)"),
        ({"about": {"name": "toy", "precision": "bf16"}}, "(precision fp32, now bf16)"),
        ({"classes": ["a", "b", "c"]}, "(classes)"),
        ({"grad_cam_layers": []}, "(grad cam layers)"),
    ],
)
def test_resume_with_other_settings_is_refused(
    tmp_path: Path, changed: dict[str, Any], differences: str
) -> None:
    partial = interrupted(tmp_path / "r")
    before = contents(partial)
    with refused("AS653", names=(partial, differences)), writer(tmp_path / "r", **changed):
        pass
    assert contents(partial) == before
    assert contents(write(tmp_path / "r")) == contents(write(tmp_path / "whole"))


def test_unfinished_folder_without_a_shard_is_replaced(tmp_path: Path) -> None:
    """A capture that was killed before its first shard leaves such a folder."""
    left = tmp_path / ".r.partial" / "shards" / ".00000.0123abcd.partial"
    left.mkdir(parents=True)
    (tmp_path / ".r.partial" / "plan.json").write_text("{}")
    (tmp_path / ".r.lock").touch()
    write(tmp_path / "r")
    assert names(tmp_path) == ["r"]
    assert Recording(tmp_path / "r").verify() == []


def test_second_capture_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "r") as to:
        for index in range(3):  # before the first shard is complete, and later
            with refused("AS651", names=(tmp_path / "r",)), writer(tmp_path / "r"):
                pass
            add(to, index)
    assert contents(tmp_path / "r") == contents(write(tmp_path / "whole"))


def test_lock_has_one_holder(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()  # a file left by a killed process is not a lock
    with locked(file):
        with pytest.raises(BlockingIOError), locked(file):
            pass
        assert file.exists()
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with refused("AS115", names=(tmp_path / "file" / "lock",)), locked(tmp_path / "file" / "lock"):
        pass


@pytest.mark.parametrize("another", [False, True])
def test_lock_that_is_removed_while_it_is_taken_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """Its holder ends, or another one starts, after the file is opened and before it is locked."""
    import fcntl

    file, real, calls = tmp_path / "lock", fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            file.unlink()
            if another:
                file.touch()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(file):
        assert len(calls) == 2
        assert file.exists()


@pytest.mark.parametrize("place", ["00000", "00002", "00003", "notes"])
def test_shard_of_another_recording_is_refused(tmp_path: Path, place: str) -> None:
    """Before the work, or at the latest when all shards are listed in the manifest."""
    other = write(tmp_path / "other", about={"name": "other"})
    partial = interrupted(tmp_path / "r")
    shutil.rmtree(partial / "shards" / place, ignore_errors=True)
    shutil.copytree(other / "shards" / "00000", partial / "shards" / place)
    with refused("AS656", names=(partial / "shards" / place,)):
        resume(tmp_path / "r")
    shutil.rmtree(partial / "shards" / place)
    assert contents(resume(tmp_path / "r")) == contents(write(tmp_path / "whole"))


def test_shard_with_the_name_of_another_is_refused(tmp_path: Path) -> None:
    partial = interrupted(tmp_path / "r")
    (partial / "shards/00001").rename(partial / "shards/00002")
    with refused("AS656", names=(partial / "shards/00002",)):
        resume(tmp_path / "r")


@pytest.mark.parametrize("file", ["arrays.safetensors", "rows.parquet"])
def test_flipped_byte_is_found_on_resume(tmp_path: Path, file: str) -> None:
    partial = interrupted(tmp_path / "r")
    flip(partial / "shards/00001" / file, -3)
    shard = partial / "shards/00001"
    with refused("AS654", names=(shard / file, f"remove {shard} ")):
        resume(tmp_path / "r")


@pytest.mark.parametrize("content", [None, "", "[]", '{"of": 1}', '{"of": "x", "index": 1}'])
def test_shard_without_valid_description_is_refused(tmp_path: Path, content: str | None) -> None:
    file = interrupted(tmp_path / "r") / "shards/00001/shard.json"
    file.unlink() if content is None else file.write_text(content)
    with refused("AS655", names=(file.parent,)):
        resume(tmp_path / "r")


def test_missing_shard_or_plan_is_refused(tmp_path: Path) -> None:
    with refused("AS657", names=("shards/00001",)):
        write(tmp_path / "r", (0, 2))
    (tmp_path / ".r.partial/plan.json").unlink()
    with refused("AS652", names=(tmp_path / ".r.partial", "plan.json")):
        resume(tmp_path / "r")


# --- several processes, run as threads ----------------------------------------------------------------


def test_three_processes_write_one_folder(tmp_path: Path) -> None:
    """They start in any order, and share the folder."""
    failed: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            with writer(tmp_path / "r", rank=rank, processes=3) as to:
                add(to, 2 - rank)
                to.wait_for(3)
            assert (tmp_path / "r" / "manifest.json").is_file(), (
                "each process returns when the recording is complete"
            )
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert contents(tmp_path / "r") == contents(write(tmp_path / "whole"))
    assert names(tmp_path) == ["r", "whole"]


def test_failed_process_removes_its_own_unfinished_shard_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It frees the disk for the others, whose unfinished shards it leaves alone."""
    interrupted(tmp_path / "r")
    other = tmp_path / ".r.partial" / "shards" / ".00001.0123abcd.partial"
    other.mkdir()
    write_bytes = shards.write_bytes

    def full(file: Path, content: bytes) -> None:
        if file.name == "rows.parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_bytes(file, content)

    monkeypatch.setattr(shards, "write_bytes", full)

    def fill() -> None:
        with writer(tmp_path / "r", processes=2) as to:
            add(to, 2)

    with pytest.raises(OSError, match="2 complete shards are kept in"):
        fill()
    assert names(other.parent) == [other.name, "00000", "00001"]


def test_process_that_starts_after_the_end_has_nothing_to_do(tmp_path: Path) -> None:
    write(tmp_path / "r")
    with writer(tmp_path / "r", rank=1, processes=2) as to:
        assert to.has(2)
    with refused("AS653", names=(tmp_path / "r", "(classes)")):
        with writer(tmp_path / "r", rank=1, processes=2, classes=["a", "b", "c"]):
            pass


def test_other_processes_refuse_other_settings(tmp_path: Path) -> None:
    partial = interrupted(tmp_path / "r")
    with refused("AS653", names=(partial, "batch size 4, now 8")):
        with writer(
            tmp_path / "r", identity={"weights": "ab" * 32, "batch_size": 8}, rank=1, processes=2
        ):
            pass
    assert names(partial / "shards") == ["00000", "00001"]


def test_waiting_process_reports_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(partial, "_REPORT_SECONDS", 0.0)
    polls = []

    def sleep(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(partial.time, "sleep", sleep)

    def wait() -> None:
        with writer(tmp_path / "r", processes=2) as to:
            add(to, 0)
            to.wait_for(3)

    with pytest.raises(KeyboardInterrupt, match=re.escape(str(tmp_path / ".r.partial"))):
        wait()
    (line,) = set(capsys.readouterr().err.splitlines())
    assert "2 of 3 shards" in line
    assert "00001" in line
    polls.clear()
    with pytest.raises(KeyboardInterrupt):
        with writer(tmp_path / "s", rank=1, processes=2):
            pass
    assert "main process" in capsys.readouterr().err
    assert names(tmp_path) == [".r.partial"]


# --- verify ---------------------------------------------------------------------------------------


def test_verify_finds_additional_and_exchanged_shards(tmp_path: Path) -> None:
    folder, other = write(tmp_path / "r"), write(tmp_path / "other", about={"name": "other"})
    assert Recording(folder).verify() == []
    extra = folder / "shards" / "00003"
    shutil.copytree(other / "shards/00000", extra)
    found_problems(Recording(folder).verify(), ("AS683", extra))
    shutil.rmtree(extra)
    shutil.rmtree(folder / "shards/00001")
    shutil.copytree(other / "shards/00001", folder / "shards/00001")
    found_problems(Recording(folder).verify(), ("AS684", folder / "shards/00001"))


def test_verify_finds_a_changed_or_missing_plan(tmp_path: Path) -> None:
    folder = write(tmp_path / "r")
    plan = folder / "plan.json"
    plan.write_text(plan.read_text().replace("ab", "cd"))
    found_problems(Recording(folder).verify(), ("AS681", plan))
    plan.unlink()
    found_problems(Recording(folder).verify(), ("AS682", plan))


def test_verify_finds_where_manifest_and_plan_differ(tmp_path: Path) -> None:
    """The hash of the plan is known, but the manifest is what is read."""
    folder = write(tmp_path / "r")
    (folder / "shards" / ".DS_Store").write_bytes(b"left by an operating system")
    assert Recording(folder).verify() == []
    file = folder / "manifest.json"
    manifest = read_json(file)
    for key, value in (("classes", manifest["classes"][::-1]), ("about", {"name": "other"})):
        file.write_text(json.dumps({**manifest, key: value}))
        found_problems(Recording(folder).verify(), ("AS685", file, f"'{key}'"))


def test_shards_are_sorted_by_number(tmp_path: Path) -> None:
    to = writer(tmp_path / "r")
    with to:
        for name in ("100000", "00002", "10001", "99999"):
            (to._partial.shards / name).mkdir(parents=True)
        assert [path.name for path in to._partial.complete_shards()] == [
            "00002",
            "10001",
            "99999",
            "100000",
        ]
        for path in to._partial.complete_shards():
            path.rmdir()
        add(to, 0)


def test_recording_without_kind_id_and_plan_opens_and_verifies(tmp_path: Path) -> None:
    """Early versions wrote none of them."""
    folder = write(tmp_path / "r")
    manifest = read_json(folder / "manifest.json")
    del manifest["id"], manifest["kind"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "plan.json").unlink()
    for shard in (folder / "shards").iterdir():
        (shard / "shard.json").unlink()
    assert Recording(folder).verify() == []
    assert len(Recording(folder)) == 8


def test_hidden_folder_lies_beside_the_final_folder(tmp_path: Path) -> None:
    """The last rename then stays on one file system."""
    seen = []
    with writer(tmp_path / "runs" / "a" / "r") as to:
        add(to, 0)
        seen = names(tmp_path / "runs" / "a")
    assert seen == [".r.lock", ".r.partial"]
    assert os.listdir(tmp_path / "runs" / "a") == ["r"]
