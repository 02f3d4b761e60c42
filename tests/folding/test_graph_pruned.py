"""Pruning the network of a recording, and making it again; the name of a folded network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attnscope.capturing.run import capture_source
from attnscope.capturing.settings import CaptureSettings
from attnscope.commands.main import main
from attnscope.files import read_json, write_sealed
from attnscope.networks.known import NetworkSource
from attnscope.networks.targets import load_target
from attnscope.recording.recording import Recording
from attnscope.sources import Source
from tests.folding.test_graph_run import CHANNEL, DATA, TARGET, edited, means
from tests.making import refused


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    source = Source(NetworkSource(TARGET, image_size=8), DATA)
    folder = tmp_path_factory.mktemp("graph") / "recording"
    capture_source(source, folder, CaptureSettings(), progress=False)
    return Recording(folder)


def test_channels_of_named_gates_are_pruned_and_the_network_is_made_again(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constants = means(recording)
    order = constants[CHANNEL].sort()
    limit = float(order.values[2:4].mean())
    arguments = ["fold", str(recording.folder), "--device", "cpu", "--gates", "all"]
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out), "--prune-below", str(limit)]) == 0
    printed = capsys.readouterr().out
    assert "channels removed: 3 of 8, 3 of them with their filters" in printed
    settings = read_json(out / "fold.json")
    report = settings["report"]
    gone = sorted(order.indices[:3].tolist())
    assert report["pruning"]["gates"][CHANNEL]["removed"] == gone
    assert report["pruning"]["is_tested"] is False
    assert report["parameters"][0] - report["parameters"][1] == 145 + 3 * (27 + 1 + 2 + 10)
    assert settings["pruned"]["head.weight"] == [10, 5]
    constants[CHANNEL][gone] = 0
    x = torch.randn(5, 3, 8, 8)
    model = load_target(f"folded:{out}").model
    with torch.no_grad():
        expected = edited(recording.network(), constants, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    settings["pruned"]["head.weight"] = [10, 6]
    write_sealed(out / "fold.json", settings)
    with refused("AS373", names=(TARGET, out)):
        load_target(f"folded:{out}")
    settings["pruned"] = [1]
    write_sealed(out / "fold.json", settings)
    with refused("AS341", names=(out,)):
        load_target(f"folded:{out}")

    # A folded network is named after the network.
    source = Source(NetworkSource(f"folded:{out}", image_size=8), DATA)
    assert source.describe([])["name"] == "net (folded)"
