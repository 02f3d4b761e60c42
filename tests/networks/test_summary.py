"""The summary of a network: against counts by hand and torchvision's own figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.commands.main import main
from attnscope.networks.build import build_model
from attnscope.networks.summary import summarize
from attnscope.networks.weights import save_model


class Toy(nn.Module):
    """Its multiply-adds are counted by hand below."""

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


def test_counts_by_hand() -> None:
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


def test_resnet18_as_torchvision_counts_it() -> None:
    """torchvision documents 1.814 billion multiply-adds for ResNet18 at 224 pixels."""
    found = summarize(build_model(stem="imagenet", num_classes=1000), 224)
    assert found.parameters == 11_689_512
    assert found.multiply_adds / 1e9 == pytest.approx(1.814, abs=5e-4)
    assert found.gates == []
    assert str(found).endswith("no gates")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "resnet18", "--attention", "se"]) == 0
    text = capsys.readouterr().out
    total = next(line for line in text.splitlines() if line.startswith("total"))
    assert "11,263,042" in total
    assert "layer4.1.attention  channel" in text.replace(".channel", "")
    assert "512×1×1  512×4×4" in text
    save_model(build_model("cnn", attention="cbam"), tmp_path)
    config = {"image_size": 32, "normalization": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["summary", str(tmp_path)]) == 0
    assert "1,150,896" in capsys.readouterr().out
    for options in (["vgg"], ["resnet18", "--model", "resnet34"], ["cnn", "--image-size", "4"]):
        assert main(["summary", *options]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
