"""The network and the images of a recording are opened again, or refused if they have changed."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attnscope import capture, load_data
from attnscope.capturing.run import capture_run, capture_source
from attnscope.capturing.settings import CaptureSettings
from attnscope.commands.main import main
from attnscope.data.load import DataSettings
from attnscope.data.normalization import Normalization
from attnscope.files import read_json
from attnscope.networks.build import build_model
from attnscope.networks.source import NetworkSource
from attnscope.networks.targets import load_target
from attnscope.networks.weights import save_weights
from attnscope.recording.moments import Moments
from attnscope.recording.outcomes import find_outcomes
from attnscope.recording.recording import Recording
from attnscope.runs import Run, open_captured
from attnscope.sources import Source
from tests.making import refused, refused_command, write_images

OURS = """
import torch
from torch import nn
from attnscope import build_model


def small():
    return build_model(attention="se", width=16, reduction=4, num_classes=2)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x)
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return self.fc(x.mean((2, 3)))


def unseeded():
    return Gated()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user: a module, weights and images."""
    (tmp_path / "theirs.py").write_text(OURS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    write_images(tmp_path / "images", train=24, test=40)
    torch.manual_seed(0)
    save_weights(load_target("theirs:small").model, tmp_path / "small.safetensors")
    save_weights(load_target("theirs:unseeded").model, tmp_path / "gated.safetensors")
    return tmp_path


def capture_target(folder: Path, target: str, weights: str | None, *options: str) -> Recording:
    given = ["--model", target, "--data", "folder:images", "--out", "there", "--device", "cpu"]
    given += [] if weights is None else ["--weights", weights]
    assert main(["capture", *given, *options]) == 0
    return Recording(folder / "there")


def logits_again(recording: Recording) -> np.ndarray:
    normalization = recording.source().network.normalization
    assert normalization is not None
    with torch.no_grad():
        return recording.network()(normalization.apply(recording.images().images)).numpy()


@pytest.mark.parametrize("given", [(), ("--split", "train"), ("--split", "validation")])
def test_reopened_network_gives_the_same_logits_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    """The capture was given relative paths."""
    recording = capture_target(folder, "theirs:small", "small.safetensors", *given)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    monkeypatch.syspath_prepend(str(folder))
    model = recording.network()
    assert not model.training
    np.testing.assert_allclose(logits_again(recording), recording.logits, rtol=1e-4, atol=1e-4)
    assert recording.images().paths == recording.rows["path"].tolist()
    source = recording.source()
    assert source.network.weights == folder / "small.safetensors"
    assert source.network.weights_sha256 == recording.about["weights_sha256"]
    assert (source.network.image_size, source.split) == (16, recording.split)
    assert Source.from_dict(json.loads(json.dumps(source.to_dict()))) == source
    assert recording.verify() == []


def test_timm_network_reopens_with_its_number_of_classes(folder: Path) -> None:
    torch.manual_seed(0)
    model = load_target("timm:mobilenetv3_small_050", 2).model
    torch.save(model.state_dict(), "mobile.pth")
    recording = capture_target(
        folder, "timm:mobilenetv3_small_050", "mobile.pth", "--image-size", "32", "--no-grad-cam"
    )
    assert recording.source().network.num_classes == 2
    assert recording.source().network.normalization == Normalization(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    np.testing.assert_allclose(logits_again(recording), recording.logits, rtol=1e-3, atol=1e-4)


def test_missing_and_changed_weights_are_refused(folder: Path) -> None:
    recording = capture_target(folder, "theirs:small", "small.safetensors")
    weights = folder / "small.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    with refused("AS330", names=(weights,)):
        recording.network()
    torch.manual_seed(1)
    save_weights(load_target("theirs:small").model, weights)
    with refused("AS331", names=(weights,)):
        recording.network()
    weights.write_bytes(whole)
    recording.network()
    # Even if the hash of the file is removed, the plan has the hash of the tensors.
    save_weights(load_target("theirs:small").model, weights)
    manifest = read_json(recording.folder / "manifest.json")
    manifest["source"]["network"]["weights_sha256"] = None
    (recording.folder / "manifest.json").write_text(json.dumps(manifest))
    with refused("AS642", names=("theirs:small", recording.folder)):
        Recording(recording.folder).network()


def test_without_its_own_plan_nothing_is_opened_unchecked(folder: Path) -> None:
    recording = capture_target(folder, "theirs:small", "small.safetensors")
    plan = recording.folder / "plan.json"
    whole = plan.read_bytes()
    plan.write_bytes(whole.replace(b'"data"', b'"date"'))
    for open_again in (recording.network, recording.images):
        with refused("AS681", names=(plan,)):
            open_again()
    plan.unlink()
    for open_again in (recording.network, recording.images):
        with refused("AS682", names=(plan,)):
            open_again()
    plan.write_bytes(whole)
    recording.network()
    # Recordings of version 0.1 have neither a plan nor the hash of one.
    plan.unlink()
    manifest = read_json(recording.folder / "manifest.json")
    del manifest["id"]
    (recording.folder / "manifest.json").write_text(json.dumps(manifest))
    Recording(recording.folder).network()


def test_callable_with_new_random_weights_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their recording says so, and so does every command that opens the network again."""
    recording = capture_target(folder, "theirs:unseeded", None, "--no-grad-cam")
    said = [line for line in capsys.readouterr().err.splitlines() if "--weights FILE" in line]
    assert [line for line in said if "theirs:unseeded" in line], "a line of the standard error"
    assert [note for note in recording.about["notes"] if "theirs:unseeded" in note]
    for command in ("intervene there", "fold there --out folded", "analyze there"):
        names = ("theirs:unseeded", recording.folder.name, "--weights FILE")
        refused_command(capsys, "AS642", *command.split(), names=names)
    shutil.rmtree(recording.folder)
    recording = capture_target(folder, "theirs:unseeded", "gated.safetensors", "--no-grad-cam")
    assert not [note for note in recording.about.get("notes", []) if "theirs:unseeded" in note]
    np.testing.assert_allclose(logits_again(recording), recording.logits, rtol=1e-4, atol=1e-5)


def test_missing_module_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = capture_target(folder, "theirs:small", "small.safetensors")
    monkeypatch.delitem(sys.modules, "theirs")
    (folder / "theirs.py").unlink()
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    with refused("AS324", names=("theirs",)):
        recording.network()


def test_changed_and_missing_images_are_refused(folder: Path) -> None:
    recording = capture_target(folder, "theirs:small", "small.safetensors")
    Image.new("RGB", (16, 16)).save(folder / "images" / "test" / "dark" / "0.png")
    named = (folder / "images", recording.folder, "1 image has other pixels (test/dark/0.png)")
    with refused("AS643", names=named):
        recording.images()
    shutil.rmtree(folder / "images")
    with refused("AS244", names=(folder / "images", recording.folder, "--data")):
        recording.images()


def test_recording_made_from_python_has_no_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(attention="se", width=16, reduction=4)
    test = load_data(image_size=8).test[slice(0, 8)]
    recording = capture(model, test, tmp_path / "r", progress=False)
    for action in (recording.network, recording.images, recording.source):
        with refused("AS640", names=(recording.folder,)):
            action()


@pytest.mark.parametrize("value", [3, [], {}, {"network": {"weights": None}}, "x"])
def test_recording_with_an_invalid_source_opens_but_its_network_is_refused(
    folder: Path, value: object
) -> None:
    recording = capture_target(folder, "theirs:small", "small.safetensors")
    file = recording.folder / "manifest.json"
    file.write_text(json.dumps({**read_json(file), "source": value}))
    again = Recording(recording.folder)
    assert again.id == recording.id
    with refused("AS641" if isinstance(value, dict) else "AS640", names=(recording.folder,)):
        again.network()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", test=12)
    options = ["--attention", "se", "--width", "16", "--reduction", "4", "--epochs", "1"]
    options += ["--data", "folder:images", "--device", "cpu", "--out", "run"]
    assert main(["train", *options]) == 0
    return tmp_path / "run"


def test_network_reopens_from_a_run_and_its_moved_copy(run: Path, tmp_path: Path) -> None:
    inside = capture_run(run, progress=False)
    outside = capture_run(Path("run"), out=tmp_path / "outside", progress=False)
    settings = CaptureSettings(moments=True)
    where = Run(run).captured_folder("test", untrained=True, moments=True)
    capture_source(Run(run).source(untrained=True), where, settings, progress=False)
    for recording in (inside, outside):
        np.testing.assert_allclose(logits_again(recording), recording.logits, rtol=1e-4, atol=1e-4)
    run.rename(tmp_path / "moved")
    fresh = Moments(tmp_path / "moved" / "untrained" / "moments" / "test").network().state_dict()
    expected = Run(tmp_path / "moved").untrained_model().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in fresh.items())
    moved = Recording(tmp_path / "moved")
    np.testing.assert_allclose(logits_again(moved), moved.logits, rtol=1e-4, atol=1e-4)
    with refused("AS330", names=(run,)):
        outside.network()
    save_weights(
        build_model(attention="se", width=16, reduction=4, num_classes=2),
        tmp_path / "moved" / "model.safetensors",
    )
    with refused("AS331", names=(tmp_path / "moved",)):
        moved.network()


def test_plan_and_id_do_not_depend_on_the_source(run: Path, tmp_path: Path) -> None:
    """A capture can then be resumed from a run that has moved, and ids stay the same."""
    first = capture_run(run, out=tmp_path / "a", progress=False)
    shutil.copytree(run, tmp_path / "copy" / "run")
    second = capture_run(tmp_path / "copy" / "run", out=tmp_path / "b", progress=False)
    assert first.id == second.id
    assert "source" not in json.loads((tmp_path / "a" / "plan.json").read_text())
    assert first.source() != second.source()


def test_recording_of_0_1_reopens_its_network_in_its_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(__file__).parents[1] / "compatibility" / "v0.1.tar.xz"
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    recording = Recording("run")
    np.testing.assert_allclose(logits_again(recording), recording.logits, rtol=0, atol=1e-3)
    assert recording.images().paths == recording.rows["path"].tolist()
    assert isinstance(Run("run").moments().network(), nn.Module)
    shutil.copytree(recording.folder, "alone")
    with refused("AS640", names=("alone",)):
        Recording("alone").network()


def test_intervene_and_fold_take_a_recording(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = capture_target(folder, "theirs:small", "small.safetensors")
    some = ["--images", "10", "--experiments", "replace", "--device", "cpu"]
    assert main(["intervene", "there", *some]) == 0
    assert (folder / "there-interventions" / "about.json").is_file()
    outcomes = find_outcomes(recording)
    assert outcomes is not None
    assert outcomes.replacement is not None
    own = outcomes.replacement[outcomes.replacement["edit"] == "own"]
    assert (own["prediction"] == recording.predictions[own["row"]]).all()

    gate = "layer4.1.attention.channel"
    options = ["--out", "folded", "--gates", gate, "--device", "cpu"]
    assert main(["fold", "there", *options]) == 0
    folded = Run("folded")
    assert folded.config["folded_from"]["weights_sha256"] == recording.about["weights_sha256"]
    assert folded.classes == ["dark", "light"]
    assert folded.normalization == recording.source().network.normalization
    assert main(["capture", "folded", "--device", "cpu"]) == 0
    assert [g.name for g in folded.recording().gates] == [
        g.name for g in recording.gates if g.name != gate
    ]
    capsys.readouterr()
    shutil.rmtree("there")
    capture_target(folder, "theirs:unseeded", "gated.safetensors", "--no-grad-cam")
    capsys.readouterr()
    assert main(["fold", "there", "--out", "none"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--gates" in error  # there are too few images to choose gates
    assert error.endswith("[AS864]\n")
    assert not Path("none").exists()


def test_fold_of_a_recording_in_a_run_equals_fold_of_the_run(run: Path) -> None:
    capture_run(run, progress=False)
    gates = ["--gates", "layer4.1.attention.channel", "--device", "cpu"]
    assert main(["fold", "run", "--out", "a", *gates]) == 0
    assert main(["fold", "run/recordings/test", "--out", "b", *gates]) == 0
    assert Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
    assert {**Run("a").config, "folded_from": 0} == {**Run("b").config, "folded_from": 0}
    assert open_captured(run).source().network.is_run


def test_invalid_and_contradicting_settings_are_refused() -> None:
    for settings, code, names in (
        ({"batch_size": 0}, "AS671", ("batch_size", "0")),
        ({"shard_images": 0}, "AS671", ("shard_images", "0")),
        ({"attribution_images": -1}, "AS671", ("attribution_images", "-1")),
        ({"precision": "fp16"}, "AS670", ("fp16",)),
        ({"moments": True, "pooled_inputs": True}, "AS672", ()),
        ({"moments": True, "attributions": ["occlusion"]}, "AS673", ()),
    ):
        with refused(code, names):
            CaptureSettings(**settings)
    with refused("AS223"):
        Normalization((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
    network = NetworkSource("timm:resnet18")
    with refused("AS329", names=("timm:resnet18",)):
        network.expect_weights()
    with refused("AS536", names=("all",)):
        Source(network, DataSettings(), "all")
