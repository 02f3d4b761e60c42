"""Recordings are found in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnscope.errors import InputError
from attnscope.recording.recording import Recording, find_recordings
from tests.recording.making import write


def test_recordings_are_found_in_runs(tmp_path: Path) -> None:
    for name in ("b/recordings/test", "a/recordings/test", "a/recordings/validation", "c"):
        write(tmp_path / name)
    (tmp_path / "a/recordings/.test.1.partial").mkdir()
    (tmp_path / "a/recordings/.test.1.partial/manifest.json").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_recordings(tmp_path)]
    assert found == ["a/recordings/test", "a/recordings/validation", "b/recordings/test", "c"]
    assert len(find_recordings(tmp_path / "a")) == 2
    assert len(find_recordings(tmp_path / "c")) == 1
    assert Recording(tmp_path / "a").folder == tmp_path / "a/recordings/test"


def test_a_folder_without_recordings_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no recording; make one with"):
        find_recordings(tmp_path)
    with pytest.raises(InputError, match="does not exist; check the path"):
        find_recordings(tmp_path / "nowhere")
