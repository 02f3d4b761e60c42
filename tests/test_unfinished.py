"""A training that was interrupted: what commands say of it, and the command that continues it."""

from __future__ import annotations

import json
import re
import shlex
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from attnscope import TrainConfig
from attnscope.commands.main import find_commands, main
from attnscope.commands.parsing import parse
from attnscope.dashboard.inventory import INTERRUPTED, list_entries
from attnscope.files import locked
from attnscope.runs import Run
from attnscope.training import loop as training_loop
from attnscope.training import run as training_run
from attnscope.unfinished import how_to_continue, is_interrupted
from tests.making import refused, refused_command, write_images

TRAIN = ["train", "--data", "folder:my images", "--model", "cnn", "--epochs", "2", "--seed", "3"]
TRAIN += ["--device", "cpu", "--precision", "fp32", "--batch-size", "8", "--image-size", "32"]


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted after a checkpoint, named as the user did."""
    write_images(tmp_path / "my images")
    monkeypatch.chdir(tmp_path)
    step, calls = training_loop.TrainingLoop.step, []

    def fail(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    fit = training_run.fit
    with monkeypatch.context() as patch:
        patch.setattr(training_loop.TrainingLoop, "step", fail)
        patch.setattr(training_run, "fit", lambda *a, **k: fit(*a, **k, checkpoint_seconds=0))
        assert main([*TRAIN, "--out", "run"]) == 130
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    return Path("run")


def test_every_command_says_how_to_continue(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = shlex.join(["attnscope", *TRAIN, "--out", "run", "--resume"])
    words = shlex.split(re.sub(".*attnscope", "", how_to_continue(stopped)))
    assert sorted(words) == sorted(shlex.split(command)[1:])
    for code, given in (
        ("AS113", [*TRAIN, "--out", "run"]),
        ("AS113", ["train", "--out", "run"]),
        ("AS340", ["capture", "run"]),
        ("AS340", ["analyze", "run"]),
    ):
        names = ("interrupted", how_to_continue(stopped))
        refused_command(capsys, code, *given, names=names)
    with locked(Path(".run.lock")):
        assert not is_interrupted(stopped)
    assert main(words) == 0
    assert not is_interrupted(stopped)


def test_the_runs_page_and_the_interruption_name_the_same_command(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = list_entries(Path())
    assert entry.state == INTERRUPTED
    assert entry.note.endswith(how_to_continue(stopped))
    with refused("AS539", names=(how_to_continue(stopped),)):
        Run("run").result  # noqa: B018 - it is read
    block = nullcontext([signal.SIGINT])
    monkeypatch.setattr(training_loop, "stop_signal", lambda: block)
    capsys.readouterr()
    assert main([*TRAIN, "--out", "run", "--resume"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith(how_to_continue(stopped))


def test_a_training_that_has_nothing_to_resume_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts, because a scheduler repeats one command."""
    write_images(tmp_path / "my images")
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, "--out", "new", "--resume"]) == 0
    assert "there is no run new to resume" in capsys.readouterr().err


def test_without_the_settings_no_command_is_made_up(stopped: Path) -> None:
    """Earlier versions did not store the options, and other processes were started by torchrun."""
    config = json.loads((stopped / "config.json").read_text())
    for other in ({"devices": 2}, {"command": None}, {"command": "train"}, {"command": [1]}):
        (stopped / "config.json").write_text(json.dumps({**config, **other}))
        assert "attnscope train" not in how_to_continue(stopped)
        assert "--resume" in how_to_continue(stopped)
    (stopped / "config.json").write_text("{")
    assert "--resume" in how_to_continue(stopped)
    assert is_interrupted(stopped)


def test_a_run_of_an_earlier_version_is_resumed(stopped: Path) -> None:
    config = json.loads((stopped / "config.json").read_text())
    del config["command"]
    (stopped / "config.json").write_text(json.dumps(config))
    assert main([*TRAIN, "--out", "run", "--resume"]) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention": "se", "learning_rate": 0.05, "width": 16, "monitor": True},
        {"class_weights": (1.0, 2.0), "compile": False, "validation_share": 0.2},
        {"compile": True, "recipe": "my recipe.toml", "classes": Path("names.txt")},
    ],
)
def test_the_options_of_a_run_are_those_of_its_settings(settings: dict[str, object]) -> None:
    config = TrainConfig(**settings)  # type: ignore[arg-type]
    command = config.command()
    assert command is not None
    train = dict(find_commands())["train"]
    given = parse(train, "attnscope train", command)
    again = {name: getattr(given, name) for name in vars(config)}
    assert TrainConfig(**again) == config  # type: ignore[arg-type]


def test_settings_from_python_have_no_command() -> None:
    assert TrainConfig(classes=["a", "b"]).command() is None  # type: ignore[arg-type]
