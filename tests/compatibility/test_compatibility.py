"""Runs and recordings of earlier versions still open, and say what they said."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnscope import Moments, Recording, load_model, statistics
from attnscope.commands.main import main

ARCHIVE = Path(__file__).parent / "v0.1.tar.xz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v0.1")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(unpacked: Path) -> dict[str, Any]:
    return json.loads((unpacked / "expected.json").read_text())


def test_recording_of_0_1_has_its_gates_arrays_and_id(
    unpacked: Path, expected: dict[str, Any]
) -> None:
    recording = Recording(unpacked / "run")
    assert [[g.name, g.kind, g.channels, g.axes] for g in recording.gates] == expected["gates"]
    assert recording.id == expected["id"]
    assert recording.right.mean() == expected["accuracy"]
    for name, mean in expected["mean_of_gates"].items():
        assert recording.gate(name).mean(dtype=np.float64) == pytest.approx(mean, rel=1e-12)
    for name, mean in expected["mean_of_pooled_inputs"].items():
        assert recording.pooled_input(name).mean(dtype=np.float64) == pytest.approx(mean, rel=1e-12)
    assert recording.logits[0].tolist() == expected["logits_of_first_image"]
    assert recording.grad_cam().mean(dtype=np.float64) == pytest.approx(expected["grad_cam_mean"])
    assert recording.verify() == []


def test_statistics_of_recordings_of_0_1_are_unchanged(
    unpacked: Path, expected: dict[str, Any]
) -> None:
    state = statistics.gate_state(Recording(unpacked / "run")).round(12).to_dict("list")
    assert state == expected["gate_state"]
    moments = Moments(unpacked / "run")
    assert moments.id == expected["moments_id"]
    assert moments.verify() == []
    means = statistics.gate_profiles(moments)["mean"]
    np.testing.assert_allclose(means, expected["gate_profiles_of_moments"], rtol=1e-12)


def test_network_of_0_1_loads_and_is_captured_as_it_was(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unpacked)
    assert not load_model(Path("run")).training
    out = ["--out", "again", "--batch-size", "5", "--device", "cpu"]
    assert main(["capture", "run", *out]) == 0
    before, after = Recording("run"), Recording("again")
    for gate in before.gates:
        np.testing.assert_allclose(
            after.gate(gate.name), before.gate(gate.name), rtol=0, atol=1e-5, err_msg=gate.name
        )
    np.testing.assert_allclose(after.logits, before.logits, rtol=0, atol=1e-3)
    assert after.rows["path"].tolist() == before.rows["path"].tolist()


def test_run_of_0_1_goes_through_the_later_commands(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(unpacked)
    gate = "layer1.0.attention.channel"
    assert main(["intervene", "run", "--images", "6", "--experiments", "ablate"]) == 0
    assert main(["fold", "run", "--gates", gate, "--out", "folded"]) == 0
    assert json.loads(Path("folded/fold.json").read_text())["folded"] == {gate: "norm"}
    assert main(["figures", "run"]) == 0
    assert main(["report", "run", "--out", "report.html"]) == 0
    names = {file.name for file in Path("run/figures").iterdir()}
    assert {"decodable_and_used.png", "attention_grid.pdf", "training_curves.png"} <= names
