"""Pruning the network of a recording, and making it again; the name of a folded network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

from attnscope import watch_gates
from attnscope.capturing.run import capture_source
from attnscope.capturing.settings import CaptureSettings
from attnscope.commands.main import main
from attnscope.comparison import Comparison
from attnscope.files import read_json, write_sealed
from attnscope.networks.known import NetworkSource
from attnscope.networks.targets import load_target
from attnscope.recording.recording import Recording
from attnscope.sources import Source
from tests.folding.test_graph_run import CHANNEL, DATA, SPATIAL, TARGET, edited, means
from tests.making import refused
from tests.networks.test_exporting import needs_onnx, run_onnx

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"


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


def test_a_pruned_network_is_exported_recorded_compared_and_shown(
    recording: Recording,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = float(means(recording)[CHANNEL].sort().values[2:4].mean())
    out, captured = tmp_path / "out", tmp_path / "recordings" / "pruned"
    arguments = ["fold", str(recording.folder), "--device", "cpu", "--gates", CHANNEL]
    assert main([*arguments, "--out", str(out), "--prune-below", str(limit)]) == 0
    target = f"folded:{out}"
    model = load_target(target).model
    assert model.get_parameter("conv.weight").shape[0] == 5

    needs_onnx()
    assert main(["export", target, "--out", str(tmp_path / "net.onnx"), "--with-gates"]) == 0
    assert f"gate/{SPATIAL}" in capsys.readouterr().out
    x = torch.randn(3, 3, 8, 8)
    output, gate = run_onnx(tmp_path / "net.onnx", x)
    with torch.no_grad(), watch_gates(model) as gates:
        torch.testing.assert_close(output, model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gate[:, 0], gates[SPATIAL], rtol=1e-4, atol=1e-5)

    options = ["--data", "digits", "--image-size", "8", "--device", "cpu"]
    assert main(["capture", "--model", target, *options, "--out", str(captured)]) == 0
    found = Recording(captured)
    assert [each.name for each in found.gates] == [SPATIAL]
    images = found.source().network.normalization.apply(found.images().images)
    with torch.no_grad(), watch_gates(model) as gates:
        logits = model(images)
    torch.testing.assert_close(torch.from_numpy(found.logits), logits, rtol=1e-4, atol=1e-5)
    maps = torch.from_numpy(found.gate(SPATIAL))
    torch.testing.assert_close(maps, gates[SPATIAL], rtol=1e-4, atol=1e-5)

    assert len(Comparison(recording, found).accuracy) == 11

    # The dashboard opens the network beside the recording.
    monkeypatch.setattr(sys, "argv", [str(APP), str(captured.parent)])
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.query_params["run"] = captured.name
    app.run().switch_page("views/image.py").run()
    (toggle,) = (each for each in app.toggle if each.label == "Open the network")
    toggle.set_value(True)
    app.run()
    assert [each.message for each in app.exception] == []
    assert [each.value for each in app.error] == []
