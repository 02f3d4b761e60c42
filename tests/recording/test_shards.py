"""A folder of shards is whole or hidden, is one capture's, and has one writer.

More than 400 lines, since all of it is about one state: the folder that is being written.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from attnscope.errors import InputError
from attnscope.files import locked
from attnscope.recording import partial
from attnscope.recording import writer as shards
from attnscope.recording.recording import Recording, RecordingWriter
from tests.recording.making import CLASSES, GATES, SIZES, flip, make_arrays, make_rows

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


def half(folder: Path, order: tuple[int, ...] = (0, 1), **changed: Any) -> Path:
    """A capture that failed after some shards; the hidden folder that it left."""

    def fail() -> None:
        with writer(folder, **changed) as to:
            for index in order:
                add(to, index)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    return folder.with_name(f".{folder.name}.partial")


def go_on(folder: Path, **changed: Any) -> Path:
    """As a capture does: what is not there yet is added."""
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
def test_whatever_comes_first_the_order_is_that_of_the_images(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", order)
    assert contents(a) == contents(b)
    assert Recording(b).rows["path"].tolist() == make_rows(make_arrays())["path"].tolist()


def test_it_goes_on_where_whole_shards_end(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    partial = half(tmp_path / "r")
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
    ("changed", "said"),
    [
        ({"identity": {"weights": "cd" * 32, "batch_size": 4}}, "other weights"),
        ({"identity": {"weights": "ab" * 32, "batch_size": 8}}, "batch size 4 instead of 8"),
        (
            {"identity": {"weights": "cd" * 32, "batch_size": 8}},
            "batch size 4 instead of 8 and other weights",
        ),
        ({"identity": None}, "other batch size and other weights"),
        ({"about": {"name": "toy", "precision": "bf16"}}, "precision fp32 instead of bf16"),
        ({"classes": ["a", "b", "c"]}, "other classes"),
        ({"grad_cam_layers": []}, "other grad cam layers"),
    ],
)
def test_another_plan_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    partial = half(tmp_path / "r")
    before = contents(partial)
    with pytest.raises(InputError) as caught, writer(tmp_path / "r", **changed):
        pass
    assert str(caught.value) == (
        f"{partial} was begun with {said}; capture as it was begun, or remove that folder to begin "
        "anew"
    )
    assert contents(partial) == before
    assert contents(write(tmp_path / "r")) == contents(write(tmp_path / "whole"))


def test_what_has_no_whole_shard_stands_in_nobodys_way(tmp_path: Path) -> None:
    """Left by a kill before the first shard."""
    left = tmp_path / ".r.partial" / "shards" / ".00000.0123abcd.partial"
    left.mkdir(parents=True)
    (tmp_path / ".r.partial" / "plan.json").write_text("{}")
    (tmp_path / ".r.lock").touch()
    write(tmp_path / "r")
    assert names(tmp_path) == ["r"]
    assert Recording(tmp_path / "r").verify() == []


def test_two_at_once(tmp_path: Path) -> None:
    with writer(tmp_path / "r") as to:
        for index in range(3):  # before the first shard is whole as well as later
            with pytest.raises(InputError) as caught, writer(tmp_path / "r"):
                pass
            assert str(caught.value) == (
                f"another capture is writing {tmp_path / 'r'}; wait for it, or take another folder"
            )
            add(to, index)
    assert contents(tmp_path / "r") == contents(write(tmp_path / "whole"))


def test_a_lock_is_of_one(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()  # what a killed process leaves locks nothing
    with locked(file):
        with pytest.raises(BlockingIOError), locked(file):
            pass
        assert file.exists()
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be locked"), locked(tmp_path / "file" / "lock"):
        pass


@pytest.mark.parametrize("another", [False, True])
def test_a_lock_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """Its holder ended between our opening the file and our locking it, or another one began."""
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
def test_a_shard_of_another_recording_is_not_joined(tmp_path: Path, place: str) -> None:
    """Whether it is looked at before the work, or first where all are joined."""
    other = write(tmp_path / "other", about={"name": "other"})
    partial = half(tmp_path / "r")
    shutil.rmtree(partial / "shards" / place, ignore_errors=True)
    shutil.copytree(other / "shards" / "00000", partial / "shards" / place)
    with pytest.raises(InputError) as caught:
        go_on(tmp_path / "r")
    what = f"{partial / 'shards' / place} is a shard of another recording"
    assert str(caught.value) == (
        f"{what}; remove {partial / 'shards' / place} and start the same command again"
    )
    shutil.rmtree(partial / "shards" / place)
    assert contents(go_on(tmp_path / "r")) == contents(write(tmp_path / "whole"))


def test_a_shard_in_anothers_place_is_refused(tmp_path: Path) -> None:
    partial = half(tmp_path / "r")
    (partial / "shards/00001").rename(partial / "shards/00002")
    with pytest.raises(InputError, match="00002 is a shard of another recording"):
        go_on(tmp_path / "r")


@pytest.mark.parametrize("file", ["arrays.safetensors", "rows.parquet"])
def test_a_flipped_byte_is_found_before_going_on(tmp_path: Path, file: str) -> None:
    partial = half(tmp_path / "r")
    flip(partial / "shards/00001" / file, -3)
    with pytest.raises(InputError) as caught:
        go_on(tmp_path / "r")
    shard = partial / "shards/00001"
    assert str(caught.value) == (
        f"{shard / file} has changed since it was written (SHA-256); remove {shard} and start the "
        "same command again"
    )


@pytest.mark.parametrize("content", [None, "", "[]", '{"of": 1}', '{"of": "x", "index": 1}'])
def test_a_shard_that_says_nothing_of_itself_is_refused(
    tmp_path: Path, content: str | None
) -> None:
    file = half(tmp_path / "r") / "shards/00001/shard.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(InputError, match="00001 is no shard of a recording; remove"):
        go_on(tmp_path / "r")


def test_a_gap_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shards/00001 is missing; start the same command"):
        write(tmp_path / "r", (0, 2))
    (tmp_path / ".r.partial/plan.json").unlink()
    with pytest.raises(InputError, match="holds shards without a plan"):
        go_on(tmp_path / "r")


# --- several processes, as threads ----------------------------------------------------------------


def test_three_processes_fill_one_folder(tmp_path: Path) -> None:
    """They are started in any order, and meet in the folder."""
    failed: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            with writer(tmp_path / "r", rank=rank, processes=3) as to:
                add(to, 2 - rank)
                to.wait_for(3)
            assert (tmp_path / "r" / "manifest.json").is_file(), "each returns when all is there"
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


def test_a_process_of_several_that_fails_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a shard would fill the disk of the others; their own half shards are not touched."""
    half(tmp_path / "r")
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

    with pytest.raises(OSError, match="2 whole shards stay in"):
        fill()
    assert names(other.parent) == [other.name, "00000", "00001"]


def test_a_process_that_comes_when_all_is_done_has_nothing_to_do(tmp_path: Path) -> None:
    write(tmp_path / "r")
    with writer(tmp_path / "r", rank=1, processes=2) as to:
        assert to.has(2)
    with pytest.raises(InputError, match="was begun with other classes"):
        with writer(tmp_path / "r", rank=1, processes=2, classes=["a", "b", "c"]):
            pass


def test_another_process_refuses_another_plan(tmp_path: Path) -> None:
    partial = half(tmp_path / "r")
    with pytest.raises(InputError, match="batch size 4 instead of 8"):
        with writer(
            tmp_path / "r", identity={"weights": "ab" * 32, "batch_size": 8}, rank=1, processes=2
        ):
            pass
    assert names(partial / "shards") == ["00000", "00001"]


def test_a_process_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(partial, "_SPEAK", 0.0)
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

    with pytest.raises(KeyboardInterrupt, match="1 whole shard stays"):
        wait()
    line = "attnscope: waiting for 2 of 3 shards of other processes, first 00001"
    assert set(capsys.readouterr().err.splitlines()) == {line}
    polls.clear()
    with pytest.raises(KeyboardInterrupt):
        with writer(tmp_path / "s", rank=1, processes=2):
            pass
    assert "waiting for the first process" in capsys.readouterr().err
    assert names(tmp_path) == [".r.partial"]


# --- verify ---------------------------------------------------------------------------------------


def test_verify_finds_what_is_no_part_of_it(tmp_path: Path) -> None:
    folder, other = write(tmp_path / "r"), write(tmp_path / "other", about={"name": "other"})
    assert Recording(folder).verify() == []
    extra = folder / "shards" / "00003"
    shutil.copytree(other / "shards/00000", extra)
    assert Recording(folder).verify() == [f"{extra} is no shard of this recording"]
    shutil.rmtree(extra)
    shutil.rmtree(folder / "shards/00001")
    shutil.copytree(other / "shards/00001", folder / "shards/00001")
    (line,) = Recording(folder).verify()
    assert line == f"{folder / 'shards/00001'} is a shard of another recording"


def test_verify_finds_a_plan_that_was_changed(tmp_path: Path) -> None:
    folder = write(tmp_path / "r")
    plan = folder / "plan.json"
    plan.write_text(plan.read_text().replace("ab", "cd"))
    assert Recording(folder).verify() == [f"{plan} has changed since it was written (SHA-256)"]
    plan.unlink()
    assert Recording(folder).verify() == [f"{plan} is missing (No such file or directory)"]


def test_verify_holds_the_manifest_to_the_plan(tmp_path: Path) -> None:
    """The plan's hash is kept, but the manifest is what is read."""
    folder = write(tmp_path / "r")
    (folder / "shards" / ".DS_Store").write_bytes(b"what systems leave behind")
    assert Recording(folder).verify() == []
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    for key, value in (("classes", manifest["classes"][::-1]), ("about", {"name": "other"})):
        file.write_text(json.dumps({**manifest, key: value}))
        assert Recording(folder).verify() == [f"{file} has other {key} than were captured"]


def test_shards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    to = writer(tmp_path / "r")
    with to:
        for name in ("100000", "00002", "10001", "99999"):
            (to._partial.shards / name).mkdir(parents=True)
        assert [path.name for path in to._partial.whole()] == ["00002", "10001", "99999", "100000"]
        for path in to._partial.whole():
            path.rmdir()
        add(to, 0)


def test_a_recording_from_before_is_opened_and_verified(tmp_path: Path) -> None:
    """It has no kind, no identity and no plan."""
    folder = write(tmp_path / "r")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["id"], manifest["kind"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "plan.json").unlink()
    for shard in (folder / "shards").iterdir():
        (shard / "shard.json").unlink()
    assert Recording(folder).verify() == []
    assert len(Recording(folder)) == 8


def test_the_hidden_folder_lies_beside(tmp_path: Path) -> None:
    """So that the last rename stays on one file system."""
    seen = []
    with writer(tmp_path / "runs" / "a" / "r") as to:
        add(to, 0)
        seen = names(tmp_path / "runs" / "a")
    assert seen == [".r.lock", ".r.partial"]
    assert os.listdir(tmp_path / "runs" / "a") == ["r"]
