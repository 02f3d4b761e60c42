"""Several processes on one CPU, with gloo, against one process that accumulates batches."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attnscope import Run
from attnscope.data.load import load_data
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model
from attnscope.training.checkpoint import read_state
from attnscope.training.evaluation import evaluate
from attnscope.training.fitting import fit
from attnscope.training.optimization import step_sizes
from attnscope.training.processes import ProcessGroup, current_process_group, join_process_group
from attnscope.training.recipe import SGD
from attnscope.training.recipes import RECIPES
from tests.making import refused

ROOT = Path(__file__).parents[2]
STEPS = 20


def train_steps(out: Path, accumulate: int, **options: Any) -> None:
    """Train 20 steps on digits, in float32 with a learning rate of 0.01, and log each step."""
    data = load_data("digits")
    # 323 = 20 × 16 + 3: two processes cannot share the rest equally; the same for 45 and 33.
    data = replace(data, train=data.train[:323], validation=data.validation[:45])
    data = replace(data, test=data.test[:33])
    recipe = replace(
        RECIPES["se-sgd"],
        batch_size=8,
        accumulate=accumulate,
        learning_rate=0.01,
        schedule=None,
        optimizer=SGD(),
        log_steps=1,
    )
    torch.manual_seed(0)
    model = build_model(attention="cbam", width=16, reduction=4)
    options = {"epochs": 1, "device": "cpu", "precision": "fp32", "progress": False, **options}
    fit(model, data, recipe, out, seed=3, checkpoint_seconds=0, **options)


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    torch_run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [sys.executable, *torch_run, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


SCRIPT = """
import sys
from pathlib import Path
import torch
from attnscope.training import loop as train_module
from attnscope.training.processes import join_process_group
from tests.training.test_distributed import train_steps
torch.set_num_threads(1)
step, stop = train_module.TrainingLoop.step, int(sys.argv[3])

def until(training, *arguments):
    if training.position.step == stop:
        sys.exit(7)
    return step(training, *arguments)

train_module.TrainingLoop.step = until
with join_process_group(torch.device("cpu")):
    train_steps(Path(sys.argv[1]), int(sys.argv[2]), resume=True)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Number of processes -> run: two with half a step each, one that accumulates both halves."""
    folder = tmp_path_factory.mktemp("runs")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    done = torchrun(2, str(script), str(folder / "two"), "1", "-1")
    assert done.returncode == 0, done.stderr
    done = torchrun(1, str(script), str(folder / "one"), "2", "-1")
    assert done.returncode == 0, done.stderr
    return {1: folder / "one", 2: folder / "two"}


def test_a_process_group_resumes_exactly(runs: dict[int, Path], tmp_path: Path) -> None:
    """Two processes that stop within an epoch end bit for bit like uninterrupted ones."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = torchrun(2, str(script), str(tmp_path / "run"), "1", "7")
    assert done.returncode != 0
    assert read_state(tmp_path / "run" / "checkpoint.safetensors")["position"]["step"] == 7
    done = torchrun(2, str(script), str(tmp_path / "run"), "1", "-1")
    assert done.returncode == 0, done.stderr
    for name in ("steps.csv", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (runs[2] / name).read_bytes()
    expected, found = table(runs[2], "metrics.csv"), table(tmp_path / "run", "metrics.csv")
    for name in ("train_accuracy", "validation_loss"):
        assert [row[name] for row in found] == [row[name] for row in expected]
    # Losses are summed in float32, and the checkpoint holds the sum over both processes.
    loss = [row["train_loss"] for row in expected]
    assert [row["train_loss"] for row in found] == pytest.approx(loss, rel=1e-6)


def table(run: Path, name: str) -> list[dict[str, float]]:
    with (run / name).open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def test_two_processes_equal_one_that_accumulates(runs: dict[int, Path]) -> None:
    one, two = (table(runs[number], "steps.csv") for number in (1, 2))
    assert [row["step"] for row in one] == list(range(1, STEPS + 1))
    difference = [abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True)]
    assert max(difference) < 1e-4
    assert [row["accuracy"] for row in one] == [row["accuracy"] for row in two]
    losses = [row["loss"] for row in one]
    assert np.std(losses) > 0.01, "the steps differ, so equality is informative"
    weights = [load_file(runs[number] / "model.safetensors") for number in (1, 2)]
    for name, value in weights[0].items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
    results = [json.loads((runs[number] / "result.json").read_text()) for number in (1, 2)]
    assert [result["devices"] for result in results] == [1, 2]
    assert [result["steps"] for result in results] == [STEPS, STEPS]


def test_two_processes_train_the_same_with_a_monitor(runs: dict[int, Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    watched = "train_steps(Path(sys.argv[1]), int(sys.argv[2]), resume=True, monitor_every=8)"
    script.write_text(re.sub(r"train_steps\(Path.*\)", watched, SCRIPT))
    done = torchrun(2, str(script), str(tmp_path / "run"), "1", "-1")
    assert done.returncode == 0, done.stderr
    for name in ("steps.csv", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (runs[2] / name).read_bytes()
    assert Run(tmp_path / "run").gate_history().steps.tolist() == [0, 8, 16]


def test_two_processes_evaluate_every_image_once(runs: dict[int, Path]) -> None:
    """Two processes on 33 images find what a single process finds."""
    data = load_data("digits")
    model = load_model(runs[2])
    alone = evaluate(model, data.test[:33], data.normalization, torch.device("cpu"))
    found = json.loads((runs[2] / "result.json").read_text())["test"]
    assert found["accuracy"] == pytest.approx(alone.accuracy, abs=1e-12)
    assert found["loss"] == pytest.approx(alone.loss, rel=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_a_partition(count: int, size: int) -> None:
    shares = [ProcessGroup(rank, size).share(count) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_command_runs_under_torchrun(tmp_path: Path) -> None:
    options = ["--data", "digits", "--model", "cnn", "--epochs", "1", "--batch-size", "256"]
    options += ["--device", "cpu", "--precision", "fp32", "--out", str(tmp_path / "run")]
    done = torchrun(2, "-m", "attnscope", "train", *options, "--capture")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run folder: ") == 1, "only the main process prints"
    recording = Run(tmp_path / "run").recording()
    assert done.stdout.count(f"{len(recording)} images") == 1
    assert recording.verify() == []
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["devices"] == 2
    again = torchrun(2, "-m", "attnscope", "train", *options)
    assert again.returncode != 0
    assert "[AS113]" in again.stderr
    assert str(tmp_path / "run") in again.stderr


def test_a_single_process_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_process_group(torch.device("cpu")) as process_group:
        assert (process_group.rank, process_group.size, process_group.is_main) == (0, 1, True)
        assert not torch.distributed.is_initialized()
    assert current_process_group() == ProcessGroup()
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(process_group.sum(values), values)
    assert torch.equal(process_group.max(values), values)


def test_step_sizes_and_too_few_images() -> None:
    with refused("AS507", names=(7, 4, "--accumulate")):
        step_sizes(7, 16, 4)
    assert step_sizes(8, 16, 4) == [8]
    assert step_sizes(71, 16, 4) == [71], "a rest with a batch of one image joins the step before"
    assert step_sizes(72, 16, 4) == [64, 8]
