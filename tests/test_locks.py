"""Locks that killed processes left."""

from __future__ import annotations

from pathlib import Path

from attnscope.files import refuse_existing
from attnscope.writing import writing
from tests.making import refused


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_lock_beside_a_finished_output_is_removed_if_nobody_holds_it(tmp_path: Path) -> None:
    """A process that is killed while it removes its lock leaves the finished output and the lock.

    No command writes that output again, because it exists.
    """
    out, lock = tmp_path / "out", tmp_path / ".out.lock"
    out.mkdir()
    lock.touch()
    with refused("AS113", names=(out,)):
        refuse_existing(out)
    assert names(tmp_path) == ["out"]
    with writing(out):
        with refused("AS113", names=(out,)):
            refuse_existing(out)
        assert lock.exists()
    assert names(tmp_path) == ["out"]
    lock.symlink_to(tmp_path / "out")  # is no lock of ours
    with refused("AS113"):
        refuse_existing(out)
    assert lock.is_symlink()
