"""Summaries of networks, compared with counts by hand and with those of torchvision."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.commands.main import main
from attnscope.networks.build import build_model
from attnscope.networks.summary import GateShape, Layer, Summary, describe_gates, summarize
from attnscope.networks.weights import save_model
from tests.making import refused_command


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.gate = nn.Conv2d(4, 1, 1)
        self.fc = nn.Linear(4, 5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * torch.sigmoid(self.gate(x))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_shapes_and_counts_equal_those_by_hand() -> None:
    model = Toy().train()
    found = summarize(model, 16)
    layers = {layer.path: layer for layer in found.layers}
    assert list(layers) == ["conv", "gate", "fc", "unused"]
    assert layers["conv"].output == (4, 8, 8)
    assert layers["conv"].parameters == 3 * 4 * 9 + 4
    assert layers["conv"].multiply_adds == 8 * 8 * 4 * 3 * 9
    assert layers["gate"].multiply_adds == 8 * 8 * 4
    assert layers["fc"].multiply_adds == 4 * 5
    assert layers["unused"].output is None
    assert found.multiply_adds == 8 * 8 * 4 * 27 + 8 * 8 * 4 + 20
    assert found.parameters == sum(p.numel() for p in model.parameters())
    (gate,) = found.gates
    assert (gate.kind, gate.gate, gate.features) == ("spatial", (1, 8, 8), (4, 8, 8))
    assert gate.bounds == (0, 1)
    assert model.training
    assert not model.conv._forward_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_image_has_the_number_type_of_the_network(dtype: torch.dtype) -> None:
    model = Toy()
    assert summarize(copy.deepcopy(model).to(dtype), 16) == summarize(model, 16)


def half() -> nn.Module:
    return Toy().bfloat16()


def test_a_network_of_another_number_type_is_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"{__name__}:half", "--image-size", "16"]) == 0
    assert "spatial" in capsys.readouterr().out


def test_counts_of_resnet18_equal_those_of_torchvision() -> None:
    """torchvision documents 1.814 billion multiply-adds for ResNet18 at 224 pixels."""
    found = summarize(build_model(stem="imagenet", num_classes=1000), 224)
    assert found.parameters == 11_689_512
    assert found.multiply_adds / 1e9 == pytest.approx(1.814, abs=5e-4)
    assert found.gates == []


def test_reprs_count_layers_and_gates() -> None:
    found = summarize(Toy(), 16)
    assert repr(found) == (
        f"<Summary: 4 layers, 1 gate, {found.parameters:,} parameters, "
        f"{found.multiply_adds:,} multiply-adds for an image of 16×16 pixels>"
    )
    html = found._repr_html_()
    assert html.count("<table>") == 2
    assert html.count("<tr>") == (1 + 4 + 1) + (1 + 1)
    assert "<p>Summary: 4 layers" in html
    none = summarize(build_model(width=16), 32)
    assert none._repr_html_().count("<table>") == 1


def test_html_is_escaped() -> None:
    layer = Layer("<b>", "<i>", (1,), 1, 1)
    gate = GateShape("<a>", "<u>", (1,), (1,), (0.0, 1.0))
    html = Summary([layer], [gate], 1, 1, 8)._repr_html_()
    for name in ("b", "i", "a", "u"):
        assert f"&lt;{name}&gt;" in html
        assert f"<{name}>" not in html


def test_gates_are_listed_with_ranges_and_reasons() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.relu6(x * torch.sigmoid(x.mean((2, 3), keepdim=True)))

    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = describe_gates(Net(), images, "<five> images")
    assert repr(found) == (
        "<GateList: 1 gate (1 channel), 1 other bounded activation; ranges from <five> images>"
    )
    html = found._repr_html_()
    assert html.count("<table>") == 2
    assert html.count("<tr>") == 2 + 2
    assert html.count("&lt;five&gt; images") == 2
    assert "<five>" not in html
    low, high = found.ranges["sigmoid"]
    assert f">{low:.3g} to {high:.3g}</td>" in html
    assert f">{found.ungated[0].reason}</td>" in html
    without = replace(found, gates=[], ranges={}, ungated=[])
    assert repr(without) == (
        "<GateList: 0 gates, 0 other bounded activations; ranges from <five> images>"
    )
    assert "<table>" not in without._repr_html_()


def test_the_command_prints_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "resnet18", "--attention", "se"]) == 0
    text = capsys.readouterr().out
    total = next(line for line in text.splitlines() if line.startswith("total"))
    assert "11,263,042" in total
    rows = [line.split() for line in text.splitlines()]
    assert ["layer4.1.attention.channel", "channel", "512×1×1", "512×4×4", "0", "to", "1"] in rows
    save_model(build_model("cnn", attention="cbam"), tmp_path)
    config = {"image_size": 32, "normalization": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["summary", str(tmp_path)]) == 0
    assert "1,150,896" in capsys.readouterr().out
    refused_command(capsys, "AS320", "summary", "vgg", names=("'vgg'",))
    for options in (["resnet18", "--model", "resnet34"], ["cnn", "--image-size", "4"]):
        assert main(["summary", *options]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
