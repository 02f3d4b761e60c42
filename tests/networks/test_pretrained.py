"""Weights from which training starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.networks.build import build_model
from attnscope.networks.pretrained import read_pretrained, start_from
from attnscope.networks.weights import load_model, save_model
from attnscope.training.freezing import train_only, training_mode
from tests.making import refused
from tests.networks.making import parameters


def with_running_statistics(**options: Any) -> nn.Module:
    """A network whose running statistics differ from their initial values."""
    torch.manual_seed(3)
    model = build_model(**options).train()
    for _ in range(2):
        model(torch.randn(8, 3, 32, 32))
    return model


@pytest.mark.parametrize("attention", ["se", "eca", "cbam"])
@pytest.mark.parametrize("network", ["resnet18", "cnn"])
def test_identity_gates_do_not_change_a_trained_network(
    tmp_path: Path, attention: str, network: str
) -> None:
    options = {} if network == "cnn" else {"width": 16}
    plain = with_running_statistics(name=network, **options)
    save_model(plain, tmp_path)
    torch.manual_seed(8)
    gated = build_model(network, attention=attention, reduction=4, gate_start="identity", **options)
    weights = read_pretrained(str(tmp_path / "model.safetensors"), network)
    assert weights.gate_start is None
    report = start_from(gated, weights)
    assert set(report.loaded) == set(plain.state_dict())
    assert report.new
    assert all(".attention." in name for name in report.new)
    assert not report.mismatched
    assert not report.unused
    x = torch.randn(6, 3, 32, 32)
    with torch.inference_mode():
        expected, found = plain.eval()(x), gated.eval()(x)
    assert (expected - found).abs().max() < 1e-5
    # The last layer of each gate gets a gradient in the first step, all layers in the second.
    optimizer = torch.optim.SGD(gated.train().parameters(), lr=0.1)
    with_gradient = []
    for _ in range(2):
        optimizer.zero_grad()
        logits = gated(x)
        nn.functional.cross_entropy(logits, torch.arange(6)).backward()
        with_gradient.append(
            {
                name
                for name, p in gated.named_parameters()
                if ".attention." in name and p.grad is not None and p.grad.abs().max() > 0
            }
        )
        optimizer.step()
    gates = {name for name, _ in gated.named_parameters() if ".attention." in name}
    last = {name for name in gates if ".expand." in name or ".conv." in name}
    assert with_gradient[0] == last
    assert with_gradient[1] == gates


def test_an_identity_gate_has_the_bounds_0_and_2() -> None:
    model = build_model(attention="cbam", width=16, reduction=4, gate_start="identity").eval()
    x = torch.randn(2, 3, 32, 32)
    gates = find_gates(model, x)
    assert len(gates) == 16
    assert {(gate.lo, gate.hi, gate.neutral) for gate in gates} == {(0.0, 2.0, 1.0)}
    hooked = {}
    module = model.get_submodule("layer2.0.attention.spatial")
    module.register_forward_hook(lambda m, i, out: hooked.update(gate=out))
    with torch.no_grad(), watch_gates(model) as seen:
        model(x)
    torch.testing.assert_close(
        seen["layer2.0.attention.spatial"].flatten(), hooked["gate"].flatten(), rtol=0, atol=0
    )
    assert (hooked["gate"] == 1).all()


def test_the_gate_start_is_saved_with_the_network(tmp_path: Path) -> None:
    model = build_model(attention="se", width=16, reduction=4, gate_start="identity").eval()
    plain = build_model(attention="se", width=16, reduction=4)
    assert parameters(model) == parameters(plain), "no new parameter"
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["gate_start"] == "identity"
    again = load_model(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(x), model(x))
    description = json.loads((tmp_path / "model.json").read_text())
    del description["gate_start"]  # as in files of older versions
    (tmp_path / "model.json").write_text(json.dumps({**description}))
    with torch.inference_mode():
        assert not torch.equal(load_model(tmp_path)(x), model(x))


def test_torchvision_weights_are_loaded_where_shapes_match(tmp_path: Path) -> None:
    torch.manual_seed(5)
    theirs = torchvision.models.resnet18(num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    weights = read_pretrained(str(tmp_path / "resnet18.pth"), "resnet18")
    model = build_model(attention="cbam", placement="stage", gate_start="identity")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = start_from(model, weights)
    shapes = {
        "conv1.weight": ("64×3×7×7", "64×3×3×3"),
        "fc.weight": ("1000×512", "10×512"),
        "fc.bias": ("1000", "10"),
    }
    for line, (name, (given, own)) in zip(report.mismatched, shapes.items(), strict=True):
        assert line.startswith(f"{name} ")
        assert f" {given} " in line
        assert f" {own} " in line
    after = model.state_dict()
    for name in ("conv1.weight", "fc.weight", "fc.bias", "layer1.attention.channel.reduce.weight"):
        assert torch.equal(after[name], before[name])
    for name in report.loaded:
        assert torch.equal(after[name], theirs.state_dict()[name])
    assert len(report.loaded) == len(theirs.state_dict()) - 3
    assert len(report.loaded) == 119
    assert len(report.new) == 12
    lines = str(report).splitlines()
    assert len(lines) == 2 + 3
    assert "119 tensors" in lines[0]
    assert "12 tensors in layer1.attention.channel.expand, " in lines[1]
    for line, mismatched in zip(lines[2:], report.mismatched, strict=True):
        assert mismatched in line
    whole = build_model(stem="imagenet", num_classes=1000)
    assert not start_from(whole, weights).mismatched
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(whole.eval()(x), theirs.eval()(x))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_model(build_model("cnn"), tmp_path)
    other = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    model = build_model(width=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with refused("AS353", names=(tmp_path / "model.safetensors", "1 of 122")):
        start_from(model, other)
    save_model(build_model(width=32), tmp_path)
    wide = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    with refused("AS353", names=(tmp_path / "model.safetensors", "conv1.weight", "32×3×3×3")):
        start_from(model, wide)
    save_model(build_model(attention="se", width=16, reduction=4), tmp_path)
    gated = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    assert gated.gate_start == "half"
    identity = build_model(attention="se", width=16, reduction=4, gate_start="identity")
    with refused("AS354", names=("'half'", "'identity'", "--gate-start half")):
        start_from(identity, gated)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_imagenet_weights_are_downloaded_by_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    state = torchvision.models.resnet34().state_dict()

    def fetch(url: str, **options: Any) -> Any:
        asked.update(url=url, **options)
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    weights = read_pretrained("imagenet", "resnet34")
    assert "resnet34" in asked["url"]
    assert asked["weights_only"] is True, "no pickle is loaded"
    assert asked["check_hash"] is True
    assert weights.gate_start is None
    model = build_model("resnet34", stem="imagenet", num_classes=7)
    assert len(start_from(model, weights).mismatched) == 2

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no network\nat all")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with refused("AS351", names=("resnet50", "(no network)", "--weights none")):
        read_pretrained("imagenet", "resnet50")
    with refused("AS350", names=("'cnn'", "resnet18", "--weights none")):
        read_pretrained("imagenet", "cnn")


def test_only_the_chosen_modules_are_trained() -> None:
    model = build_model(attention="cbam", width=16, reduction=4)

    def trained() -> set[str]:
        return {name for name, p in model.named_parameters() if p.requires_grad}

    train_only(model, ("layer2.1", "classifier"))
    assert {name.rpartition(".")[0] for name in trained()} >= {"layer2.1.conv1", "fc"}
    assert all(name.startswith(("layer2.1.", "fc.")) for name in trained())
    training_mode(model)
    moving = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training}
    assert moving == {"layer2.1.bn1", "layer2.1.bn2"}
    with refused("AS503", names=("layer9",)):
        train_only(model, ("layer9",))
    assert all(name.startswith(("layer2.1.", "fc.")) for name in trained()), "nothing has changed"
    train_only(model, ("all",))
    assert trained() == {name for name, _ in model.named_parameters()}
