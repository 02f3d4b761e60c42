"""One channel at its mean: against a plain hook on the module that makes the gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attnscope.commands.main import main
from attnscope.dashboard.channel_removal import remove_channel, removed_channel
from attnscope.interventions.setup import scored_rows
from attnscope.live import LiveNetwork
from attnscope.runs import Run
from attnscope.statistics.removal import removal_effect
from attnscope.verifying import verify
from tests.folding.runs import make_run, untrained, write_digits
from tests.making import refused

GATE = "layer2.0.attention.channel"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    made = make_run(folder / "cbam", write_digits(folder / "digits"), untrained("cbam"), "layer")
    assert main(["capture", str(made)]) == 0
    return Run(made)


def test_the_effect_is_that_of_a_plain_hook_and_is_kept(run: Run) -> None:
    recording = run.recording()
    channel = int(recording.gate(GATE).std(0).argmax())
    assert removed_channel(recording, GATE, channel) is None
    before = manifest(run)
    found = remove_channel(LiveNetwork.open(recording), GATE, channel, images=40)

    rows = scored_rows(recording, 40, 0)
    others = np.setdiff1d(np.arange(len(recording)), rows)
    assert len(others) > 0
    mean = float(recording.gate(GATE)[others, channel].mean())
    model = run.model().eval()
    x = run.normalization.apply(run.split("test").images[rows])

    def set_mean(module: object, given: object, gate: torch.Tensor) -> torch.Tensor:
        gate = gate.clone()
        gate[:, channel] = mean
        return gate

    with torch.no_grad():
        own = model(x).numpy()
        handle = dict(model.named_modules())[GATE].register_forward_hook(set_mean)
        edited = model(x).numpy()
        handle.remove()
    assert np.abs(own - edited).max() > 1e-4, "the channel has an effect"
    expected = removal_effect(own, edited, recording.labels[rows])
    assert (found.images, found.changed) == (len(rows), expected.changed)
    assert (found.accuracy, found.change) == (expected.accuracy, expected.change)
    pd.testing.assert_frame_equal(found.classes, expected.classes, atol=1e-5)

    again = removed_channel(run.recording(), GATE, channel)
    assert again is not None
    pd.testing.assert_frame_equal(again.classes, found.classes, check_dtype=False)
    assert (again.change, again.low, again.high) == (found.change, found.low, found.high)
    assert removed_channel(recording, GATE, channel + 1) is None
    assert manifest(run) == before
    assert [found.problems for found in verify(run.folder)] == [(), ()]


def test_a_channel_that_does_not_exist_is_refused(run: Run) -> None:
    network = LiveNetwork.open(run.recording())
    with refused("AS742", names=(GATE, "999")):
        remove_channel(network, GATE, 999)
    assert removed_channel(run.recording(), GATE, 999) is None


def manifest(run: Run) -> bytes:
    return (Path(run.folder) / "recordings" / "test" / "manifest.json").read_bytes()
