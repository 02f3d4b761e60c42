"""Runs with a monitor, against the same runs without one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attnscope import Run
from attnscope.commands.main import main
from attnscope.training import loop
from attnscope.training.monitored import choose_images
from tests.making import refused, refused_command
from tests.training.toys import make_split, rows, run, small

OPTIONS = "train --data digits --model cnn --epochs 1 --batch-size 256 --image-size 32".split()  # noqa: SIM905


def gated() -> torch.nn.Module:
    return small(attention="cbam")


def test_a_run_is_the_same_with_a_monitor(tmp_path: Path) -> None:
    for name, every in (("plain", None), ("watched", 2)):
        run(tmp_path / name, gated(), monitor_every=every)
    plain, watched = (Run(tmp_path / name) for name in ("plain", "watched"))
    assert watched.weights_file.read_bytes() == plain.weights_file.read_bytes()
    for a, b in zip(rows(plain.folder), rows(watched.folder), strict=True):
        for name in ("train_loss", "validation_loss", "learning_rate"):
            assert a[name] == b[name]
    assert watched.gate_history().steps.tolist() == [0, 2, 4, 6]
    assert not plain.gate_history_file.exists()
    assert "monitor_every" not in plain.config
    assert watched.config["monitor_every"] == 2
    with refused("AS550", names=(plain.gate_history_file,)):
        plain.gate_history()


def test_tensorboard_has_each_gate(tmp_path: Path) -> None:
    run(tmp_path / "run", gated(), monitor_every=3)
    board = str(tmp_path / "run" / "tensorboard")
    events = EventAccumulator(board, size_guidance={"histograms": 0})
    events.Reload()
    history = Run(tmp_path / "run").gate_history()
    name = history.gates[0].name
    found = [(event.step, event.value) for event in events.Scalars(f"gate_mean/{name}")]
    assert [step for step, _ in found] == [0, 3, 6]
    np.testing.assert_allclose([mean for _, mean in found], history.values("mean")[:, 0], rtol=1e-5)
    shown = events.Histograms(f"gates/{name}")
    assert [event.step for event in shown] == [0, 3, 6]
    assert shown[0].histogram_value.num == history.images * history.gates[0].shape[0]


@pytest.mark.parametrize("stop", [1, 5], ids=["before-a-checkpoint", "after-an-epoch"])
def test_a_resumed_run_has_the_history_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    run(tmp_path / "whole", gated(), monitor_every=1)
    step = loop.TrainingLoop.step

    def until(training: loop.TrainingLoop, *arguments: object) -> torch.Tensor:
        if training.position.step == stop:
            raise SystemExit
        return step(training, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop.TrainingLoop, "step", until)
        with pytest.raises(SystemExit):
            run(tmp_path / "run", gated(), monitor_every=1)
    assert Run(tmp_path / "run").gate_history().steps.tolist() == list(range(stop + 1))
    with refused("AS522", names=("monitor_every",)):
        run(tmp_path / "run", gated(), resume=True)
    run(tmp_path / "run", gated(), monitor_every=1, resume=True)
    whole, part = (Run(tmp_path / name).gate_history() for name in ("whole", "run"))
    assert part.steps.tolist() == whole.steps.tolist() == list(range(7))
    for measure in ("mean", "distance", "between_class"):
        np.testing.assert_array_equal(part.values(measure), whole.values(measure))


def test_a_network_without_gates_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with refused("AS552", names=("ResNet",)):
        run(tmp_path / "run", small(attention="none"), monitor_every=1)
    assert not (tmp_path / "run").exists()
    refused_command(
        capsys, "AS102", *OPTIONS, "--out", tmp_path / "run", "--monitor-every", 5,
        names=("monitor every", 5),
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_the_command_monitors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*OPTIONS, "--out", str(out), "--monitor", "--monitor-every", "4"]) == 0
    history = Run(out).gate_history()
    assert history.steps.tolist() == [0, 4]
    assert history.name == "run"
    assert (history.images, history.classes) == (60, 10)
    assert json.loads((out / "config.json").read_text())["monitor_every"] == 4


def test_the_images_are_balanced_and_those_of_the_seed() -> None:
    split = make_split("validation", 200)
    chosen = choose_images(split, 64, 0)
    assert torch.bincount(chosen.labels).tolist() == [32, 32]
    assert choose_images(split, 64, 0).paths == chosen.paths
    assert choose_images(split, 64, 1).paths != chosen.paths
    many = make_split("validation", 200)
    many.labels[:] = torch.arange(200) % 40
    shown = choose_images(many, 64, 0).labels
    assert shown.unique(return_counts=True)[1].tolist() == [4] * 16
    assert choose_images(many, 16, 0).labels.unique(return_counts=True)[1].tolist() == [4] * 4
    assert len(choose_images(make_split("validation", 6), 64, 0)) == 6
