"""Files and folders are written completely or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from attnscope.files import new_folder, read_json, refuse_existing, write_bytes, write_json
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


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


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
