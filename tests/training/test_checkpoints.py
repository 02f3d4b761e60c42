"""Interrupted trainings: what is left, and that they end as undisturbed ones."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from attnscope import files
from attnscope.commands.main import main
from attnscope.data.augmentation import Augmentation
from attnscope.errors import InputError
from attnscope.training import loop as train_module
from attnscope.training import run as training_run
from attnscope.training.checkpoint import read_state
from attnscope.training.recipe import Adam, Milestones, Phase, Plateau
from attnscope.training.signals import stop_signal
from tests.training.toys import TINY, Spy, make_data, rows, run, small, states_equal

CNN_TINY = replace(TINY, epochs=3, augmentation=Augmentation(crop_padding=4, flip=True, cutout=8))
CNN = {"name": "cnn", "attention": "cbam", "stem": None, "width": None}  # it has dropout


class Stop(Exception):
    pass


def interrupted(out: Path, at: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Trains as `run` does until step number ``at``, which fails."""
    step, calls = train_module.TrainingLoop.step, []

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise Stop
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_module.TrainingLoop, "step", fail)
        with pytest.raises(Stop):
            run(out, **{"checkpoint_seconds": 0, **options})


STAGED = replace(  # 15 steps: its phases turn at an end of an epoch, and within one
    CNN_TINY,
    optimizer=Adam(),
    schedule=None,
    phases=(
        Phase(1 / 3, trains=("classifier", "attention"), learning_rate=1e-2),
        Phase(1 / 5, trains=("classifier", "block3"), learning_rate=1e-3),
        Phase(1 - 1 / 3 - 1 / 5, learning_rate=1e-4),
    ),
)
KINDS = {
    "one cycle": CNN_TINY,
    "staged": STAGED,
    "plateau, best": replace(
        CNN_TINY, optimizer=Adam(), schedule=Plateau(patience=0, factor=0.5), keeps="best"
    ),
    "milestones, accumulated": replace(
        CNN_TINY, batch_size=4, accumulate=2, schedule=Milestones(at=(0.4, 0.7)), log_steps=1
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def whole(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, nn.Module]:
    model, out = small(**CNN), tmp_path_factory.mktemp("whole") / "run"
    run(out, model, data=make_data(36), recipe=KINDS[request.param], seed=5)
    return request.param, out, model


@pytest.mark.parametrize("at", [1, 3, 6, 9, 10, 15])
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    whole: tuple[str, Path, nn.Module],
) -> None:
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 2)
    kind, undisturbed, expected = whole
    options = {"data": make_data(36), "recipe": KINDS[kind], "seed": 5}  # 5 steps an epoch
    interrupted(tmp_path / "b", at, monkeypatch, model=small(**CNN), **options)
    fresh = small(seed=9, **CNN)  # its weights come from the checkpoint
    if at == 1:  # before the first checkpoint: from the start, with the caller's weights
        assert not (tmp_path / "b" / "checkpoint.safetensors").exists()
        fresh = small(**CNN)
    steps = []
    step = train_module.TrainingLoop.step
    monkeypatch.setattr(
        train_module.TrainingLoop, "step", lambda *arguments: steps.append(1) or step(*arguments)
    )
    run(tmp_path / "b", fresh, resume=True, **options)
    assert states_equal(expected, fresh)
    looks = 1 if KINDS[kind].log_steps == 1 else 2
    saved = max(done for done in range(at) if done % looks == 0 or done % 5 == 0)
    assert len(steps) == 15 - saved
    results = [json.loads((p / "result.json").read_text()) for p in (undisturbed, tmp_path / "b")]
    tables = [rows(p) for p in (undisturbed, tmp_path / "b")]
    for result in results:
        del result["seconds"], result["seconds_per_step"]
    for row in tables[0] + tables[1]:
        del row["seconds"], row["images_per_second"]
    assert results[0] == results[1]
    assert tables[0] == tables[1]
    left = [{file.name for file in p.iterdir()} for p in (undisturbed, tmp_path / "b")]
    assert left[0] == left[1]
    for name in left[0] & {"steps.csv", "best.safetensors", "last.safetensors"}:
        assert (undisturbed / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "checkpoint.safetensors" not in left[0]


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


SCRIPT = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from tests.training.test_checkpoints import CNN, CNN_TINY, make_data, run, small, train_module
torch.set_num_threads(1)
train_module._REPORT_STEPS = 2
run(Path(sys.argv[2]), small(**CNN), data=make_data(36), recipe=CNN_TINY, epochs=10,
    checkpoint_seconds=0, resume=True)
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """A real SIGKILL, and a real resumption: the weights are those of an undisturbed training."""
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[2])]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    out, kills = tmp_path / "killed", 0
    while not (out / "result.json").exists():
        with subprocess.Popen([*command, str(out)]) as process:
            checkpoint = out / "checkpoint.safetensors"
            before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            # Not before it came further, so that this ends; then anywhere.
            while process.poll() is None and kills < 3:
                if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                    time.sleep(0.05 * kills)
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.001)
    assert kills == 3
    a, b = (load_file(path / "model.safetensors") for path in (tmp_path / "whole", out))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_resume_starts_where_nothing_is(tmp_path: Path) -> None:
    assert run(tmp_path / "run", resume=True).steps == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "another seed (0, and now 1)"),
        ({"epochs": 3}, "another epochs"),
        ({"recipe": replace(TINY, learning_rate=0.1)}, "another recipe"),
        ({"model": small(attention="se", reduction=4)}, "another network"),
        ({"model": small(width=32)}, "another network"),
    ],
)
def test_resuming_with_other_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 1)
    interrupted(tmp_path / "run", 3, monkeypatch)
    before = contents(tmp_path / "run")
    with pytest.raises(InputError) as error:
        run(tmp_path / "run", **{"resume": True, **changes})
    assert message in str(error.value)
    assert "resume with the options of its start" in str(error.value)
    assert contents(tmp_path / "run") == before


def test_resuming_what_cannot_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "ended")
    with pytest.raises(InputError, match="ended has ended; train in another folder"):
        run(tmp_path / "ended", resume=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="other is no training that was interrupted"):
        run(tmp_path / "other", resume=True)
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 1)
    interrupted(tmp_path / "cut", 3, monkeypatch)
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"checkpoint\.safetensors is no whole checkpoint"):
        run(tmp_path / "cut", resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "attnscope", "train", "--data", "digits", "--model", "cnn"]
    command += ["--device", "cpu", "--precision", "fp32", "--epochs", "40", "--out", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    steps = tmp_path / "run" / "steps.csv"
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        while not steps.exists():  # it is written with the first checkpoint
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    at = read_state(tmp_path / "run" / "checkpoint.safetensors")["position"]["step"]
    assert at > 0
    assert said.splitlines()[-1] == (
        f"attnscope: stopped; the last checkpoint, run/checkpoint.safetensors, is of step {at}: "
        "the same command with --resume goes on"
    )
    assert not (tmp_path / "run" / "result.json").exists()


def test_without_signals_or_in_a_thread_handlers_are_what_they_were(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(tmp_path / "a", Spy())
    thread = threading.Thread(target=run, args=(tmp_path / "b", Spy()))
    thread.start()
    thread.join()
    assert (tmp_path / "b" / "result.json").exists()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_acts_at_once() -> None:
    # A shell ignores SIGINT for what it starts in the background, and so would this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_signal() as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped == [signal.SIGINT]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk fills with the third checkpoint, in the middle of writing it."""
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 5)
    real, checkpoints = os.fsync, []

    def full(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if "checkpoint" in name:
            checkpoints.append(name)
            if len(checkpoints) == 3:
                os.truncate(name, 1000)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.chdir(tmp_path)
    fit = training_run.fit
    monkeypatch.setattr(training_run, "fit", lambda *a, **k: fit(*a, **k, checkpoint_seconds=0))
    command = ["train", "--data", "digits", "--model", "cnn", "--device", "cpu", "--out", "run"]
    assert main([*command, "--precision", "fp32", "--epochs", "2"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        "attnscope: run: No space left on device; the last checkpoint, "
        "run/checkpoint.safetensors, is of step 10: make room and go on with --resume"
    )
    assert read_state(tmp_path / "run" / "checkpoint.safetensors")["position"]["step"] == 10
    left = {file.name for file in (tmp_path / "run").iterdir()}
    assert not any("partial" in name for name in left), "nothing half-written stays"
    monkeypatch.setattr(files.os, "fsync", real)
    assert main([*command, "--precision", "fp32", "--epochs", "2", "--resume"]) == 0


@pytest.mark.parametrize("at", [3, 5, 15])
def test_stopped_within_or_at_the_end_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Five steps an epoch; the signal comes during step ``at``."""
    options = {"data": make_data(36), "recipe": CNN_TINY, "seed": 5}
    whole, again = small(**CNN), small(seed=9, **CNN)
    run(tmp_path / "a", whole, **options)
    step, calls = train_module.TrainingLoop.step, []

    def signalled(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_module.TrainingLoop, "step", signalled)
        with pytest.raises(KeyboardInterrupt, match=f"is of step {at}: the same command"):
            run(tmp_path / "b", small(**CNN), **options)
    run(tmp_path / "b", again, resume=True, **options)
    assert states_equal(whole, again)
