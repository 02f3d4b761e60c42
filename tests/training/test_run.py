"""`train_run` and ``attnscope train``."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attnscope import Run, capture_run, fold, plots
from attnscope.commands.main import main
from attnscope.commands.parsing import parse
from attnscope.commands.train import Train
from attnscope.data.images import LabeledImages
from attnscope.data.load import Data
from attnscope.data.normalization import Normalization
from attnscope.training import run as run_module
from attnscope.training.config import TrainConfig
from attnscope.training.loop import TrainingLoop
from attnscope.training.processes import ProcessGroup
from attnscope.training.recipe_file import read_recipe
from attnscope.training.run import suits_gpu_recipe, train_run
from tests.making import refused, refused_command, write_images


def test_the_recipe_sets_the_network_and_options_override_it(tmp_path: Path) -> None:

    def trained(name: str, *options: str) -> dict[str, Any]:
        out = tmp_path / name
        command = ["train", "--data", "digits", "--epochs", "1", "--weights", "none"]
        command += ["--device", "cpu", "--batch-size", "512", "--out", str(out), *options]
        assert main(command) == 0
        model: dict[str, Any] = json.loads((out / "model.json").read_text())
        config = json.loads((out / "config.json").read_text())
        return {**model, **{k: config[k] for k in ("image_size", "resize", "weights")}}

    found = trained("a", "--recipe", "staged", "--width", "16", "--reduction", "4")
    assert (found["name"], found["attention"], found["placement"]) == ("resnet18", "cbam", "stage")
    assert (found["image_size"], found["resize"], found["weights"]) == (32, None, "none")
    found = trained("b", "--recipe", "cnn")
    assert (found["name"], found["attention"]) == ("cnn", "cbam")
    options = ["--width", "16", "--reduction", "4", "--placement", "block"]
    found = trained("c", "--recipe", "staged", "--attention", "eca", *options)
    assert (found["attention"], found["placement"]) == ("eca", "block")
    found = trained("d", "--recipe", "finetune", "--width", "16", "--image-size", "56")
    assert (found["image_size"], found["resize"], found["stem"]) == (56, 64, "imagenet")
    assert found["gate_start"] == "half"


@pytest.mark.parametrize(
    ("options", "code", "names"),
    [
        (["--recipe", "slow"], "AS120", ("'slow'", "fast, fast-gpu, staged, cnn")),
        (["--recipe", "no.toml"], "AS510", ("no.toml",)),
        (["--accumulate", "0"], "AS102", ("accumulate", "0")),
        (["--learning-rate", "0"], "AS102", ("learning rate", "0.0")),
        (["--class-weights", "1", "2"], "AS505", (2, 10)),
        (["--class-weights", "1", "0"], "AS102", ("class weights", "balanced", "(1.0, 0.0)")),
    ],
)
def test_unusable_options_are_refused(
    options: list[str],
    code: str,
    names: tuple[object, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    arguments = ["train", "--data", "digits", "--out", tmp_path / "run", *options]
    refused_command(capsys, code, *arguments, names=names)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "options", "name"),
    [
        ("AS342", ["--weights", "no.pth"], "no.pth"),
        ("AS350", ["--model", "cnn", "--weights", "imagenet"], "'cnn'"),
    ],
)
def test_unusable_weights_are_refused(
    code: str,
    options: list[str],
    name: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    arguments = ["train", "--data", "digits", "--out", tmp_path / "run", *options]
    refused_command(capsys, code, *arguments, names=(name,))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("AS953", ["--keep", "worst"]),
        ("AS953", ["--gate-start", "open"]),
        ("AS953", ["--placement", "top"]),
        ("AS953", ["--precision", "fp8"]),
        ("AS954", ["--class-weights", "even"]),
    ],
)
def test_unknown_choices_are_refused(
    code: str, options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["train", *options, "--out", tmp_path / "run"]
    refused_command(capsys, code, *arguments, names=options)
    assert not (tmp_path / "run").exists()


CHOSEN: dict[str, Any] = {
    "data": "digits",
    "attention": "se",
    "reduction": 4,
    "width": 16,
    "weights": "none",
    "recipe": "staged",
    "batch_size": 512,
    "learning_rate": 0.002,
    "class_weights": "balanced",
    "keep": "best",
    "epochs": 3,
    "seed": 3,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.mark.parametrize("chosen", [CHOSEN, {**CHOSEN, "recipe": "fast", "class_weights": "none"}])
def test_python_and_the_command_write_equal_runs(chosen: dict[str, Any], tmp_path: Path) -> None:
    out = train_run(TrainConfig(**chosen, out=tmp_path / "python"), progress=False)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
    assert main(["train", *options, "--out", str(tmp_path / "command")]) == 0
    assert out == tmp_path / "python"
    for name in ("config.json", "model.json", "steps.csv"):
        files = [tmp_path / by / name for by in ("python", "command")]
        assert [file.exists() for file in files] in ([True, True], [False, False]), name
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes(), name
    for name in ("model.safetensors", "last.safetensors", "best.safetensors"):
        files = [tmp_path / by / name for by in ("python", "command")]
        assert files[0].exists() == files[1].exists()
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes(), name


@pytest.mark.parametrize(
    ("count", "size", "device", "processes", "expected"),
    [
        (10_240, 32, "cuda", 1, True),
        (10_239, 32, "cuda", 1, False),  # too few steps in an epoch
        (10_240, 32, "cuda", 2, False),
        (20_480, 8, "cuda", 2, True),
        (10_240, 32, "cpu", 1, False),
        (10_240, 65, "cuda", 1, False),  # too large for the memory of most GPUs
        (10_240, 64, "cuda", 1, True),
    ],
)
def test_fast_gpu_is_the_default_on_a_gpu_for_many_small_images(
    count: int, size: int, device: str, processes: int, expected: bool
) -> None:
    # One row of pixels, repeated without memory.
    pixels = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(count, 3, size, size)
    images = LabeledImages(pixels, torch.zeros(count, dtype=torch.int64), [], ["a"])
    unit = Normalization((0.5,) * 3, (0.5,) * 3)
    data = Data("made", images, images, images, unit, may_flip=True, skipped=[])
    group = ProcessGroup(0, processes)
    assert suits_gpu_recipe(torch.device(device), data, group) is expected


@pytest.mark.parametrize("recipe", [None, "fast"])
def test_the_default_recipe_of_a_gpu_is_named_in_one_line(
    recipe: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run_module, "suits_gpu_recipe", lambda *_: True)
    config = TrainConfig(
        recipe=recipe, model="cnn", epochs=1, learning_rate=0.02, device="cpu", out=tmp_path / "run"
    )
    run = Run(train_run(config, progress=False))
    lines = [line for line in capsys.readouterr().err.splitlines() if "fast-gpu" in line]
    stored = run.config["recipe"]
    expected = ("fast-gpu", 512) if recipe is None else ("fast", 128)
    assert (stored["name"], stored["batch_size"]) == expected
    assert stored["learning_rate"] == 0.02, "a given setting takes precedence"
    assert len(lines) == (recipe is None)


def test_the_command_compiles_or_not_or_leaves_the_choice_to_attnscope() -> None:
    for words, expected in (([], None), (["--compile"], True), (["--no-compile"], False)):
        assert parse(Train, "attnscope train", words).compile is expected


def test_every_setting_has_an_option_with_the_same_default() -> None:
    settings = {field.name: field.default for field in fields(TrainConfig)}
    of_the_command = {"capture": False}
    assert {field.name: field.default for field in fields(Train)} == settings | of_the_command


OF_0_1 = {
    *("data", "data_root", "resize", "validation_share", "skip_unreadable", "weights"),
    *("weights_report", "attnscope", "torch", "recipe", "epochs", "seed", "device", "devices"),
    *("precision", "classes", "normalization", "image_size", "parts"),
}
RECIPE_OF_0_1 = {
    *("name", "about", "epochs", "batch_size", "learning_rate", "optimizer", "augmentation"),
    *("schedule", "accumulate", "label_smoothing", "phases", "network", "keeps", "log_steps"),
    "histogram_steps",
}


def test_an_interrupted_run_of_version_0_1_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without newer settings, config.json has the keys that version 0.1 wrote and compares."""
    step, steps = TrainingLoop.step, []

    def stop_at_second(*arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return step(*arguments)

    config = TrainConfig(
        model="cnn", weights="none", epochs=2, batch_size=512, device="cpu", out=tmp_path / "run"
    )
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "step", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            train_run(config, progress=False)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert set(written) == OF_0_1 | {"places", "command"}
    assert set(written["recipe"]) == RECIPE_OF_0_1
    with refused("AS522", names=("class_weights",)):
        train_run(replace(config, resume=True, class_weights="balanced"), progress=False)
    with refused("AS522", names=("recipe",)):
        train_run(replace(config, resume=True, learning_rate=0.5), progress=False)
    train_run(replace(config, resume=True), progress=False)
    assert (tmp_path / "run" / "result.json").exists()


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Images of classes 0 to 10."""
    return write_images(tmp_path / "all", 4, 2, levels={str(k): 20 * k for k in range(11)})


def trained_on(folder: Path, out: Path, **settings: Any) -> Run:
    config = TrainConfig(
        data=f"folder:{folder}", width=16, epochs=1, batch_size=32, device="cpu", precision="fp32",
        out=out, **settings,
    )  # fmt: skip
    return Run(train_run(config, progress=False))


def test_channels_and_natural_order_are_settings_of_a_run(numbered: Path, tmp_path: Path) -> None:
    run = trained_on(numbered, tmp_path / "run", channels=1, class_order="natural")
    assert run.classes == [str(k) for k in range(11)]
    assert run.model().get_parameter("conv1.weight").shape[1] == 1
    assert len(run.normalization.mean) == 1
    images = run.split("test")
    assert images.images.shape[1] == 1
    assert images.classes == run.classes
    assert run.source().network.load().model.attnscope_config.channels == 1
    assert run.untrained_model().get_parameter("conv1.weight").shape[1] == 1
    assert load_file(run.training_images_file)["images"].shape[1] == 1
    recording = capture_run(run.folder, progress=False)
    assert recording.classes == run.classes
    assert recording.images().classes == run.classes
    plots.training_images(run)


def test_listed_classes_are_settings_of_a_run(numbered: Path, tmp_path: Path) -> None:
    names = ["spare", *(str(k) for k in range(10, -1, -1))]
    (tmp_path / "names.txt").write_text("\n".join(names))
    listed = trained_on(numbered, tmp_path / "listed", classes=names)
    from_file = trained_on(numbered, tmp_path / "file", classes=tmp_path / "names.txt")
    assert "command" not in listed.config, "no option takes a list from Python"
    assert listed.config == {k: v for k, v in from_file.config.items() if k != "command"}
    assert listed.classes == names
    assert listed.model().get_parameter("fc.weight").shape[0] == 12
    test = listed.split("test")
    by_path = {
        path.split("/")[1]: names[k] for path, k in zip(test.paths, test.labels, strict=True)
    }
    assert by_path == {str(k): str(k) for k in range(11)}
    fold(listed.folder, tmp_path / "folded", gates="all", progress=False)
    folded = Run(tmp_path / "folded")
    assert folded.split("test").classes == names
    with refused("AS226", names=("'10'",)):
        trained_on(numbered, tmp_path / "short", classes=["1", "0"])


def test_an_interrupted_run_keeps_its_channels_and_classes(
    numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            trained_on(numbered, tmp_path / "run", channels=1, class_order="natural")
    for changed in ({"channels": 1}, {"class_order": "natural"}):
        with refused("AS522"):
            trained_on(numbered, tmp_path / "run", resume=True, **changed)
    run = trained_on(numbered, tmp_path / "run", channels=1, class_order="natural", resume=True)
    assert run.classes[2] == "2"


def test_a_run_of_rgb_images_stores_no_channels(numbered: Path, tmp_path: Path) -> None:
    """So that files are those of versions that knew RGB only."""
    run = trained_on(numbered, tmp_path / "run")
    assert not {"channels", "class_order", "listed_classes"} & run.config.keys()
    assert "channels" not in json.loads((run.folder / "model.json").read_text())


def test_a_recipe_from_a_file_is_stored_completely(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "cnn"\nepochs = 1\nbatch_size = 512\nlearning_rate = 0.01\n')
    out = train_run(TrainConfig(recipe=file, out=tmp_path / "run"), progress=False)
    written = json.loads((out / "config.json").read_text())["recipe"]
    assert written == json.loads(json.dumps(asdict(read_recipe(file))))
    assert (written["name"], written["learning_rate"]) == ("mine", 0.01)
