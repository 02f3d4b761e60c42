"""Files and folders are written completely or not at all.

It has more than 400 lines because the tests of files, folders, outputs and locks share their helpers.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnscope.errors import InputError
from attnscope.files import (
    expect_file,
    expect_folder,
    locked,
    new_folder,
    read_json,
    refuse_existing,
    remove_leftovers,
    write_bytes,
    write_json,
)
from attnscope.layout import UNFINISHED
from attnscope.writing import growing_folder, writing
from tests.making import refused


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_json_round_trip_and_replacement(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for value in ({"猫": [1, 2.5, None, True]}, ["second"]):
        write_json(file, value)
        assert read_json(file) == value
    assert names(tmp_path) == ["a.json"]


def test_a_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"1")
        with new_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    file = tmp_path / "a"
    write_bytes(file, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the number is checked)
        write_bytes(file, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_the_content_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_bytes(tmp_path / "a", b"1")
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1', b"\xff\xfe{}", b'{"a": NaN}', b"[" * 200_000, b"9" * 5000],
    ids=["empty", "cut off", "no UTF-8", "NaN", "too deep", "too long a number"],
)
def test_invalid_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with refused("AS112", names=(file,)):
        read_json(file)


def test_missing_and_unreadable_json_is_refused(tmp_path: Path) -> None:
    with refused("AS110", names=(tmp_path / "a.json",)):
        read_json(tmp_path / "a.json")
    with refused("AS111", names=(tmp_path,)):
        read_json(tmp_path)


def test_a_new_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with new_folder(folder) as temporary:
        assert temporary.parent == folder.parent  # else the rename could cross file systems
        (temporary / "a").write_text("1")
        assert not folder.exists()
    assert names(folder.parent) == ["new"]
    assert names(folder) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_folder_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "runs" / "deep" / "new") as temporary:
            (temporary / "a").write_text("1")
            raise error

    with pytest.raises(error):
        fill()
    assert names(tmp_path) == []


def test_a_failed_folder_keeps_a_parent_that_others_use(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "runs" / "new"):
            (tmp_path / "runs" / "other").mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill()
    assert names(tmp_path / "runs") == ["other"]


def test_an_existing_path_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "dangling"):
        for attempt in (refuse_existing, lambda path: new_folder(path).__enter__()):
            with refused("AS113", names=(tmp_path / name,)):
                attempt(tmp_path / name)
    assert names(tmp_path) == ["dangling", "file", "full"]


def test_a_folder_created_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "new") as temporary:
            (temporary / "a").write_text("mine")
            (tmp_path / "new").mkdir()

    with refused("AS113", names=(tmp_path / "new",)):
        fill()
    assert names(tmp_path) == ["new"]
    assert names(tmp_path / "new") == []


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused("AS114", names=(tmp_path / "file" / "new",)):
        new_folder(tmp_path / "file" / "new").__enter__()


def _killed(code: str) -> int:
    """Run code in a process that is killed at its end; return its number."""
    script = f"import os, signal\nfrom pathlib import Path\n{code}"
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -signal.SIGKILL
    return process.returncode


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    _killed(
        "from attnscope import files\n"
        f"files.os.replace = lambda *_: {KILL}\n"
        f"files.write_bytes(Path({str(tmp_path / 'a')!r}), b'half')"
    )
    _killed(
        "from attnscope.files import new_folder\n"
        f"with new_folder(Path({str(tmp_path / 'b')!r})) as f:\n    (f / 'x').touch(); {KILL}"
    )
    assert len(names(tmp_path)) == 2
    write_bytes(tmp_path / "other", b"1")  # of another name: nothing of it is removed
    assert len(names(tmp_path)) == 3
    write_bytes(tmp_path / "a", b"whole")
    with new_folder(tmp_path / "b"):
        pass
    assert names(tmp_path) == ["a", "b", "other"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_what_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom attnscope.files import new_folder\n"
        f"with new_folder(Path({str(tmp_path / 'b')!r})):\n"
        "    print('begun', flush=True)\n    sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer:
        writer.stdout.readline()
        (begun,) = tmp_path.iterdir()
        os.utime(begun, (0, 0))  # long ago, so that only the lock protects it
        with new_folder(tmp_path / "c"):
            remove_leftovers(tmp_path)
            assert begun.exists()
        writer.stdin.close()
    assert names(tmp_path) == ["b", "c"]


def test_a_file_that_is_being_written_is_not_removed(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"first, "
        (begun,) = tmp_path.iterdir()
        os.utime(begun, (0, 0))  # long ago, so that only the lock protects it
        remove_leftovers(tmp_path)
        yield b"second"

    write_bytes(tmp_path / "a", parts())  # type: ignore[arg-type]
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"first, second"


def test_an_old_leftover_of_a_living_process_is_removed_and_a_young_one_stays(
    tmp_path: Path,
) -> None:
    """Numbers of processes are reused; between creation and lock a file is young."""
    leftover = tmp_path / f".a.{os.getpid()}-01234567.partial"
    other = tmp_path / ".recording.partial"  # of a capture, which will resume
    foreign = tmp_path / f".a.{'9' * 30}-01234567.partial"  # no process can have this number
    foreign.touch()
    leftover.touch()
    other.mkdir()
    remove_leftovers(tmp_path)
    assert leftover.exists()
    os.utime(leftover, (0, 0))
    os.utime(other, (0, 0))
    remove_leftovers(tmp_path, "b")
    assert leftover.exists()
    remove_leftovers(tmp_path, "a")
    assert names(tmp_path) == [foreign.name, ".recording.partial"]


def test_a_lock_says_who_holds_it(tmp_path: Path) -> None:
    with locked(tmp_path / "x.lock"), pytest.raises(BlockingIOError) as caught:
        with locked(tmp_path / "x.lock"):
            pass
    assert f"process {os.getpid()} on {platform.node()}" in str(caught.value)
    assert time.strftime("%Y-%m-%d") in str(caught.value)
    assert names(tmp_path) == []


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_full_disk_is_reported_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the number is checked)
        write_bytes(tmp_path / "a", b"new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))


def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    long = tmp_path / ("n" * 300)
    (tmp_path / "astray").symlink_to("nowhere/at/all")
    for path in ("folder", "pipe", "file/x", "astray", long.name):
        path = tmp_path / path
        with refused("AS116", names=(str(path)[:150],)):
            expect_file(path)
    for path in (tmp_path / "file", tmp_path / "pipe", tmp_path / "file" / "x", long):
        with refused("AS116", names=(str(path)[:150],)):
            expect_folder(path)
    for path in (tmp_path / "file" / "x", long):
        with refused("AS114", names=(str(path)[:150],)):
            refuse_existing(path)
    (tmp_path / "link").symlink_to("file")
    for fine in (
        tmp_path / "file",
        tmp_path / "new",
        tmp_path / "a" / "b" / "c",
        tmp_path / "link",
    ):
        expect_file(fine)
    for fine in (tmp_path / "folder", tmp_path / "new", tmp_path / "a" / "b" / "c"):
        expect_folder(fine)
    assert names(tmp_path) == ["astray", "file", "folder", "link", "pipe"]


def test_outputs_without_permission_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    # Root may write everywhere, so a test that runs as root cannot use permissions.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "library")
    with refused("AS116", names=(tmp_path / "library" / "r.html",)):
        expect_file(tmp_path / "library" / "r.html")
    for path in (tmp_path / "library", tmp_path / "library" / "x" / "y"):
        with refused("AS116", names=(path,)):
            expect_folder(path)


# --- outputs that one process writes at a time ----------------------------------------------------


def test_an_output_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "new" / "figures"
    with writing(place):
        assert names(tmp_path / "new") == [".figures.lock"]
        with refused("AS118", names=(place, f"process {os.getpid()}")), writing(place):
            pass
        with writing(tmp_path / "new" / "other"):  # another output
            place.mkdir()
    assert names(tmp_path / "new") == ["figures"]


def test_a_refused_output_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with writing(tmp_path / "a" / "b" / "page.html"):
            raise InputError("AS601", "there is no recording; make one")

    with refused("AS601"):
        fail()
    assert names(tmp_path) == []


def test_a_writer_removes_what_killed_ones_left_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.lock").write_text("process 1 on nowhere")
    for left in (
        tmp_path / "out" / ".a.png.1-01234567.partial",
        tmp_path / ".out.1-0a234567.partial",
    ):
        left.touch()
        os.utime(left, (0, 0))
    with writing(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []


def test_an_output_in_a_folder_that_may_not_be_written_is_locked_in_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared" / "figures").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "shared")
    with writing(tmp_path / "shared" / "figures"):
        assert names(tmp_path / "shared" / "figures") == [".figures.lock"]


def test_a_growing_folder_is_at_its_place_and_removed_if_it_fails(tmp_path: Path) -> None:
    def fill(error: type[BaseException] | None = None) -> None:
        with growing_folder(tmp_path / "deep" / "demo"):
            (tmp_path / "deep" / "demo" / "a").write_text("1")
            if error is not None:
                raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            fill(error)
        assert names(tmp_path) == []
    fill()
    assert names(tmp_path / "deep") == ["demo"]
    assert names(tmp_path / "deep" / "demo") == ["a"]
    with refused("AS113", names=("demo",)):
        fill()


def test_what_a_killed_process_left_of_a_growing_folder_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    _killed(
        "from attnscope.writing import growing_folder\n"
        f"with growing_folder(Path({str(folder)!r})):\n"
        f"    (Path({str(folder)!r}) / 'half').touch(); {KILL}"
    )
    assert "half" in names(folder)
    with growing_folder(folder):
        with refused("AS118", names=(folder,)), growing_folder(folder):
            pass
        (folder / "a").touch()
    assert names(folder) == ["a"]
    assert names(tmp_path) == ["demo"]


def test_a_link_to_an_unfinished_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / UNFINISHED).touch()
    (tmp_path / "demo").symlink_to("mine")
    with refused("AS113", names=(tmp_path / "demo",)), growing_folder(tmp_path / "demo"):
        pass
    assert (tmp_path / "demo").is_symlink()
    assert names(tmp_path / "mine") == [UNFINISHED]
