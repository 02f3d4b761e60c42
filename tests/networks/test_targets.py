"""Networks by name, and `attnscope inspect` on them."""

from __future__ import annotations

import builtins
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnscope.commands.main import main
from attnscope.data.load import load_data
from attnscope.errors import InputError
from attnscope.files import write_json
from attnscope.networks.build import build_model
from attnscope.networks.summary import describe_gates
from attnscope.networks.targets import load_target
from attnscope.networks.weights import save_model, save_weights
from attnscope.recording.recording import Recording

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


built = network()
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in the current folder."""
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "broken_networks.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    for name in ("own_networks", "broken_networks"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_model(build_model("resnet18", attention="se", width=16), folder)
    normalization = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}
    write_json(folder / "config.json", {"image_size": 24, "normalization": normalization})
    return folder


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["own_networks:network", "own_networks:built"])
def test_a_network_of_the_users_own(name: str) -> None:
    path = list(sys.path)
    target = load_target(name)
    assert isinstance(target.model, nn.Sequential)
    assert not target.model.training
    assert (target.image_size, target.normalization) == (224, None)
    assert sys.path == path


def test_a_run(run_folder: Path) -> None:
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


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    {
        "nothing": "no network 'nothing'; take a run folder, timm:NAME",
        "timm:resnet19": "timm has no network 'resnet19'",
        "torchvision:resnet19": "torchvision has no network 'resnet19'",
        "own_networks:other": "module 'own_networks' has no callable 'other'",
        "own_networks:number": "module 'own_networks' has no callable 'number'",
        "own_networks:takes_arguments": "cannot be built without arguments.*channels",
        "own_networks:no_network": "returned int, not a torch.nn.Module",
        "not_there:network": "'not_there' cannot be imported .*ModuleNotFoundError",
        "broken_networks:network": "nothing_of_this_name",
    }.items(),
)
def test_what_cannot_be_built_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_target(name)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("own")
def test_the_number_of_classes_is_not_passed_to_own_code() -> None:
    with pytest.raises(InputError, match="leave the number of classes out"):
        load_target("own_networks:network", num_classes=3)
    with pytest.raises(InputError, match="number of classes is 0"):
        load_target("timm:resnet18", num_classes=0)


def test_without_timm_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"pip install 'attnscope\[timm\]'"):
        load_target("timm:resnet18")


@pytest.mark.usefixtures("own")
def test_inspect_prints_gates_and_what_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "own_networks:network", "--image-size", "16"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][:7] == ["1", "channel", "4", "sigmoid", "0", "to", "1"]
    assert lines[3][:3] == ["1#2", "spatial", "16×16"]
    assert lines[-1] == ["relu6", "1", "consumed", "by", "adaptive_avg_pool2d"]


@pytest.mark.usefixtures("own")
def test_inspect_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "own_networks:network", "--image-size", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [g["name"] for g in found["gates"]] == ["1", "1#2"]
    assert found["gates"][1]["grid"] == [16, 16]
    assert found["ungated"][0]["activation"] == "relu6"


def test_ranges_are_those_of_the_images() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gates = torch.sigmoid(images.mean((2, 3)))
    found = describe_gates(Net(), images, "five images")
    assert found.ranges == {"": (float(gates.min()), float(gates.max()))}
    assert "what was seen on five images" in str(found)


def test_inspect_says_when_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "torchvision:resnet18", "--image-size", "32"]) == 0
    assert capsys.readouterr().out.startswith("no gates")


@pytest.mark.usefixtures("own")
def test_inspect_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["nothing"], "no network 'nothing'"),
        (["own_networks:network", "--image-size", "4"], "image size is 4"),
        (["torchvision:vit_b_16", "--image-size", "32"], "does not run on images of 3×32×32"),
    ):
        assert main(["inspect", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


CAPTURE = ["capture", "--model", "own_networks:classifier", "--data", "digits"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("given", [False, True], ids=["measured", "given"])
def test_capture_of_the_users_own_network(given: bool, tmp_path: Path) -> None:
    model = load_target("own_networks:classifier").model
    nn.init.normal_(model[1].weight)  # other weights than it is built with
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


def test_capture_gives_others_networks_as_many_classes_as_the_data(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = load_target("timm:mobilenetv3_small_050", 10).model
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    options = ["--model", "timm:mobilenetv3_small_050", "--weights", str(tmp_path / "weights.pth")]
    options += ["--data", "digits", "--moments", "--out", str(tmp_path / "moments")]
    assert main(["capture", *options]) == 0
    assert (tmp_path / "moments" / "manifest.json").is_file()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["capture"], "takes a run folder, or --model with --data and --out"),
        (["capture", "run", *CAPTURE[1:], "--out", "x"], "takes a run folder, or --model"),
        (["capture", "run", "--data", "digits"], "--data is for --model"),
        (["capture", "run", "--image-size", "16"], "--image-size is for --model"),
        (CAPTURE, "needs --data .* and --out"),
        ([*CAPTURE[:3], "--out", "x"], "needs --data .* and --out"),
        ([*CAPTURE, "--out", "x", "--mean", "0", "0", "0"], "--mean and --std belong together"),
        ([*CAPTURE, "--out", "x", "--mean", "0", "0", "0", "--std", "1", "0", "1"], "above 0"),
        ([*CAPTURE, "--out", "x", "--weights", "none.pth"], "none.pth do not exist"),
        ([*CAPTURE, "--out", "x", "--weights", "broken_networks.py"], "refused"),
        ([*CAPTURE, "--out", "."], "exists already"),
        (
            ["capture", "--model", "own_networks:network", "--data", "digits", "--out", "x"],
            "knows 4 classes, the data set 10",
        ),
        (
            ["capture", "--model", "timm:resnet18", "--data", "digits", "--out", "x"],
            "random weights; give --weights",
        ),
    ],
)
def test_capture_refuses_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert [f for f in sorted(tmp_path.iterdir()) if f.name != "__pycache__"] == before
