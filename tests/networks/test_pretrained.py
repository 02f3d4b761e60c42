"""Weights to start from."""

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
from tests.networks.making import parameters, refused


def trained_a_little(**options: Any) -> nn.Module:
    """A network whose running statistics and weights are no longer those of its start."""
    torch.manual_seed(3)
    model = build_model(**options).train()
    for _ in range(2):
        model(torch.randn(8, 3, 32, 32))
    return model


@pytest.mark.parametrize("attention", ["se", "eca", "cbam"])
@pytest.mark.parametrize("network", ["resnet18", "cnn"])
def test_gates_put_into_a_trained_network_change_nothing_at_first(
    tmp_path: Path, attention: str, network: str
) -> None:
    options = {} if network == "cnn" else {"width": 16}
    plain = trained_a_little(name=network, **options)
    save_model(plain, tmp_path)
    torch.manual_seed(8)
    gated = build_model(network, attention=attention, reduction=4, gate_start="identity", **options)
    weights = read_pretrained(str(tmp_path / "model.safetensors"), network)
    assert weights.gate_start is None
    report = start_from(gated, weights)
    assert set(report.loaded) == set(plain.state_dict())
    assert report.new
    assert all(".attention." in name for name in report.new)
    assert not report.misfits
    assert not report.unused
    x = torch.randn(6, 3, 32, 32)
    with torch.inference_mode():
        expected, found = plain.eval()(x), gated.eval()(x)
    assert (expected - found).abs().max() < 1e-5
    # The last layer of each gate gets gradient at the first step, all by the second.
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


def test_an_identity_gate_is_found_with_its_bounds() -> None:
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


def test_the_identity_start_is_saved_with_the_network(tmp_path: Path) -> None:
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
    del description["gate_start"]  # as before there was a choice
    (tmp_path / "model.json").write_text(json.dumps({**description}))
    with torch.inference_mode():
        assert not torch.equal(load_model(tmp_path)(x), model(x))


def test_torchvision_weights_and_a_stem_of_seven(tmp_path: Path) -> None:
    """The names are torchvision's; what does not fit is told, and starts as it was built."""
    torch.manual_seed(5)
    theirs = torchvision.models.resnet18(num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    weights = read_pretrained(str(tmp_path / "resnet18.pth"), "resnet18")
    model = build_model(attention="cbam", placement="stage", gate_start="identity")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = start_from(model, weights)
    assert report.misfits == [
        "conv1.weight is 64×3×7×7 in the weights, 64×3×3×3 in the network",
        "fc.weight is 1000×512 in the weights, 10×512 in the network",
        "fc.bias is 1000 in the weights, 10 in the network",
    ]
    after = model.state_dict()
    for name in ("conv1.weight", "fc.weight", "fc.bias", "layer1.attention.channel.reduce.weight"):
        assert torch.equal(after[name], before[name])
    for name in report.loaded:
        assert torch.equal(after[name], theirs.state_dict()[name])
    assert len(report.loaded) == len(theirs.state_dict()) - 3
    lines = str(report).splitlines()
    assert lines[0] == "loaded: 119 tensors"
    assert lines[1].startswith("new: 12 tensors, of layer1.attention.channel.expand, ")
    assert lines[2].startswith("did not fit, starts anew: conv1.weight is 64×3×7×7")
    whole = build_model(stem="imagenet", num_classes=1000)
    assert not start_from(whole, weights).misfits
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(whole.eval()(x), theirs.eval()(x))


def test_weights_that_cannot_be_started_from(tmp_path: Path) -> None:
    save_model(build_model("cnn"), tmp_path)
    other = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    model = build_model(width=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refused(lambda: start_from(model, other), "are of another network", "tensors fit")
    save_model(build_model(width=32), tmp_path)
    wide = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    refused(lambda: start_from(model, wide), "are of another network", "conv1.weight is 32×3×3×3")
    save_model(build_model(attention="se", width=16, reduction=4), tmp_path)
    gated = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    assert gated.gate_start == "half"
    identity = build_model(attention="se", width=16, reduction=4, gate_start="identity")
    refused(lambda: start_from(identity, gated), "start as 'half'", "take --gate-start half")
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_imagenet_weights_are_asked_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    state = torchvision.models.resnet34().state_dict()

    def fetch(url: str, **options: Any) -> Any:
        asked.update(url=url, **options)
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    weights = read_pretrained("imagenet", "resnet34")
    assert "resnet34" in asked["url"]
    assert asked["weights_only"] is True, "nothing is unpickled"
    assert asked["check_hash"] is True
    assert weights.gate_start is None
    model = build_model("resnet34", stem="imagenet", num_classes=7)
    assert len(start_from(model, weights).misfits) == 2

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no network\nat all")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    refused(
        lambda: read_pretrained("imagenet", "resnet50"),
        "ImageNet weights of resnet50 could not be downloaded (no network)",
        "--weights none",
    )


def test_training_only_parts(tmp_path: Path) -> None:
    model = build_model(attention="cbam", width=16, reduction=4)

    def trained() -> set[str]:
        return {name for name, p in model.named_parameters() if p.requires_grad}

    train_only(model, ("layer2.1", "classifier"))
    assert {name.rpartition(".")[0] for name in trained()} >= {"layer2.1.conv1", "fc"}
    assert all(name.startswith(("layer2.1.", "fc.")) for name in trained())
    training_mode(model)
    moving = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training}
    assert moving == {"layer2.1.bn1", "layer2.1.bn2"}
    refused(lambda: train_only(model, ("layer9",)), "trains layer9, which this network does not")
    assert all(name.startswith(("layer2.1.", "fc.")) for name in trained()), "nothing was changed"
    train_only(model, ("all",))
    assert trained() == {name for name, _ in model.named_parameters()}
