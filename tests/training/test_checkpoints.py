"""Interrupted runs: which files are left, and that resumed runs equal uninterrupted ones."""

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
from attnscope.files import locked
from attnscope.signals import stop_signal
from attnscope.training import loop as train_module
from attnscope.training import run as training_run
from attnscope.training.checkpoint import load_checkpoint, read_state, save_checkpoint
from attnscope.training.recipe import Adam, Milestones, Phase, Plateau
from tests.making import refused
from tests.training.toys import TINY, Spy, make_data, rows, run, small, states_equal

CNN_TINY = replace(TINY, epochs=3, augmentation=Augmentation(crop_padding=4, flip=True, cutout=8))
CNN = {"name": "cnn", "attention": "cbam", "stem": None, "width": None}  # it has dropout


class Stop(Exception):
    pass


def interrupted(out: Path, at: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Train like `run` until step number ``at``, which raises."""
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


STAGED = replace(  # 15 steps; phases change at the end of an epoch and within one
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
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    whole: tuple[str, Path, nn.Module],
) -> None:
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 2)
    kind, uninterrupted, expected = whole
    options = {"data": make_data(36), "recipe": KINDS[kind], "seed": 5}  # 5 steps an epoch
    interrupted(tmp_path / "b", at, monkeypatch, model=small(**CNN), **options)
    fresh = small(seed=9, **CNN)  # the checkpoint replaces its weights
    if at == 1:  # no checkpoint yet: training starts with the weights of the caller
        assert not (tmp_path / "b" / "checkpoint.safetensors").exists()
        fresh = small(**CNN)
    steps = []
    step = train_module.TrainingLoop.step
    monkeypatch.setattr(
        train_module.TrainingLoop, "step", lambda *arguments: steps.append(1) or step(*arguments)
    )
    run(tmp_path / "b", fresh, resume=True, **options)
    assert states_equal(expected, fresh)
    checks = 1 if KINDS[kind].log_steps == 1 else 2
    saved = max(done for done in range(at) if done % checks == 0 or done % 5 == 0)
    assert len(steps) == 15 - saved
    results = [json.loads((p / "result.json").read_text()) for p in (uninterrupted, tmp_path / "b")]
    tables = [rows(p) for p in (uninterrupted, tmp_path / "b")]
    for result in results:
        del result["seconds"], result["seconds_per_step"]
    for row in tables[0] + tables[1]:
        del row["seconds"], row["images_per_second"]
    assert results[0] == results[1]
    assert tables[0] == tables[1]
    left = [{file.name for file in p.iterdir()} for p in (uninterrupted, tmp_path / "b")]
    assert left[0] == left[1]
    for name in left[0] & {"steps.csv", "best.safetensors", "last.safetensors"}:
        assert (uninterrupted / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "checkpoint.safetensors" not in left[0]


def test_a_run_in_bf16_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 2)
    options = {"data": make_data(36), "recipe": CNN_TINY, "seed": 5, "precision": "bf16"}
    whole, again = small(**CNN), small(seed=9, **CNN)
    run(tmp_path / "a", whole, **options)
    interrupted(tmp_path / "b", 8, monkeypatch, model=small(**CNN), **options)
    run(tmp_path / "b", again, resume=True, **options)
    assert states_equal(whole, again)
    plain = small(**CNN)
    run(tmp_path / "c", plain, **{**options, "precision": "fp32"})
    assert not states_equal(whole, plain), "it was not trained in fp32"


def test_a_checkpoint_keeps_the_kernels_of_the_device(tmp_path: Path) -> None:
    """A checkpoint of a GPU, whose optimizer is fused, continues on a CPU, and the other way."""
    model = Spy()

    def optimizer(fused: bool | None) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)

    for stored, own in ((True, None), (None, True)):
        save_checkpoint(tmp_path / "file", model, optimizer(stored), {})
        found = optimizer(own)
        load_checkpoint(tmp_path / "file", model, found)
        assert found.param_groups[0]["fused"] is own


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


def test_resume_is_bit_exact_after_sigkill(tmp_path: Path) -> None:
    """A process is killed and restarted; the weights equal those of an uninterrupted run."""
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[2])]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    out, kills = tmp_path / "killed", 0
    while not (out / "result.json").exists():
        with subprocess.Popen([*command, str(out)]) as process:
            checkpoint = out / "checkpoint.safetensors"
            before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            # Kill it only after progress, so that the test ends, but at different moments.
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


def test_resume_without_a_run_starts_one(tmp_path: Path) -> None:
    assert run(tmp_path / "run", resume=True).steps == 6


@pytest.mark.parametrize(
    ("changes", "code", "names"),
    [
        ({"seed": 1}, "AS522", ("seed = 0, not 1",)),
        ({"epochs": 3}, "AS522", ("epochs = 2, not 3",)),
        ({"recipe": replace(TINY, learning_rate=0.1)}, "AS522", ("recipe",)),
        ({"model": small(attention="se", reduction=4)}, "AS524", ("checkpoint.safetensors",)),
        ({"model": small(width=32)}, "AS524", ("checkpoint.safetensors",)),
    ],
)
def test_resume_with_other_settings_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    code: str,
    names: tuple[str, ...],
) -> None:
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 1)
    interrupted(tmp_path / "run", 3, monkeypatch)
    before = contents(tmp_path / "run")
    with refused(code, names=(tmp_path / "run", *names)):
        run(tmp_path / "run", **{"resume": True, **changes})
    assert contents(tmp_path / "run") == before


def test_resume_of_a_finished_run_another_folder_or_a_damaged_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "ended")
    with refused("AS520", names=(tmp_path / "ended", "--out")):
        run(tmp_path / "ended", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    with refused("AS521", names=(tmp_path / "other", "--out")):
        run(tmp_path / "other", resume=True)
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 1)
    interrupted(tmp_path / "cut", 3, monkeypatch)
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    with refused("AS523", names=(checkpoint,)):
        run(tmp_path / "cut", resume=True)


def test_what_a_training_left_that_was_killed_at_once_does_not_hinder_the_next(
    tmp_path: Path,
) -> None:
    """It can leave an empty folder, or one with a configuration that was not finished."""
    folder = tmp_path / "run"
    folder.mkdir()
    leftover = folder / ".config.json.1-01234567.partial"
    leftover.touch()
    os.utime(leftover, (0, 0))
    with refused("AS113", names=(folder,)):
        run(folder)
    run(folder, resume=True)
    assert not leftover.exists()
    run(tmp_path / "whole")
    found = {file.name for file in (tmp_path / "whole").glob("*.safetensors")}
    assert found
    for name in found:
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_second_training_into_the_same_run_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / ".run.lock"):
        with refused("AS525", names=(tmp_path / "run", os.getpid())):
            run(tmp_path / "run")
        assert not (tmp_path / "run").exists()
    run(tmp_path / "run")
    assert not (tmp_path / ".run.lock").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_writes_a_checkpoint_and_names_it(tmp_path: Path, number: int) -> None:
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
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    at = read_state(tmp_path / "run" / "checkpoint.safetensors")["position"]["step"]
    assert at > 0
    line = printed.splitlines()[-1]
    for value in ("attnscope: ", "run/checkpoint.safetensors", f"step {at};", "--resume"):
        assert value in line
    assert not (tmp_path / "run" / "result.json").exists()


def test_signal_handlers_are_restored_in_the_main_thread_and_others(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(tmp_path / "a", Spy())
    thread = threading.Thread(target=run, args=(tmp_path / "b", Spy()))
    thread.start()
    thread.join()
    assert (tmp_path / "b" / "result.json").exists()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_stops_immediately() -> None:
    # A shell lets background processes ignore SIGINT, and this process would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_signal() as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped == [signal.SIGINT]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk becomes full while the third checkpoint is written."""
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
    for value in (
        "attnscope: run/checkpoint.safetensors: ",
        os.strerror(errno.ENOSPC),
        "step 10;",
        "--resume",
    ):
        assert value in error
    assert "run/checkpoint.safetensors" in error
    assert read_state(tmp_path / "run" / "checkpoint.safetensors")["position"]["step"] == 10
    left = {file.name for file in (tmp_path / "run").iterdir()}
    assert not any("partial" in name for name in left), "no partial file is left"
    monkeypatch.setattr(files.os, "fsync", real)
    assert main([*command, "--precision", "fp32", "--epochs", "2", "--resume"]) == 0


@pytest.mark.parametrize("at", [3, 5, 15])
def test_a_run_stopped_within_or_after_an_epoch_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Five steps per epoch; the signal arrives during step ``at``."""
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
        with pytest.raises(KeyboardInterrupt, match=f"step {at};"):
            run(tmp_path / "b", small(**CNN), **options)
    run(tmp_path / "b", again, resume=True, **options)
    assert states_equal(whole, again)
