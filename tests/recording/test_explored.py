"""Results that were asked for in the dashboard are kept beside a recording, which stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnscope.files import sha256_of
from attnscope.layout import MANIFEST
from attnscope.recording.explored import explored_file, read_explored, write_explored
from attnscope.recording.places import explored_folder
from attnscope.recording.recording import Recording
from attnscope.verifying import verify
from tests.making import refused
from tests.recording.making import write

RESULT = {"rows": [1, 2], "low": None, "name": "猫"}


@pytest.fixture(params=["run/recordings/test", "alone", "run/untrained/test"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Recording:
    (tmp_path / request.param).parent.mkdir(parents=True, exist_ok=True)
    return Recording(write(tmp_path / request.param))


def test_a_result_is_there_again_and_nothing_else_changes(
    recording: Recording, tmp_path: Path
) -> None:
    manifest = sha256_of(recording.folder / MANIFEST)
    before = set(recording.folder.rglob("*"))
    verified = [(found.folder, found.problems) for found in verify(tmp_path)]
    assert read_explored(recording, "a") is None
    write_explored(recording, "a", RESULT)
    again = Recording(recording.folder)
    assert read_explored(again, "a") == RESULT
    assert read_explored(again, "b") is None
    write_explored(again, "a", {"rows": []})
    assert read_explored(again, "a") == {"rows": []}
    assert sha256_of(recording.folder / MANIFEST) == manifest
    assert set(recording.folder.rglob("*")) == before
    assert explored_file(recording, "a").is_relative_to(tmp_path)
    assert [(found.folder, found.problems) for found in verify(tmp_path)] == verified


def test_the_place_is_in_the_run_or_beside_the_recording(tmp_path: Path) -> None:
    run = tmp_path / "cbam"
    assert explored_folder(run / "recordings" / "test") == run / "explored" / "test"
    assert explored_folder(tmp_path / "alone") == tmp_path / "alone-explored"


def test_a_result_of_an_earlier_recording_is_not_shown(recording: Recording) -> None:
    write_explored(recording, "a", RESULT)
    manifest = recording.folder / MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert read_explored(recording, "a") is None


def test_a_result_under_the_name_of_another_is_not_shown(recording: Recording) -> None:
    write_explored(recording, "a", RESULT)
    explored_file(recording, "a").rename(explored_file(recording, "b"))
    assert read_explored(recording, "b") is None


def test_a_damaged_result_is_refused(recording: Recording) -> None:
    write_explored(recording, "a", RESULT)
    file = explored_file(recording, "a")
    file.write_bytes(file.read_bytes().replace(b"1", b"7", 1))
    with refused("AS119", names=(file.name,)):
        read_explored(recording, "a")
    file.write_text("{")
    with refused("AS112", names=(file.name,)):
        read_explored(recording, "a")


def test_a_link_out_of_the_folder_is_not_followed(recording: Recording, tmp_path: Path) -> None:
    write_explored(recording, "a", RESULT)
    file = explored_file(recording, "a")
    outside = tmp_path / "outside.json"
    file.rename(outside)
    file.symlink_to(outside)
    before = outside.read_bytes()
    with refused("AS607", names=(file.name,)):
        read_explored(recording, "a")
    with refused("AS607", names=(file.name,)):
        write_explored(recording, "a", {})
    assert outside.read_bytes() == before
