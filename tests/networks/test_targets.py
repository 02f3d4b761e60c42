"""Targets are loaded by name, inspected and captured."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnscope.commands.main import main
from attnscope.data.load import load_data
from attnscope.files import write_json
from attnscope.networks.build import build_model
from attnscope.networks.summary import describe_gates
from attnscope.networks.targets import load_target
from attnscope.networks.weights import save_model, save_weights
from attnscope.recording.recording import Recording
from tests.making import refused, refused_command, write_images

OWN = """
import torch
from torch import nn


class Block(nn.Module):
    def forward(self, x):
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return nn.functional.relu6(x * torch.sigmoid(x.mean(1, keepdim=True)))


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(network(), nn.Linear(4, 10))


def takes_arguments(channels):
    return Block()


def no_network():
    return 3


def ends():
    raise SystemExit


def of_sibling():
    import sibling_networks

    return sibling_networks.classifier()


built = network()
number = 3
"""


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python modules of a user in the current folder."""
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "broken_networks.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "ending_networks.py").write_text(f"{OWN}\nraise SystemExit(0)\n")
    (tmp_path / "sibling_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    for name in ("own_networks", "broken_networks", "ending_networks", "sibling_networks"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_model(build_model("resnet18", attention="se", width=16), folder)
    normalization = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}
    write_json(folder / "config.json", {"image_size": 24, "normalization": normalization})
    return folder


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize("name", ["own_networks:network", "own_networks:built"])
def test_a_callable_or_network_of_a_module_is_loaded(name: str) -> None:
    target = load_target(name)
    assert isinstance(target.model, nn.Sequential)
    assert not target.model.training
    assert (target.image_size, target.normalization) == (224, None)


@pytest.mark.usefixtures("own_modules")
def test_a_callable_can_import_modules_of_its_folder_when_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, here = list(sys.path), str(Path.cwd())
    for _ in range(2):
        assert isinstance(load_target("own_networks:of_sibling").model, nn.Sequential)
        assert sys.path == [*path, here], "installed packages come before the folder"
    with refused("AS324"):
        load_target("broken_networks:network")
    assert sys.path == [*path, here]
    monkeypatch.syspath_prepend(here)
    load_target("own_networks:of_sibling")
    assert sys.path[0] == here, "what the user has put first stays there"


def test_a_run_has_its_image_size_and_normalization(run_folder: Path) -> None:
    target = load_target(str(run_folder))
    assert target.image_size == 24
    assert target.normalization is not None
    assert tuple(target.normalization.std) == (1.0, 2.0, 3.0)


def test_timm_and_torchvision_build_without_downloading() -> None:
    model = load_target("timm:mobilenetv3_small_050", num_classes=7)
    assert model.model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert (model.image_size, model.normalization and model.normalization.mean) == (
        224, (0.485, 0.456, 0.406),
    )  # fmt: skip
    assert load_target("timm:inception_v3").image_size == 299
    model = load_target("torchvision:mobilenet_v3_small", num_classes=5)
    assert model.model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert model.normalization == load_target("torchvision:resnet18").normalization


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("name", "code", "named"),
    [
        ("nothing", "AS320", ("'nothing'", "timm:NAME, torchvision:NAME")),
        ("timm:resnet19", "AS323", ("timm", "'resnet19'")),
        ("torchvision:resnet19", "AS323", ("torchvision", "'resnet19'")),
        ("own_networks:other", "AS325", ("'own_networks'", "'other'")),
        ("own_networks:number", "AS325", ("'own_networks'", "'number'")),
        ("own_networks:takes_arguments", "AS326", ("own_networks:takes_arguments", "channels")),
        ("own_networks:no_network", "AS327", ("own_networks:no_network", "type int")),
        ("not_there:network", "AS324", ("'not_there'", "ModuleNotFoundError")),
        ("broken_networks:network", "AS324", ("'broken_networks'", "nothing_of_this_name")),
        ("ending_networks:network", "AS324", ("'ending_networks'", "__name__ == '__main__'")),
        ("own_networks:ends", "AS326", ("own_networks:ends", "ends the program")),
    ],
)
def test_a_target_that_cannot_be_built_is_refused(
    name: str, code: str, named: tuple[str, ...]
) -> None:
    with refused(code, names=named):
        load_target(name)


@pytest.mark.usefixtures("own_modules")
def test_the_number_of_classes_cannot_be_set_for_a_callable() -> None:
    with refused("AS328", names=("own_networks:network",)):
        load_target("own_networks:network", num_classes=3)
    with refused("AS306", names=(" 0;",)):
        load_target("timm:resnet18", num_classes=0)


def test_a_missing_timm_is_refused_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with refused("AS322", names=("pip install 'attnscope[timm]'",)):
        load_target("timm:resnet18")


@pytest.mark.usefixtures("own_modules")
def test_inspect_prints_gates_and_other_activations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "own_networks:network", "--image-size", "16"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][:7] == ["1", "channel", "4", "sigmoid", "0", "to", "1"]
    assert lines[3][:3] == ["1#2", "spatial", "16×16"]
    assert lines[-1] == ["relu6", "1", "returned", "by", "the", "network"]


@pytest.mark.usefixtures("own_modules")
def test_inspect_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "own_networks:network", "--image-size", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [g["name"] for g in found["gates"]] == ["1", "1#2"]
    assert found["gates"][1]["grid"] == [16, 16]
    assert found["ungated"][0]["activation"] == "relu6"


def test_ranges_are_the_extrema_on_the_images() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gates = torch.sigmoid(images.mean((2, 3)))
    found = describe_gates(Net(), images, "five images")
    assert found.ranges == {"sigmoid": (float(gates.min()), float(gates.max()))}
    assert found.sample == "five images"
    assert "five images" in str(found)


def test_inspect_prints_that_there_are_no_gates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "torchvision:resnet18", "--image-size", "32"]) == 0
    assert capsys.readouterr().out.startswith("no gates")


@pytest.mark.usefixtures("own_modules")
def test_inspect_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    refused_command(capsys, "AS320", "inspect", "nothing", names=("'nothing'",))
    for arguments, named in (
        (["own_networks:network", "--image-size", "4"], "4"),
        (["torchvision:vit_b_16", "--image-size", "32"], "3×32×32"),
    ):
        assert main(["inspect", *arguments]) == 2
        error = capsys.readouterr().err
        assert named in error
        assert error.count("\n") == 1


@pytest.mark.usefixtures("own_modules")
def test_a_file_is_not_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.pth").touch()
    for code, command in (("AS320", "inspect"), ("AS530", "analyze")):
        names = ("own_networks.py", "is a Python file", "own_networks:FUNCTION")
        refused_command(capsys, code, command, "own_networks.py", names=names)
        names = ("own.pth", "is a file and no network", "--weights")
        refused_command(capsys, code, command, "own.pth", names=names)
    given = ["--model", "own_networks:network", "--out", "x", "--data", "folder:own.pth"]
    refused_command(capsys, "AS204", "capture", *given, names=("own.pth is a file",))


CAPTURE = ["capture", "--model", "own_networks:classifier", "--data", "digits"]


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize("given", [False, True], ids=["measured", "given"])
def test_capture_records_the_gates_of_a_callable(given: bool, tmp_path: Path) -> None:
    model = load_target("own_networks:classifier").model
    nn.init.normal_(model[1].weight)  # not the weights that it is built with
    save_weights(model, tmp_path / "own.safetensors")
    options = ["--weights", "own.safetensors", "--image-size", "16", "--out", "captured"]
    if given:
        options += ["--mean", "0.1", "0.2", "0.3", "--std", "0.5", "0.6", "0.7"]
    assert main([*CAPTURE, *options]) == 0

    data = load_data("digits", image_size=16)
    x = data.normalization.apply(data.test.images)
    if given:
        mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
        x = (data.test.images / 255 - mean[:, None, None]) / std[:, None, None]
    recording = Recording(tmp_path / "captured")
    with torch.no_grad():
        features = model[0][0](x)
        expected = torch.sigmoid(features.mean((2, 3)))
        logits = model(x)
    assert recording.name == "classifier"
    assert recording.about["model"] == {"name": "own_networks:classifier"}
    assert len(recording.about["weights_sha256"]) == 64
    torch.testing.assert_close(torch.from_numpy(recording.channel("0.1")), expected)
    torch.testing.assert_close(torch.from_numpy(recording.logits), logits)


@pytest.mark.usefixtures("own_modules")
def test_capture_takes_a_network_in_the_place_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As analyze does."""
    save_weights(load_target("own_networks:classifier").model, tmp_path / "own.safetensors")
    options = ["--data", "digits", "--image-size", "16", "--weights", "own.safetensors"]
    given = ["capture", "own_networks:classifier", *options]
    refused_command(capsys, "AS958", *given, names=("--out",))
    refused_command(capsys, "AS957", *given, "--untrained", "--out", "x", names=("--untrained",))
    assert main([*given, "--out", "captured"]) == 0
    recording = Recording(tmp_path / "captured")
    assert recording.about["model"] == {"name": "own_networks:classifier"}


def test_capture_builds_timm_networks_with_the_classes_of_the_data(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = load_target("timm:mobilenetv3_small_050", 10).model
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    options = ["--model", "timm:mobilenetv3_small_050", "--weights", str(tmp_path / "weights.pth")]
    options += ["--data", "digits", "--moments", "--out", str(tmp_path / "moments")]
    assert main(["capture", *options]) == 0
    assert (tmp_path / "moments" / "manifest.json").is_file()


def test_capture_builds_timm_networks_for_gray_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", train=2, test=2)
    torch.manual_seed(0)
    model = load_target("timm:mobilenetv3_small_050", 2, channels=1).model
    torch.save(model.state_dict(), "weights.pth")
    command = ["--model", "timm:mobilenetv3_small_050", "--weights", "weights.pth"]
    command += ["--data", "folder:images", "--image-size", "32", "--out", "out"]
    refused_command(capsys, "AS347", "capture", *command, names=("1 channel:", "--channels 1"))
    assert main(["capture", *command, "--channels", "1", "--no-grad-cam"]) == 0
    recording = Recording("out")
    found = recording.network()
    assert found.conv_stem.in_channels == 1
    with torch.no_grad():
        normalization = recording.source().network.normalization
        expected = model.eval()(normalization.apply(recording.images().images))
    torch.testing.assert_close(torch.from_numpy(recording.logits), expected, atol=1e-4, rtol=1e-4)
    assert len(normalization.mean) == 1, "that of the training split, because timm's has three"


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([*CAPTURE, "--out", "x", "--mean", "0", "0", "0", "--std", "1", "0", "1"], "AS223", "0"),
        ([*CAPTURE, "--out", "x", "--weights", "none.pth"], "AS342", "none.pth"),
        ([*CAPTURE, "--out", "x", "--weights", "broken_networks.py"], "AS345", "broken_networks"),
        (
            ["capture", "--model", "timm:resnet18", "--data", "digits", "--out", "x"],
            "AS329",
            "timm:resnet18",
        ),
        (
            ["capture", "--model", "ending_networks:network", *CAPTURE[3:], "--out", "x"],
            "AS324",
            "ending_networks",
        ),
    ],
)
def test_capture_refuses_unusable_networks(
    arguments: list[str],
    code: str,
    named: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    before = sorted(tmp_path.iterdir())
    refused_command(capsys, code, *arguments, names=(named,))
    assert [f for f in sorted(tmp_path.iterdir()) if f.name != "__pycache__"] == before


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["capture"], "--model"),
        (["capture", "run", *CAPTURE[1:], "--out", "x"], "--model"),
        (["capture", "run", "--image-size", "16"], "--image-size"),
        (CAPTURE, "--out"),
        ([*CAPTURE[:3], "--out", "x"], "--data"),
        ([*CAPTURE, "--out", "x", "--mean", "0", "0", "0"], "--std"),
        ([*CAPTURE, "--out", "."], "already"),
        (
            ["capture", "--model", "own_networks:network", "--data", "digits", "--out", "x"],
            "4 classes",
        ),
    ],
)
def test_capture_refuses_contradictory_options_in_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert [f for f in sorted(tmp_path.iterdir()) if f.name != "__pycache__"] == before
