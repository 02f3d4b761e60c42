"""The commands: from images to report, and one clear line for every bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnscope.commands.main import main
from attnscope.files import read_json
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording

PLAIN = ["--model", "resnet18", "--width", "16", "--epochs", "1"]
SMALL = [*PLAIN, "--reduction", "4"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 16×16 pictures that differ in brightness: 12 for training, 6 for the test."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for name, level in (("dark", 60), ("light", 190)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(level, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def runs(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for kind in ("se", "cbam"):
        out = root / kind
        given = ["--data", f"folder:{images}", "--attention", kind, "--out", str(out), *SMALL]
        assert main(["train", *given]) == 0
        assert main(["capture", str(out)]) == 0
    return root


def make_gateless(runs: Path) -> Path:
    """A run whose recording has the same images and no gates."""
    run = runs / "none"
    given = read_json(runs / "se" / "config.json")
    options = ["--data", given["data"], "--attention", "none", "--out", str(run), *PLAIN]
    assert main(["train", *options]) == 0
    assert main(["capture", str(run)]) == 0
    return run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line with which a command refuses; it must exit with 2."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("attnscope: ")
    return lines[0]


def test_from_images_to_report(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = Recording(runs / "cbam")
    assert len(recording) == 12
    assert recording.classes == ["dark", "light"]
    assert len(recording.gates) == 16
    assert main(["verify", str(runs / "cbam")]) == 0
    assert "12 images, 16 gates, all well" in capsys.readouterr().out
    assert main(["figures", str(runs / "cbam"), "--out", str(tmp_path / "figures")]) == 0
    names = {p.stem for p in (tmp_path / "figures").glob("*.png")}
    assert {"training_curves", "training_images", "confusion_matrix", "attention_grid"} <= names
    assert {p.stem for p in (tmp_path / "figures").glob("*.pdf")} == names
    both = [str(runs / "se"), str(runs / "cbam")]
    assert main(["compare", *both, "--out", str(tmp_path / "comparison")]) == 0
    assert (tmp_path / "comparison" / "per_class_accuracy.png").is_file()
    assert main(["report", *both, "--out", str(tmp_path / "report.html")]) == 0
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_test_image_that_broke_after_the_training(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "se", run)
    shutil.rmtree(run / "recordings")
    config = read_json(run / "config.json")
    images = tmp_path / "images"
    shutil.copytree(config["data"].removeprefix("folder:"), images)
    (run / "config.json").write_text(json.dumps({**config, "data": f"folder:{images}"}))
    (images / "test" / "dark" / "0.png").write_bytes(b"")
    assert "go on without them with --skip-unreadable" in refused(capsys, "capture", run)
    assert main(["capture", str(run), "--skip-unreadable"]) == 0
    recording = Recording(run)
    assert len(recording) == 11
    assert recording.about["skipped"] == ["test/dark/0.png (empty file)"]
    few = ["--experiments", "replace", "--images", "4"]
    assert main(["intervene", str(run), *few]) == 0


def test_the_run_tells_how_it_was_made(runs: Path) -> None:
    config = json.loads((runs / "cbam" / "config.json").read_text())
    assert config["classes"] == ["dark", "light"]
    assert config["recipe"]["name"] == "fast"
    assert config["epochs"] == 1
    assert config["image_size"] == 16
    result = json.loads((runs / "cbam" / "result.json").read_text())
    accuracy = (lambda r: (r.labels == r.predictions).mean())(Recording(runs / "cbam"))
    assert result["weights"] == "last"
    assert result["steps"] == 1
    # bf16 at the end of the training and fp32 in the capture may differ in a close case.
    assert result["test"]["accuracy"] == pytest.approx(accuracy, abs=0.09)


def test_interventions_and_their_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "se"
    some = ["--experiments", "decode", "replace", "erase", "--images", "6"]
    assert "experiment 'cut' is not known" in refused(
        capsys, "intervene", run, "--experiments", "cut"
    )
    assert not (run / "interventions").exists()
    assert main(["intervene", str(run), *some, "--batch-size", "4"]) == 0
    assert "6 images scored, 8 gates" in capsys.readouterr().out
    assert "holds these experiments already" in refused(capsys, "intervene", run, *some)
    assert "another seed" in refused(capsys, "intervene", run, "--images", "6", "--seed", "1")
    outcomes = read_outcomes(run / "interventions" / "test")
    assert set(outcomes.tables) == {"decoding", "effects", "erasing_areas", "erasing_curves"}
    # Eight gates and all at once, under seven edits, and the network as it is.
    assert outcomes.replacement is not None
    assert len(outcomes.replacement) == 6 * (9 * 7 + 1)
    recorded = Recording(run)
    own = outcomes.replacement[outcomes.replacement["edit"] == "own"]
    assert (own["prediction"] == recorded.predictions[own["row"]]).all()
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.index("Decodable and used") < page.index("Static gates") < page.index("Confusion")
    about = run / "interventions" / "test" / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "recording": "0"}))
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h3>Static gates" not in page
    assert f"make them with attnscope intervene {run}" in page
    shutil.rmtree(run / "interventions")
    assert "make it with attnscope capture" in refused(
        capsys, "intervene", run, "--split", "validation"
    )
    assert "is no run with a network" in refused(capsys, "intervene", tmp_path)
    (run / "interventions" / "test").mkdir(parents=True)
    assert "is no folder of interventions" in refused(capsys, "intervene", run, *some)
    shutil.rmtree(run / "interventions")
    assert "batch size is 0" in refused(capsys, "intervene", run, "--batch-size", "0")
    # Another kind of network, before anything is run.
    assert "is of another network or training than" in refused(
        capsys, "intervene", run, "--seed-runs", make_gateless(runs), "--images", "6"
    )
    assert not (run / "interventions").exists()


def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--width", "16", "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"attnscope dashboard {out}" in printed
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == {"se", "cbam"}
    for kind in summary:
        recording = Recording(out / kind)
        right = (recording.labels == recording.predictions).mean()
        assert summary[kind]["test_accuracy"] == pytest.approx(right)
        assert summary[kind]["test_images"] == len(recording) == 359
        assert summary[kind]["seconds_per_step"] > 0
    assert (out / "report.html").is_file()
    assert "exists already" in refused(capsys, "demo", "--out", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "cifar11"], "data source 'cifar11' is not known; take one of digits"),
        (["--data", "folder:no-such-folder"], "folder no-such-folder does not exist"),
        (["--recipe", "slow"], "recipe 'slow' is not known; choose one of fast"),
        (["--model", "vgg"], "network 'vgg' is not known; take one of resnet18"),
        (["--attention", "cbm"], "attention 'cbm' is not known; take one of none, se"),
        (["--model", "cnn", "--width", "16"], "width does not apply to the network 'cnn'"),
        (["--device", "tpu9"], "device 'tpu9' is not known"),
        (["--device", "cuda:7"], "device 'cuda:7' is not there"),
        (["--epochs", "0"], "epochs is 0"),
        (["--batch-size", "0"], "batch size is 0"),
        (["--kernel-size", "4"], "kernel_size is 4"),
        (["--reduction", "1000"], "reduction 1000"),
        (["--data", "cifar10", "--data-root", "empty"], "--data-root"),
        (["--validation-share", "1"], "validation share is 1.0"),
        (["--image-size", "3"], "image size is 3"),
    ],
)
def test_training_refuses_and_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no download from a test
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the first proxy it met
    given = arguments if "--attention" in arguments else [*arguments, "--attention", "cbam"]
    assert message in refused(capsys, "train", *given, "--out", "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--moments", "--pooled-inputs"], "moments hold no pooled inputs"),
        (
            ["--model", "timm:resnet18", "--data", "digits", "--out", "out", "--untrained"],
            "--untrained is of a run",
        ),
    ],
)
def test_options_of_capture_that_do_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "capture", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--placement", "top"],
        ["capture", "run", "--split", "all"],
        ["capture", "run", "--precision", "fp16"],
        ["fold", "run", "--out", "x", "--spatial", "maps"],
    ],
)
def test_a_choice_that_there_is_not_ends_with_2_and_lists_the_choices(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_a_run_that_exists_is_not_overwritten(
    images: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.stat().st_mtime_ns for p in (runs / "se").rglob("*"))
    line = refused(capsys, "train", "--data", f"folder:{images}", "--out", runs / "se")
    assert "exists already" in line
    assert "exists already" in refused(capsys, "capture", runs / "se")
    assert sorted(p.stat().st_mtime_ns for p in (runs / "se").rglob("*")) == before


def copy_of(run: Path, to: Path) -> Path:
    subprocess.run(["cp", "-r", str(run), str(to)], check=True)
    return to


def test_weights_that_do_not_fit(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(runs / "se", tmp_path / "run")
    weights = runs / "cbam" / "model.safetensors"
    (run / "model.safetensors").write_bytes(weights.read_bytes())
    line = refused(capsys, "capture", run, "--out", tmp_path / "recording")
    assert "do not fit the network" in line
    (run / "model.safetensors").write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors" in refused(capsys, "capture", run, "--out", tmp_path / "recording")
    (run / "model.safetensors").unlink()
    line = refused(capsys, "capture", run, "--out", tmp_path / "recording")
    assert "holds no model.safetensors" in line
    assert not (tmp_path / "recording").exists()


@pytest.mark.parametrize("command", ["figures", "report", "verify"])
def test_a_damaged_recording_is_refused(
    command: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = copy_of(runs / "se" / "recordings" / "test", tmp_path / "recording")
    out = [] if command == "verify" else ["--out", tmp_path / "out"]
    arrays = recording / "shards" / "00000" / "arrays.safetensors"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "has changed since it was written (SHA-256)" in refused(capsys, command, recording, *out)
    arrays.write_bytes(whole[: len(whole) // 2])
    refused(capsys, command, recording, *out)
    arrays.write_bytes(whole)
    (recording / "manifest.json").write_text("{")
    assert "manifest.json" in refused(capsys, command, recording, *out)
    (recording / "manifest.json").unlink()
    assert "holds no recording" in refused(capsys, command, recording, *out)
    assert not (tmp_path / "out").exists()


def test_a_network_of_other_classes_is_not_captured(
    images: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(runs / "se", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"] = "digits"
    (run / "config.json").write_text(json.dumps(config))
    line = refused(capsys, "capture", run, "--out", tmp_path / "recording")
    assert "other classes" in line
    (run / "config.json").write_text("{}")
    assert "config.json" in refused(capsys, "capture", run, "--out", tmp_path / "recording")


def test_comparisons_need_two_runs_of_the_same_images(
    runs: Path,
    make_recording: Callable[..., Recording],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = make_recording("other").folder
    out = tmp_path / "comparison"
    assert "takes two runs or more, not 1" in refused(capsys, "compare", runs / "se", "--out", out)
    refused(capsys, "compare", runs / "se", other, "--out", out)
    assert "needs a run" in refused(capsys, "report")
    assert not out.exists()


def test_unreadable_images_are_named_and_refused_or_skipped(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(images, tmp_path / "images")
    (root / "train" / "dark" / "empty.png").write_bytes(b"")
    source = ["--data", f"folder:{root}"]
    line = refused(capsys, "train", *source, *SMALL, "--out", tmp_path / "run")
    assert "1 of 37 images cannot be read: train/dark/empty.png" in line
    assert "--skip-unreadable" in line
    assert not (tmp_path / "run").exists()
    given = [*source, *SMALL, "--skip-unreadable", "--out", str(tmp_path / "run")]
    assert main(["train", *given]) == 0
    assert "skipped train/dark/empty.png" in capsys.readouterr().err
    assert main(["capture", str(tmp_path / "run")]) == 0


def test_a_loss_that_is_not_finite_is_one_line(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "torch.nn.functional.cross_entropy",
        lambda *a, **k: torch.tensor(float("nan"), requires_grad=True),
    )
    code = main(["train", "--data", f"folder:{images}", *SMALL, "--out", str(tmp_path / "run")])
    assert code == 1
    assert "the loss is not finite at step 1" in capsys.readouterr().err.splitlines()[-1]
