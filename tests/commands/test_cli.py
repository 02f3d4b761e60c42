"""The commands: from images to report, and one line for every input that cannot be used.

Codes of refusals are checked where the package raises them, and here those of the command line.
This file has more than 400 lines, because all tests share two trained runs.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnscope.commands.main import main
from attnscope.files import read_json
from attnscope.plots import PLOTS
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.verdicts import VERDICTS
from tests.making import refused_command, write_images

PLAIN = ["--model", "resnet18", "--width", "16", "--epochs", "1"]
SMALL = [*PLAIN, "--reduction", "4"]
MODEL, DATA = ["--model", "timm:resnet18"], ["--data", "digits"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


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


def refused(
    capsys: pytest.CaptureFixture[str],
    code: str,
    *arguments: object,
    names: tuple[object, ...] = (),
) -> None:
    """The command exits with 2 and prints nothing but one line, with this code and the names."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("attnscope: ")
    assert line.endswith(f" [{code}]"), f"{line} has another code than {code}"
    for name in names:
        assert str(name) in line


def test_from_images_to_report(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = Recording(runs / "cbam")
    assert len(recording) == 12
    assert recording.classes == ["dark", "light"]
    assert len(recording.gates) == 16
    capsys.readouterr()
    assert main(["verify", str(runs / "cbam")]) == 0
    assert re.findall(r"(\d+) images, (\d+) gates", capsys.readouterr().out) == [("12", "16")]
    assert main(["figures", str(runs / "cbam"), "--out", str(tmp_path / "figures")]) == 0
    names = {p.stem for p in (tmp_path / "figures").glob("*.png")}
    assert {"training_curves", "training_images", "confusion_matrix", "attention_grid"} <= names
    assert {p.stem for p in (tmp_path / "figures").glob("*.pdf")} == names
    both = [str(runs / "se"), str(runs / "cbam")]
    assert main(["compare", *both, "--out", str(tmp_path / "comparison")]) == 0
    assert (tmp_path / "comparison" / "per_class_accuracy.png").is_file()
    assert main(["report", *both, "--out", str(tmp_path / "report.html")]) == 0
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_test_image_that_became_unreadable_can_be_skipped(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "se", run)
    shutil.rmtree(run / "recordings")
    images = tmp_path / "images"
    shutil.copytree(read_json(run / "config.json")["data"].removeprefix("folder:"), images)
    (images / "test" / "dark" / "0.png").write_bytes(b"")
    again = ["capture", str(run), "--data", f"folder:{images}"]
    refused(capsys, "AS212", *again, names=("test/dark/0.png", "--skip-unreadable"))
    assert main([*again, "--skip-unreadable", "--allow-changed-data"]) == 0
    recording = Recording(run)
    assert len(recording) == 11
    assert recording.about["skipped"] == ["test/dark/0.png (empty file)"]
    few = ["--experiments", "replace", "--images", "4"]
    assert main(["intervene", str(run), *few, "--data", f"folder:{images}"]) == 0


def test_run_folder_records_settings_and_accuracy(runs: Path) -> None:
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


def test_intervene_writes_outcomes_that_the_report_shows(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "se"
    some = ["--experiments", "decode", "replace", "erase", "--images", "6"]
    refused(
        capsys, "AS813", "intervene", run, "--experiments", "cut", names=("cut", "decode", "erase")
    )
    assert not (run / "interventions").exists()
    assert main(["intervene", str(run), *some, "--batch-size", "4"]) == 0
    printed = capsys.readouterr()
    assert str(run / "interventions" / "test") in printed.out
    assert str(run / "interventions" / "test" / "effects.csv") in printed.out
    for gate in Recording(run).gates:  # one line for each, and none for an edit
        (line,) = [line for line in printed.out.splitlines() if line.startswith(gate.name)]
        assert re.search(r"%.*%.* to .* to ", line)
        assert line.endswith(tuple(VERDICTS))
    assert "swap_any" not in printed.out
    assert re.findall(r"^(\w+): .*cond", printed.err, re.M)[:3] == ["decode", "replace", "erase"]
    written = {file: file.stat().st_mtime_ns for file in (run / "interventions").rglob("*.*")}
    assert main(["intervene", str(run), *some, "--batch-size", "4"]) == 0  # nothing is repeated
    assert {f: f.stat().st_mtime_ns for f in (run / "interventions").rglob("*.*")} == written
    capsys.readouterr()
    refused(capsys, "AS811", "intervene", run, "--images", "6", "--seed", "1", names=("seed",))
    outcomes = read_outcomes(run / "interventions" / "test")
    names = " ".join(sorted(outcomes.tables))
    assert names == "constants decoding effects erasing_areas erasing_curves"
    assert outcomes.logits.shape == (len(outcomes.replacement), 2) == (6 * (9 * 5 + 1), 2)
    recorded = Recording(run)
    own = outcomes.replacement[outcomes.replacement["edit"] == "own"]
    assert (own["prediction"] == recorded.predictions[own["row"]]).all()
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    titles = [PLOTS[name].title for name in ("decodable_and_used", "static_gates")]
    assert page.index(titles[0]) < page.index(titles[1]) < page.index("onfusion")
    about = run / "interventions" / "test" / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "recording": "0"}))
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"<h3>{titles[1]}" not in page
    assert f"attnscope intervene {run}" in page
    shutil.rmtree(run / "interventions")
    refused(
        capsys, "AS532", "intervene", run, "--split", "validation", names=(run, "attnscope capture")
    )
    refused(capsys, "AS535", "intervene", tmp_path, names=(tmp_path,))
    (run / "interventions" / "test").mkdir(parents=True)
    refused(capsys, "AS810", "intervene", run, *some, names=(run / "interventions" / "test",))
    shutil.rmtree(run / "interventions")
    refused(capsys, "AS802", "intervene", run, "--batch-size", "0", names=("batch size", "0"))
    # Another kind of network is refused before anything is run.
    other = make_gateless(runs)
    seeds = ["--experiments", "randomize", "--seed-runs", other, "--images", "6"]
    refused(capsys, "AS821", "intervene", run, *seeds, names=(other,))
    assert not (run / "interventions").exists()


@pytest.mark.parametrize(
    ("code", "arguments", "names"),
    [
        ("AS201", ["--data", "cifar11"], ("cifar11", "digits")),
        ("AS204", ["--data", "folder:no-such-folder"], ("no-such-folder",)),
        ("AS120", ["--recipe", "slow"], ("slow", "fast")),
        ("AS301", ["--model", "vgg"], ("vgg", "resnet18")),
        ("AS302", ["--attention", "cbm"], ("cbm", "cbam")),
        ("AS308", ["--model", "cnn", "--width", "16"], ("width", "cnn")),
        ("AS130", ["--device", "tpu9"], ("tpu9",)),
        ("AS131", ["--device", "cuda:7"], ("cuda:7",)),
        ("AS102", ["--epochs", "0"], ("epochs", "0")),
        ("AS102", ["--batch-size", "0"], ("batch size", "0")),
        ("AS310", ["--kernel-size", "4"], ("kernel", "4")),
        ("AS309", ["--reduction", "1000"], ("reduction", "1000")),
        ("AS203", ["--data", "cifar10", "--data-root", "empty"], ("--data-root",)),
        ("AS102", ["--validation-share", "1"], ("validation", "1")),
        ("AS102", ["--image-size", "3"], ("image size", "3")),
    ],
)
def test_training_refuses_and_writes_nothing(
    code: str,
    arguments: list[str],
    names: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no download from a test
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the first proxy it met
    given = arguments if "--attention" in arguments else [*arguments, "--attention", "cbam"]
    refused(capsys, code, "train", *given, "--out", "run", names=names)
    assert not (tmp_path / "run").exists()


def test_moments_and_pooled_inputs_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "AS672", "capture", "run", "--moments", "--pooled-inputs")


@pytest.mark.parametrize(
    ("code", "arguments", "names"),
    [
        ("AS955", [], ("--model", "--data", "--out")),
        ("AS957", ["run", "--no-grad-cam", "--grad-cam-layers", "layer1"], ("--no-grad-cam",)),
        ("AS957", ["run", "--model", "timm:resnet18"], ("--model",)),
        ("AS957", ["run", "--image-size", "32"], ("--image-size",)),
        ("AS957", [*MODEL, *DATA, "--out", "out", "--untrained"], ("--untrained", "--model")),
        ("AS958", [*MODEL, "--out", "out"], ("--model", "--data")),
        ("AS958", [*MODEL, *DATA], ("--model", "--out")),
        ("AS958", [*MODEL, *DATA, "--out", "out", "--std", "1", "1", "1"], ("--std", "--mean")),
    ],
)
def test_options_of_capture_that_do_not_fit_together(
    code: str, arguments: list[str], names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    refused_command(capsys, code, "capture", *arguments, names=names)


@pytest.mark.parametrize("command", ["inspect", "summary"])
def test_image_size_below_8_pixels_is_refused(
    command: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused_command(capsys, "AS960", command, runs / "se", "--image-size", "4", names=("4", "8"))


def test_inspect_refuses_an_image_size_at_which_the_network_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "narrow_network.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = ["narrow_network:make", "--image-size", "16"]
    refused_command(
        capsys, "AS961", "inspect", *given, names=("narrow_network:make", "3×16×16", "--image-size")
    )


def test_summary_takes_one_name_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    refused_command(
        capsys, "AS957", "summary", "resnet34", "--model", "cnn", names=("resnet34", "--model")
    )


def test_a_run_that_exists_is_not_overwritten(
    images: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.stat().st_mtime_ns for p in (runs / "se").rglob("*"))
    refused(
        capsys,
        "AS113",
        "train",
        "--data",
        f"folder:{images}",
        "--out",
        runs / "se",
        names=(runs / "se",),
    )
    refused(capsys, "AS113", "capture", runs / "se", names=(runs / "se" / "recordings" / "test",))
    assert sorted(p.stat().st_mtime_ns for p in (runs / "se").rglob("*")) == before


def copy_of(run: Path, to: Path) -> Path:
    subprocess.run(["cp", "-r", str(run), str(to)], check=True)
    return to


def test_weights_that_do_not_fit_the_network_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(runs / "se", tmp_path / "run")
    weights = runs / "cbam" / "model.safetensors"
    (run / "model.safetensors").write_bytes(weights.read_bytes())
    out = ["--out", tmp_path / "recording"]
    refused(capsys, "AS347", "capture", run, *out, names=(run / "model.safetensors",))
    (run / "model.safetensors").write_bytes(weights.read_bytes()[:1000])
    refused(capsys, "AS343", "capture", run, *out, names=(run / "model.safetensors",))
    (run / "model.safetensors").unlink()
    refused(capsys, "AS340", "capture", run, *out, names=(run, "model.safetensors"))
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
    refused_command(capsys, "AS962", command, recording, *out, names=("arrays.safetensors",))
    arrays.write_bytes(whole[: len(whole) // 2])
    refused_command(capsys, "AS962", command, recording, *out, names=("arrays.safetensors",))
    arrays.write_bytes(whole)
    (recording / "manifest.json").write_text("{")
    code = "AS962" if command == "verify" else "AS112"
    refused(capsys, code, command, recording, *out, names=(recording / "manifest.json",))
    (recording / "manifest.json").unlink()
    refused(capsys, "AS601", command, recording, *out, names=(recording,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["figures", "report", "verify", "intervene"])
def test_the_remedy_of_a_damaged_recording_works(
    command: str,
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "my runs").mkdir()
    copy_of(runs / "se", tmp_path / "my runs" / "se")
    monkeypatch.chdir(tmp_path)
    recording = Path("my runs/se/recordings/test")
    arrays = recording / "shards" / "00000" / "arrays.safetensors"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code = "AS824" if command == "intervene" else "AS962"
    refused_command(capsys, code, command, "my runs/se", names=(recording,))
    assert main([command, "my runs/se"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    found = re.search(r"remove (.+), then run: attnscope (.+) \[AS\d+\]$", line)
    assert found, line
    assert Path(found[1]) == recording
    shutil.rmtree(found[1])
    assert main(shlex.split(found[2])) == 0
    assert arrays.read_bytes() == whole


def test_the_comparison_says_that_networks_were_trained_differently(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ["--out", "out"]
    refused_command(
        capsys, "AS924", "compare", runs / "se", runs / "se", *out, names=(runs / "se",)
    )
    copy = copy_of(runs / "se", tmp_path / "copy")
    refused_command(capsys, "AS924", "compare", runs / "se", copy, *out, names=(copy,))
    assert not Path("out").exists()
    assert main(["compare", str(runs / "se"), str(runs / "cbam"), *out]) == 0
    assert "trained differently" not in capsys.readouterr().out
    other = copy_of(runs / "cbam", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "epochs": 60}))
    assert main(["compare", str(runs / "se"), str(other), "--out", "again"]) == 0
    sentence = "They were also trained differently: epochs 1 and 60."
    assert sentence in capsys.readouterr().out


def test_a_network_of_other_classes_is_not_captured(
    images: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(runs / "se", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"] = "digits"
    (run / "config.json").write_text(json.dumps(config))
    refused(capsys, "AS537", "capture", run, "--out", tmp_path / "recording", names=("digits",))
    (run / "config.json").write_text("{}")
    refused(
        capsys, "AS531", "capture", run, "--out", tmp_path / "recording", names=("config.json",)
    )


def test_comparisons_need_two_runs_of_the_same_images(
    runs: Path,
    make_recording: Callable[..., Recording],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = make_recording("other").folder
    out = tmp_path / "comparison"
    refused_command(capsys, "AS959", "compare", runs / "se", "--out", out, names=(runs / "se",))
    refused(capsys, "AS720", "compare", runs / "se", other, "--out", out)
    refused_command(capsys, "AS955", "report", names=("RUN",))
    assert not out.exists()


def test_unreadable_training_images_are_refused_or_skipped(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(images, tmp_path / "images")
    (root / "train" / "dark" / "empty.png").write_bytes(b"")
    source = ["--data", f"folder:{root}"]
    names = ("1 of 37", "train/dark/empty.png", "--skip-unreadable")
    refused(capsys, "AS212", "train", *source, *SMALL, "--out", tmp_path / "run", names=names)
    assert not (tmp_path / "run").exists()
    given = [*source, *SMALL, "--skip-unreadable", "--out", str(tmp_path / "run")]
    assert main(["train", *given]) == 0
    assert "train/dark/empty.png" in capsys.readouterr().err
    assert main(["capture", str(tmp_path / "run")]) == 0


def test_a_loss_that_is_not_finite_exits_with_1_and_one_line(
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
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("attnscope: ")
    assert "step 1" in line
