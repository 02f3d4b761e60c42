"""Commands that create what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attnscope.recording.recording import Recording
from attnscope.report.advice import intervene_command

Make = Callable[..., Recording]


def test_the_command_for_interventions_names_the_split(
    make_recording: Make, tmp_path: Path
) -> None:
    recording = make_recording(count=30)
    for folder, command in (
        ("my run/recordings/test", f"attnscope intervene '{tmp_path}/my run'"),
        ("run/recordings/validation", f"attnscope intervene {tmp_path}/run --split validation"),
        ("copied", None),
    ):
        recording.folder = tmp_path / folder
        assert intervene_command(recording) == command
