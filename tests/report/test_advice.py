"""Commands that create what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from attnscope import build_model, capture, load_data
from attnscope.data.load import DataSettings
from attnscope.networks.source import NetworkSource
from attnscope.recording.recording import Recording
from attnscope.report.advice import intervene_command
from attnscope.sources import Source

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


def test_a_recording_that_names_its_network_needs_no_run(tmp_path: Path) -> None:
    source = Source(NetworkSource("mine:network"), DataSettings("digits"))
    model, images = build_model(attention="se", width=16, reduction=4), load_data(image_size=8)
    for given, command in ((source, f"attnscope intervene {tmp_path}/there"), (None, None)):
        out = tmp_path / "there"
        capture(model, images.test[slice(0, 4)], out, source=given, progress=False)
        recording = Recording(out)
        assert recording.has_source == (given is not None)
        assert intervene_command(recording) == command
        shutil.rmtree(out)
    capture(model, images.test[slice(0, 4)], out, source=source, output="none", progress=False)
    assert intervene_command(Recording(out)) is None, "there are no class scores"
