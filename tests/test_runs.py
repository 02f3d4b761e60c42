"""`Run` against the files of a run folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attnscope.commands.main import main
from attnscope.recording.outcomes import Outcomes, write_outcomes
from attnscope.recording.recording import Recording
from attnscope.runs import Run, open_captured, open_recording, open_untrained
from tests.making import refused, write_images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    images = write_images(root / "images")
    options = ["--attention", "se", "--width", "16", "--reduction", "4", "--epochs", "1"]
    options += ["--data", f"folder:{images}", "--device", "cpu", "--seed", "3"]
    assert main(["train", *options, "--out", str(root / "se")]) == 0
    for more in ([], ["--untrained", "--draws", "2"], ["--moments"], ["--split", "validation"]):
        assert main(["capture", str(root / "se"), "--device", "cpu", *more]) == 0
    return root / "se"


def test_a_run_returns_the_contents_of_its_folder(run: Path) -> None:
    of = Run(run)
    config = json.loads((run / "config.json").read_text())
    assert (of.name, of.config) == ("se", config)
    assert of.result == json.loads((run / "result.json").read_text())
    assert list(of.normalization.mean) == config["normalization"]["mean"]
    assert (of.classes, of.image_size) == (["dark", "light"], 16)
    weights = load_file(run / "model.safetensors")
    assert all(torch.equal(v, weights[k]) for k, v in of.model().state_dict().items())
    assert not of.model().training
    assert of.recording().folder == of.recording("test").folder == run / "recordings" / "test"
    assert of.recording("validation").folder == run / "recordings" / "validation"
    assert of.moments().folder == run / "moments" / "test"
    assert of.untrained_recording().folder == run / "untrained" / "test"
    assert of.interventions() is None


def test_paths_of_files_and_folders(run: Path) -> None:
    of = Run(str(run))
    assert of.figures == run / "figures"
    assert of.figures_folder("train") == run / "figures" / "train"
    assert of.interventions_folder("test") == run / "interventions" / "test"
    assert of.weights_file == run / "model.safetensors"
    assert of.metrics_file.is_file()
    assert of.steps_file == run / "steps.csv"
    assert of.training_images_file.is_file()
    assert of.captured_folder("test") == run / "recordings" / "test"
    assert of.captured_folder("test", moments=True) == run / "moments" / "test"
    assert of.captured_folder("test", untrained=True) == run / "untrained" / "test"
    both = of.captured_folder("train", untrained=True, moments=True)
    assert both == run / "untrained" / "moments" / "train"


def test_splits_are_those_of_training_and_give_the_recorded_logits(run: Path) -> None:
    of = Run(run)
    data = of.data()
    assert {name: len(of.split(name)) for name in ("train", "validation", "test")} == {
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
    }
    assert of.split("validation").paths == of.recording("validation").rows["path"].tolist()
    with torch.no_grad():
        logits = of.model()(of.normalization.apply(of.split("test").images))
        untrained = of.untrained_model()(of.normalization.apply(of.split("test").images))
    np.testing.assert_allclose(logits, of.recording().logits, rtol=1e-4, atol=1e-4)
    recorded = of.untrained_recording().logits
    np.testing.assert_allclose(untrained, recorded, rtol=1e-4, atol=1e-3)
    with refused("AS536", names=("'all'", "train, validation, test")):
        of.split("all")


def test_interventions_of_another_recording_are_ignored(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    of = Run(copy)
    about = {"name": "se", "recording": of.recording().id, "experiments": []}
    write_outcomes(copy / "interventions" / "test", Outcomes(about, None, {}))
    found = of.interventions("test")
    assert found is not None
    assert found.about["recording"] == of.recording().id
    (copy / "interventions" / "test" / "about.json").write_text(
        json.dumps({**about, "recording": "0" * 64})
    )
    assert of.interventions("test") is None
    assert str(copy / "interventions" / "test") in caplog.text


def test_open_functions_accept_runs_and_recordings(run: Path, tmp_path: Path) -> None:
    inside = run / "recordings" / "test"
    assert open_recording(run).folder == open_recording(inside).folder == inside
    assert open_recording(run, "validation").folder.name == "validation"
    shutil.copytree(run / "recordings", tmp_path / "bare" / "recordings")
    assert len(open_recording(tmp_path / "bare")) == len(open_recording(run))
    assert open_captured(run / "moments" / "test").kind == "moments"
    assert open_captured(run).kind == "recording"
    untrained = open_untrained(open_recording(run))
    places = [run / "untrained" / "test", run / "untrained" / "draw-1" / "test"]
    assert [each.folder.resolve() for each in untrained] == [each.resolve() for each in places]
    assert open_untrained(open_recording(run, "validation")) == []
    holding = Run.holding(open_recording(run))
    assert holding is not None
    assert holding.folder == run.resolve()
    shutil.copytree(inside, tmp_path / "alone")
    assert Run.holding(open_recording(tmp_path / "alone")) is None
    assert open_untrained(open_recording(tmp_path / "alone")) == []


def test_draws_of_untrained_networks_differ_and_are_found_again(run: Path) -> None:
    first, second = open_untrained(open_recording(run))
    assert (first.name, second.name) == ("se (untrained)", "se (untrained, draw 1)")
    assert not np.array_equal(first.logits, second.logits)
    for draw, recording in enumerate((first, second)):
        again = recording.network().state_dict()
        expected = Run(run).untrained_model(draw).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in again.items())
    assert main(["capture", str(run), "--untrained", "--draws", "2", "--device", "cpu"]) == 2
    assert main(["capture", str(run), "--draws", "2", "--device", "cpu"]) == 2
    assert main(["capture", str(run), "--untrained", "--draws", "0", "--device", "cpu"]) == 2


def test_norms_of_an_untrained_network_have_the_statistics_of_training_images(run: Path) -> None:
    model = Run(run).untrained_model()
    split = Run(run).split("train")
    x = Run(run).normalization.apply(split.images)
    seen: list[torch.Tensor] = []
    model.bn1.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x)
    values = seen[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(model.bn1.running_mean, values.mean(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.bn1.running_var, values.var(1), rtol=1e-3, atol=1e-4)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(m.momentum == 0.1 and not m.training for m in norms)
    assert not any(torch.equal(m.running_var, torch.ones_like(m.running_var)) for m in norms)


def test_an_untrained_recording_of_an_earlier_version_opens_the_network_that_it_had(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "se")
    recording = Recording(tmp_path / "se" / "untrained" / "test")
    del recording.about["estimated_norms"]  # which that version did not write
    model = recording.source().open_network()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(torch.equal(m.running_var, torch.ones_like(m.running_var)) for m in norms)


def test_missing_folders_and_files_are_refused_with_the_remedy(run: Path, tmp_path: Path) -> None:
    with refused("AS530", names=(tmp_path / "none", "attnscope train")):
        Run(tmp_path / "none")
    with refused("AS532", names=(f"attnscope capture {run} --split train",)):
        Run(run).recording("train")
    with refused("AS533", names=(f"attnscope capture {run} --split train --moments",)):
        Run(run).moments("train")
    with refused("AS534", names=(f"attnscope capture {run} --split train --untrained",)):
        Run(run).untrained_recording("train")
    with refused("AS539", names=(tmp_path, "--resume")):
        _ = Run(tmp_path).result
    with refused("AS535", names=(tmp_path,)):
        open_recording(tmp_path)
    config = tmp_path / "config.json"
    for text, problem in (("{}", "'normalization'"), ("[]", "JSON object")):
        config.write_text(text)
        with refused("AS531", names=(config, problem)):
            _ = Run(tmp_path).normalization
    for text, problem in (("{}", "'data'"), ("[]", "JSON object")):
        config.write_text(text)
        with refused("AS531", names=(config, problem)):
            Run(tmp_path).split("test")


def test_repr_and_html_describe_the_run(run: Path, tmp_path: Path) -> None:
    accuracy = f"{json.loads((run / 'result.json').read_text())['test']['accuracy']:.1%}"
    for shown in (repr(Run(run)), Run(run)._repr_html_()):
        assert "\n" not in shown
        for value in ("se", "resnet18", "2 classes", accuracy, "validation and test"):
            assert value in shown
    assert "seed 3" in repr(Run(run))
    (tmp_path / "<b>").mkdir()
    bare = Run(tmp_path / "<b>")
    assert "config.json" in repr(bare)
    assert "<b>" not in bare._repr_html_()
    assert "&lt;b&gt;" in bare._repr_html_()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"classes": 3, "test": 1, "folded": 2}'])
def test_repr_does_not_raise_on_damaged_files(text: str, tmp_path: Path) -> None:
    for name in ("config.json", "model.json", "result.json"):
        (tmp_path / name).write_text(text)
    assert tmp_path.name in repr(Run(tmp_path))


def test_runs_and_recordings_are_read_without_torch(run: Path) -> None:
    script = (
        "import sys; from attnscope.runs import Run; import attnscope.commands.main\n"
        f"run = Run({str(run)!r}); run.recording().logits; run.normalization; run.config; repr(run)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
