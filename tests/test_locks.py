"""Locks that killed processes left."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnscope.errors import InputError
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


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_not_said_to_be_in_use() -> None:
    with pytest.raises(InputError) as caught, writing(Path("/proc/nope")):
        pass
    assert caught.value.code in ("AS114", "AS115"), "AS115: without the rights of root"
    assert "another process" not in caught.value.message
    assert "/proc" in caught.value.message
