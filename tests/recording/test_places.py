"""Recordings are found in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnscope.recording.places import distinct_names
from attnscope.recording.recording import Recording, find_recordings
from tests.making import refused
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


def test_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with refused("AS601", names=(tmp_path, "attnscope capture")):
        find_recordings(tmp_path)
    with refused("AS620", names=(tmp_path / "nowhere",)):
        find_recordings(tmp_path / "nowhere")


def test_recording_behind_a_link_to_outside_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    with refused("AS607", names=(tmp_path / "runs" / "link",)):
        find_recordings(tmp_path / "runs")


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["a/recordings/test", "b/recordings/test"], ["net (a)", "net (b)"]),
        (["a/recordings/test", "a/recordings/train"], ["net (test)", "net (train)"]),
        (["a/x", "b/x", "b/y"], ["net (a/x)", "net (b/x)", "net (b/y)"]),
        (["a", "a"], ["net (1)", "net (2)"]),
        (["seed-0"], ["net"]),
    ],
)
def test_equal_names_are_told_apart_by_folder(folders: list[str], expected: list[str]) -> None:
    paths = [Path(folder) for folder in folders]
    assert distinct_names(["net"] * len(paths), paths) == expected
    assert distinct_names(["net"] * len(paths) + ["other"], [*paths, Path("a")]) == [
        *expected,
        "other",
    ]
