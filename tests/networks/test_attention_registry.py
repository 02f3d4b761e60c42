"""Registration of attention modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope.folding.algebra import fold_gates
from attnscope.gates import find_gates
from attnscope.networks.attention import (
    ATTENTIONS,
    SigmoidGate,
    attention_names,
    build_attention,
    register_attention,
)
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model, save_model
from tests.making import refused


class Steep(SigmoidGate):
    """A channel gate: a sigmoid of one linear layer."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.fc, self.factor = nn.Linear(channels, channels), factor

    @property
    def last(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(torch.sigmoid(self.factor * self.fc(x.mean((2, 3)))))[:, :, None, None]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x.mean(1, keepdim=True)))


class Attention(nn.Module):
    def __init__(self, gates: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, gate in gates.items():
            self.add_module(name, gate)

    def forward(self, x: Tensor) -> Tensor:
        for gate in self.children():
            x = x * gate(x)
        return x


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ATTENTIONS, "_known", dict(ATTENTIONS._known))
    register_attention("steep", lambda c, reduction, _: Attention({"channel": Steep(c, reduction)}))
    register_attention(
        "maps", lambda c, r, k: Attention({"channel": Steep(c, r), "spatial": Plain()})
    )


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("name", "placement"), [("resnet18", "block"), ("resnet18", "stage"), ("cnn", None)]
)
def test_gates_of_a_registered_module_are_found_and_saved(
    name: str, placement: str | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    width = None if name == "cnn" else 16
    model = build_model(name, attention="maps", placement=placement, reduction=3, width=width)
    model.eval()
    gates = find_gates(model, images())
    places = {("cnn", None): 3, ("resnet18", "block"): 8, ("resnet18", "stage"): 4}
    assert len(gates) == 2 * places[name, placement]
    assert [gate.kind for gate in gates[:2]] == ["channel", "spatial"]
    assert [gate.name.rpartition(".")[2] for gate in gates[:2]] == ["channel", "spatial"]
    assert model.get_submodule(gates[0].name).factor == 3
    save_model(model, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path).eval()(images()), model(images()))


@pytest.mark.usefixtures("registered")
def test_gates_of_a_registered_module_are_folded() -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", attention="maps", width=16).eval()
    name = "layer1.0.attention.channel"
    folded = fold_gates(model, {name: torch.full((16,), 0.5)}).eval()
    assert folded.attnscope_config.folded == {name: "norm"}
    names = [gate.name for gate in find_gates(folded, images())]
    assert name not in names
    assert "layer1.0.attention.spatial" in names
    with refused("AS853", names=(name,)):
        fold_gates(model, {name: torch.full((32, 32), 0.5)})


@pytest.mark.usefixtures("registered")
def test_a_registered_module_can_start_as_the_identity() -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", attention="steep", width=16, gate_start="identity").eval()
    plain = build_model("resnet18", width=16).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".attention." not in k})
    with torch.no_grad():
        assert torch.equal(model(images()), plain(images()))
    assert {(gate.lo, gate.hi) for gate in find_gates(model, images())} == {(0.0, 2.0)}


@pytest.mark.usefixtures("registered")
def test_a_gate_that_cannot_start_at_one_is_refused() -> None:
    with refused("AS312", names=("'spatial'", "Attention")):
        build_model("resnet18", attention="maps", width=16, gate_start="identity")


@pytest.mark.usefixtures("registered")
def test_names_are_unique_and_unknown_names_are_refused() -> None:
    assert attention_names() == ("none", "se", "eca", "cbam", "steep", "maps")
    with refused("AS311", names=("'none'",)):
        register_attention("none", lambda c, r, k: nn.Identity())
    for name in ("se", "steep"):
        with refused("AS121", names=(f"'{name}'",)):
            register_attention(name, lambda c, r, k: nn.Identity())
    with refused("AS123", names=("'other'",)):
        register_attention("other", "se")  # type: ignore[arg-type]
    for name in ("none", "other", "SE"):
        with refused("AS302", names=(f"'{name}'", "se, eca, cbam, steep, maps")):
            build_attention(name, 16)
    with refused("AS302", names=("'other'", "none, se, eca, cbam, steep, maps")):
        build_model("resnet18", attention="other")


def test_weights_have_the_names_of_version_0_1() -> None:
    for kind, expected in {
        "se": [
            "channel.reduce.weight",
            "channel.reduce.bias",
            "channel.expand.weight",
            "channel.expand.bias",
        ],
        "eca": ["channel.conv.weight"],
        "cbam": ["channel.reduce.weight", "channel.expand.weight", "spatial.conv.weight"],
    }.items():
        assert list(build_attention(kind, 32).state_dict()) == expected
