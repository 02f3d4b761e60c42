"""t-SNE of a gate: computed by a command of its own, kept, and read again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from attnscope.dashboard import gate_space
from attnscope.dashboard.gate_space import main, place_images, placed_images
from attnscope.recording.recording import Recording
from attnscope.statistics.embedding import neighbor_embedding, sampled_rows
from tests.making import refused

GATE = "layer1.attention.channel"
Make = Callable[..., Recording]


def test_what_the_command_computes_is_read_again(make_recording: Make) -> None:
    recording = make_recording()
    assert placed_images(recording, GATE) is None
    command = [sys.executable, "-m", "attnscope.dashboard.gate_space", str(recording.folder), GATE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found = placed_images(Recording(recording.folder), GATE)
    assert found is not None
    assert list(found.rows) == list(range(60))
    expected = neighbor_embedding(recording.gate(GATE))
    np.testing.assert_allclose(found.places, expected, rtol=1e-5)
    assert placed_images(recording, "layer2.attention.channel") is None


def test_a_sample_of_many_images_is_placed(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_space, "MOST", 20)
    recording = make_recording()
    found = place_images(recording, GATE, seed=3)
    assert list(found.rows) == list(sampled_rows(60, 20, 3))
    assert found.places.shape == (20, 2)
    again = placed_images(recording, GATE)
    assert again is not None
    np.testing.assert_array_equal(again.places, found.places)


def test_what_cannot_be_placed_is_refused_in_one_line(
    make_recording: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = make_recording(count=3)
    with refused("AS743", names=("3", "4")):
        place_images(recording, GATE)
    for gate, code in ((GATE, "AS743"), ("no such gate", "AS608")):
        assert main([str(recording.folder), gate]) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert code in shown
