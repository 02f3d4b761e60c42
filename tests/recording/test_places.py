"""Recordings are found in folders."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from attnscope.recording.moments import Moments
from attnscope.recording.places import capture_again, distinct_names, list_recordings
from attnscope.recording.recording import Recording, find_recordings
from tests.making import lock_folders, refused
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


def damaged(folder: Path, how: str) -> Path:
    """A recording whose manifest cannot be read."""
    file = write(folder) / "manifest.json"
    file.unlink()
    {"folder": file.mkdir, "pipe": partial(os.mkfifo, file)}[how]()
    return folder


def test_a_folder_without_a_recording_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with refused("AS601", names=(f"{tmp_path / 'none'} does not exist",)):
        Recording(tmp_path / "none")
    with refused("AS601", names=("holds no recording",)):
        Recording(tmp_path / "runs")
    for name in ("se", "cbam", ".hidden"):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    with refused("AS601", names=(f"{tmp_path / 'runs'} contains the runs cbam, se; name one",)):
        Recording(tmp_path / "runs")
    run = tmp_path / "runs" / "se"
    with refused("AS601", names=(f"the run {run} has no recording", f"attnscope capture {run}")):
        Recording(run)
    with refused("AS601", names=(f"attnscope capture {run} --moments",)):
        Moments(run)
    write(run / "recordings" / "train")
    with refused("AS601", names=(run / "recordings" / "train",)):
        Recording(run)
    (run / "checkpoint.safetensors").touch()
    with refused("AS601", names=("was interrupted", "--resume")):
        Recording(run)
    with refused("AS601", names=("contains the recordings train; name one",)):
        Recording(run / "recordings")


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("recordings/test", ""),
        ("recordings/train", " --split train"),
        ("recordings/mine", " --out a/b/recordings/mine"),
        ("moments/test", " --moments"),
        ("untrained/test", " --untrained"),
        ("untrained/moments/validation", " --untrained --moments --split validation"),
    ],
)
def test_the_command_that_makes_a_recording_again_names_its_run(
    place: str, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = tmp_path / "a/b" / place
    captured.mkdir(parents=True)
    (tmp_path / "a/b/config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert capture_again(Path("a/b") / place) == (
        f"remove a/b/{place}, then run: attnscope capture a/b{options}"
    )
    assert capture_again(Path("a/b") / place, "--precision", "fp32").endswith(" --precision fp32")
    monkeypatch.chdir(captured)
    assert f"attnscope capture {tmp_path / 'a/b'}" in capture_again(Path())
    (tmp_path / "a/b/config.json").unlink()
    assert "attnscope capture" not in capture_again(captured)


def test_recordings_that_cannot_be_opened_are_listed_and_do_not_hide_others(
    tmp_path: Path,
) -> None:
    write(tmp_path / "runs/a/recordings/test")
    write(tmp_path / "runs/b")
    hurt = [
        damaged(tmp_path / "runs/c/recordings/test", "folder"),
        damaged(tmp_path / "runs/d", "pipe"),
    ]
    write(tmp_path / "elsewhere")
    link = tmp_path / "runs/e"
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs/notes").write_text("mine")
    found, problems = list_recordings(tmp_path / "runs")
    assert found == [tmp_path / "runs/a/recordings/test", tmp_path / "runs/b"]
    assert [problem.code for problem in problems] == ["AS604", "AS604", "AS607"]
    for problem, folder in zip(problems, [*hurt, link], strict=True):
        assert str(folder) in problem.message
    with refused("AS604", names=(hurt[0],)):
        find_recordings(tmp_path / "runs")


def test_damaged_recordings_alone_are_no_empty_folder(tmp_path: Path) -> None:
    hurt = damaged(tmp_path / "runs/a", "pipe")
    found, problems = list_recordings(tmp_path / "runs")
    assert (found, [problem.code for problem in problems]) == ([], ["AS604"])
    assert str(hurt) in problems[0].message
    # A link to a manifest is opened, and refused there.
    (hurt / "manifest.json").unlink()
    (hurt / "manifest.json").symlink_to(tmp_path / "none")
    assert list_recordings(tmp_path / "runs") == ([hurt], [])


def test_folders_one_may_not_read_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "runs/a/recordings/test")
    write(tmp_path / "runs/b/recordings/test")
    write(tmp_path / "runs/c")
    locked = [tmp_path / "runs/b/recordings", tmp_path / "runs/c"]
    lock_folders(monkeypatch, *locked)
    found, problems = list_recordings(tmp_path / "runs")
    assert found == [tmp_path / "runs/a/recordings/test"]
    assert {problem.code for problem in problems} == {"AS692"}
    for folder in locked:
        assert any(str(folder) in each.message for each in problems)
    assert all("Permission denied" in each.message for each in problems)


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
