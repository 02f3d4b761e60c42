"""`attnscope analyze`: everything in one command that continues where it was.

This file has more than 400 lines, because all tests share one folder of a user.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import attnscope
from attnscope import Recording, analyzing, build_model
from attnscope.capturing import run as capturing_run
from attnscope.commands.main import main
from attnscope.data.load import DataSettings
from attnscope.interventions.run import intervene
from attnscope.networks.weights import save_weights
from attnscope.recording.outcomes import find_outcomes
from attnscope.runs import Run
from tests.making import refused, refused_command, write_images
from tests.plots.reading import only

THEIRS = """
import torch
from torch import nn
from torch.utils.data import Dataset
from attnscope import build_model


class Gated(nn.Module):
    def __init__(self, scores=True):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
        self.scores = scores

    def forward(self, x):
        x = self.conv(x)
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return {"logits": self.fc(x.mean((2, 3))), "map": x} if self.scores else {"map": x}


class Images(Dataset):
    classes = ["dark", "light"]

    def __len__(self):
        return 24

    def __getitem__(self, i):
        x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) / 2 + i % 2 / 2
        return x, i % 2


class Unlabeled(Images):
    def __getitem__(self, i):
        return super().__getitem__(i)[0]


def seeded(model):
    torch.manual_seed(0)
    return model()


def gated():
    return seeded(Gated)


def without_scores():
    return seeded(lambda: Gated(scores=False))


def without_gates():
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 2)))
"""
DATA, OUT = ["--data", "folder:images"], ["--out", "there"]
GATED = ["theirs:gated", "--weights", "gated.safetensors", *DATA, *OUT]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user. Few figures and one short experiment, to be quick."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_images(tmp_path / "images", train=12, test=12)
    save_weights(__import__("theirs").gated(), tmp_path / "gated.safetensors")
    only(monkeypatch, "gate_state", "confusion_matrix", "decodable_and_used", "training_curves")
    monkeypatch.setattr(analyzing, "intervene", briefly)
    return tmp_path


def briefly(recording: Recording, **options: object) -> object:
    return intervene(recording, **{"experiments": ["replace"], "images": 8, **options})  # type: ignore[arg-type]


def analyze(*arguments: str) -> None:
    assert main(["analyze", *arguments, "--device", "cpu"]) == 0


def written(folder: Path) -> dict[str, int]:
    """The files of an analysis, with the times at which they were written."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in files}


def changed(before: dict[str, int], folder: Path) -> set[str]:
    """The stages whose files were written again or are new."""
    after = written(folder)
    names = {name for name in after if before.get(name) != after[name]} - {"analysis.json"}
    return {name.split("/")[0] for name in names}


def test_a_network_gets_everything_in_one_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyze(*GATED)
    out, shown = capsys.readouterr()
    there = Path("there")
    recording = Recording(there / "recordings" / "test")
    assert len(recording) == 24
    assert [gate.kind for gate in recording.gates] == ["channel"]
    assert out.splitlines()[-2:] == [
        "Report: there/report.html",
        "Next: attnscope dashboard there",
    ]
    assert "accuracy" in out
    assert "<html" in (there / "report.html").read_text(encoding="utf-8")
    assert {"gate_state.png", "confusion_matrix.pdf"} <= set(written(there / "figures"))
    states = pd.read_csv(there / "statistics" / "gate_state.csv")
    pd.testing.assert_frame_equal(states, attnscope.statistics.gate_state(recording))
    outcomes = find_outcomes(recording)
    assert outcomes is not None
    assert set(outcomes.tables["effects"]["images"]) == {8}
    stages = dict.fromkeys(re.findall(r"(\d/5 \w+)", shown))
    assert list(stages) == [
        "1/5 capture",
        "2/5 statistics",
        "3/5 interventions",
        "4/5 figures",
        "5/5 report",
    ]


def test_finished_stages_are_not_repeated(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = folder / "there"
    analyze(*GATED)
    before = written(there)
    for command in (GATED, ["--model", *GATED], ["there"], ["there/recordings/test"]):
        capsys.readouterr()
        analyze(*command)
        assert written(there) == before, "nothing is written again"
        expected = "Finished before: capture, statistics, interventions, figures, report"
        assert expected in capsys.readouterr().err
    (there / "report.html").unlink()
    analyze("there")
    assert changed(before, there) == {"report.html"}
    # Figures and report show other interventions, and statistics do not depend on them.
    before = written(there)
    assert main(["intervene", "there", "--experiments", "decode", "--images", "8"]) == 0
    analyze(*GATED)
    assert changed(before, there) == {"interventions", "figures", "report.html"}
    before = written(there)
    (there / "analysis.json").write_text("no JSON")
    analyze("there", "--skip", "interventions", "figures")
    assert changed(before, there) == {"statistics", "report.html"}
    monkeypatch.setattr(analyzing, "__version__", "another")
    before = written(there)
    analyze("there", "--skip", "interventions", "figures")
    assert changed(before, there) == {"statistics", "report.html"}


def test_masks_are_checked_before_the_work_and_used_by_every_stage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", *GATED, "--masks", "nowhere.csv"]) == 2
    assert "[AS250]" in capsys.readouterr().err
    assert not Path("there").exists()
    analyze(*GATED)
    before = written(Path("there"))
    names = Recording("there/recordings/test").rows["path"]
    lines = ["image,x0,y0,x1,y1", *(f"{name},0,0,4,8" for name in names)]
    Path("boxes.csv").write_text("\n".join(lines))
    capsys.readouterr()
    analyze("there", "--masks", "boxes.csv")
    assert "Masks: " in capsys.readouterr().out
    assert {"statistics", "figures", "report.html"} <= changed(before, Path("there"))
    table = pd.read_csv("there/statistics/localization_summary.csv")
    expected = attnscope.statistics.localization_summary(Recording("there/recordings/test"))
    pd.testing.assert_frame_equal(table, expected)
    assert len(table)
    before = written(Path("there"))
    analyze("there")
    assert changed(before, Path("there")) == set(), "they are stored"


def test_the_time_for_interventions_is_an_option(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def noted(recording: Recording, **options: object) -> object:
        given.append(options.get("minutes"))
        return briefly(recording, **options)

    monkeypatch.setattr(analyzing, "intervene", noted)
    skip = ["--skip", "statistics", "figures", "report"]
    for minutes in ("0.5", "0.5", "2"):
        analyze(*GATED, "--minutes", minutes, *skip)
    analyze(*GATED, *skip)
    assert given == [0.5, 2.0, None], "a finished stage is not repeated"


@pytest.mark.parametrize("stage", ["write_tables", "intervene", "write_figures", "write_report"])
def test_an_interrupted_analysis_continues(
    stage: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(analyzing, stage, stop)
        assert main(["analyze", *GATED]) == 130
    assert "continues" in capsys.readouterr().err.splitlines()[-1]
    kept = written(folder / "there")
    monkeypatch.setattr(capturing_run, "capture_source", stop)  # else exit code 130
    analyze(*GATED)
    after = written(folder / "there")
    assert {"report.html", "figures/gate_state.png", "statistics/gate_state.csv"} <= after.keys()
    kept.pop("analysis.json", None)
    assert kept.items() <= after.items()


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("without_gates", DATA, "interventions are left out: .* no gates"),
        ("without_scores", DATA, "interventions are left out: .* no class scores"),
        ("gated", ["--data", "theirs:Unlabeled"], "interventions are left out: .* no labels"),
    ],
)
def test_a_stage_that_cannot_answer_is_left_out_with_its_reason(
    target: str,
    options: list[str],
    said: str,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):  # also when the stage is not repeated
        caplog.clear()
        analyze(f"theirs:{target}", *options, *OUT)
        assert [line for line in caplog.messages if re.match(said, line)]
        assert [line for line in caplog.messages if line.startswith("statistics ")]
    assert (folder / "there" / "report.html").is_file()
    assert not (folder / "there" / "interventions").exists()


def test_changed_and_missing_weights_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    light = ["--skip", "interventions", "figures", "report"]  # nothing opens the network
    analyze(*GATED, *light)
    weights = folder / "gated.safetensors"
    whole = weights.read_bytes()
    torch.manual_seed(1)
    save_weights(__import__("theirs").Gated(), weights)
    refused_command(capsys, "AS331", "analyze", *GATED, *light, names=(weights,))
    refused_command(capsys, "AS331", "intervene", "there", names=(weights,))
    refused_command(capsys, "AS331", "analyze", "there", names=(weights,))  # to intervene
    weights.unlink()
    refused_command(capsys, "AS330", "analyze", *GATED, *light, names=(weights,))
    weights.write_bytes(whole)
    analyze(*GATED, "--skip", "figures", "report")


def test_changed_code_is_refused_by_the_logits(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are the same, so only the outputs tell."""
    analyze(*GATED, "--skip", "interventions", "figures", "report")
    (folder / "theirs.py").write_text(THEIRS.replace("x.mean((2, 3)))", "x.amax((2, 3)))"))
    monkeypatch.delitem(sys.modules, "theirs")
    for command in ("analyze", "intervene"):
        refused_command(capsys, "AS809", command, "there", names=("there",))


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (["theirs:without_scores", *DATA], ("theirs:gated", "theirs:without_scores")),
        (["theirs:gated", *DATA], ("gated.safetensors",)),
        ([*GATED[:3], "--data", "digits"], ("digits", "images")),
        ([*GATED, "--image-size", "32"], ("image size", "32")),
        ([*GATED, "--output", "none"], ("output", "logits", "none")),
        ([*GATED, "--mean", *"000", "--std", *"111"], ("normalization",)),
    ],
)
def test_a_folder_of_something_else_is_refused(
    other: list[str], names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    skip = ["--skip", "interventions", "figures", "report"]
    analyze(*GATED, *skip)
    refused_command(capsys, "AS644", "analyze", *other, *OUT, *skip, names=names)
    analyze(*GATED, "--output", "logits", *skip)


def test_weights_that_are_drawn_anew_are_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["theirs:Gated", *DATA, *OUT]
    refused_command(capsys, "AS329", "analyze", *command, names=("theirs:Gated", "--weights FILE"))
    assert not (folder / "there").exists()
    command = ["theirs:Gated", "--data", "theirs:Images", *OUT]
    refused_command(capsys, "AS329", "analyze", *command, names=("theirs:Gated", "--weights FILE"))
    assert not (folder / "there").exists()
    analyze(*command, "--skip", "interventions", "figures", "report")
    assert "theirs:Gated" in str(Recording("there/recordings/test").about["notes"])


def test_a_network_that_is_built_with_its_weights_needs_no_file(folder: Path) -> None:
    state = torch.get_rng_state()
    analyze("theirs:gated", *DATA, *OUT, "--skip", "figures", "report")
    assert "notes" not in Recording("there/recordings/test").about
    source = Recording("there/recordings/test").source()
    torch.set_rng_state(state)
    model = source.network.load().model
    before = torch.get_rng_state()
    assert not source.network.draws_weights(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_split_has_its_own_results(folder: Path) -> None:
    analyze(*GATED)
    before = written(folder / "there")
    analyze(*GATED, "--split", "train", "--skip", "interventions")
    after = written(folder / "there")
    assert before.items() <= after.items()
    new = {"report-train.html", "analysis-train.json", "figures/train/gate_state.png"}
    assert new | {"statistics/train/gate_state.csv"} <= after.keys() - before.keys()


def test_a_run_and_a_recording_take_their_own_places(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--attention", "se", "--width", "16", "--reduction", "4", "--epochs", "1"]
    assert main(["train", *options, *DATA, "--device", "cpu", "--out", "run"]) == 0
    analyze("run", "--images", "4")
    run = Run("run")
    outcomes = run.interventions()
    assert outcomes is not None
    assert outcomes.about["images"] == 4
    assert (folder / "run" / "report.html").is_file()
    assert "training_curves.png" in written(folder / "run" / "figures")
    recorded = [*GATED[:5], "--out", "mine"]
    assert main(["capture", "--model", *recorded]) == 0
    analyze("mine")
    assert {"report.html", "analysis.json"} <= written(folder / "mine").keys()
    assert (folder / "mine-interventions" / "about.json").is_file()
    assert main(["verify", "mine"]) == 0
    for command in ("figures", "verify", "intervene"):
        refused_command(capsys, "AS601" if command == "figures" else "AS530", command, "none")
    # The weights of a run belong to its recording.
    torch.manual_seed(5)
    other = build_model(attention="se", width=16, reduction=4, num_classes=2)
    save_weights(other, folder / "run" / "model.safetensors")
    refused_command(capsys, "AS331", "analyze", "run", names=("model.safetensors",))


def test_python_does_the_same(folder: Path) -> None:
    analyze(*GATED, "--image-size", "16")
    data = DataSettings("folder:images", image_size=16)
    known = {"weights": "gated.safetensors", "progress": False}
    made = attnscope.analyze("theirs:gated", "there", data=data, **known)  # type: ignore[arg-type]
    assert made.reused == ("capture", "statistics", "interventions", "figures", "report")
    assert made.outcomes is not None
    again = attnscope.analyze(made.recording, skip=["report"], progress=False)
    assert again.report is None
    assert again.folder == Path("there")
    fresh = attnscope.analyze("theirs:gated", "fresh", data=data, **known)  # type: ignore[arg-type]
    assert fresh.reused == ()
    assert fresh.recording.id == made.recording.id
    assert "report.html" in repr(fresh)


def test_what_is_missing_or_cannot_be_used_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused_command(capsys, "AS955", "analyze", names=("TARGET",))
    refused_command(capsys, "AS958", "analyze", *GATED[:3], *OUT, names=("--data",))
    refused_command(capsys, "AS958", "analyze", *GATED[:3], *DATA, names=("--out",))
    refused_command(capsys, "AS957", "analyze", "x", "--model", *GATED, names=("--model",))
    refused_command(capsys, "AS530", "analyze", "none", names=("none", "timm:NAME"))
    refused_command(capsys, "AS530", "analyze", "none", *DATA, names=("none",))
    refused_command(capsys, "AS957", "analyze", "none", *OUT, names=("--out",))
    refused_command(capsys, "AS953", "analyze", *GATED, "--skip", "capture", names=("--skip",))
    assert not (folder / "there").exists()
    with refused("AS958", names=("data",)):
        attnscope.analyze("theirs:gated", "there")
    with refused("AS958", names=("out",)):
        attnscope.analyze("theirs:gated", data="digits")
    with refused("AS957", names=("weights",)):
        attnscope.analyze("none", weights="x.pth")
    with refused("AS102", names=("capture", "figures")):
        attnscope.analyze("theirs:gated", "there", data="digits", skip=["capture"])


def test_train_can_capture_at_its_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--attention", "se", "--width", "16", "--reduction", "4", "--epochs", "1"]
    options += [*DATA, "--device", "cpu"]
    assert main(["train", *options, "--out", "run", "--capture"]) == 0
    out = capsys.readouterr().out
    assert "24 images" in out
    assert "attnscope capture" not in out
    recording = Run("run").recording()
    assert main(["train", *options, "--out", "plain"]) == 0
    assert not Run("plain").recording_folder("test").exists()
    assert main(["capture", "plain"]) == 0
    own, expected = recording.folder / "shards", Run("plain").recording().folder / "shards"
    for file in ("arrays.safetensors", "rows.parquet"):
        same = (own / "00000" / file).read_bytes() == (expected / "00000" / file).read_bytes()
        assert same, f"{file} is that of attnscope capture"
    config = json.loads((folder / "run" / "config.json").read_text())
    assert "capture" not in config


def test_an_interrupted_capture_of_a_training_names_the_command_that_continues(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    options = ["--model", "resnet18", "--width", "16", "--epochs", "1", "--device", "cpu", *DATA]
    with monkeypatch.context() as patched:
        patched.setattr(capturing_run, "capture_source", stop)
        assert main(["train", *options, "--out", "run", "--capture"]) == 130
    assert "attnscope capture run" in capsys.readouterr().err.splitlines()[-1]
    assert main(["capture", "run", "--device", "cpu"]) == 0
