"""Modules that run without the tracer, and the map that does not keep tensors alive."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from attnscope.gates import edit_gates, find_gates, watch_gates
from attnscope.gates.tensor_map import TensorMap
from attnscope.kinds import KINDS


class Gated(nn.Module):
    """A gate between two convolutions, each of which runs without the tracer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)
        self.gate = nn.Linear(6, 6)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.seen = torch.sigmoid(self.gate(x.mean((2, 3))))
        return self.second(x * self.seen[:, :, None, None]).mean((2, 3))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def test_gate_in_a_hook_before_a_convolution_is_read_and_edited(images: Tensor) -> None:
    torch.manual_seed(0)
    conv, squeeze = nn.Conv2d(3, 4, 3), nn.Linear(3, 3)
    seen: list[Tensor] = []

    def multiply(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        seen[:] = [torch.sigmoid(squeeze(args[0].mean((2, 3))))]
        return (args[0] * seen[0][:, :, None, None],)

    conv.register_forward_pre_hook(multiply)
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    (gate,) = find_gates(model, images)
    with torch.no_grad(), watch_gates(model, [gate]) as values:
        model(images)
    torch.testing.assert_close(values[gate.name], seen[0], rtol=0, atol=0)
    with edit_gates(model, {gate.name: lambda g, x: torch.zeros_like(g)}, [gate]):
        torch.testing.assert_close(model(images), conv.bias.expand(2, 4), rtol=0, atol=1e-6)


def test_convolution_of_a_parameter_alone_gives_no_features_and_a_static_gate(
    images: Tensor,
) -> None:
    class Template(Gated):
        def __init__(self) -> None:
            super().__init__()
            self.template = nn.Parameter(torch.randn(1, 3, 9, 9))

        def forward(self, x: Tensor) -> Tensor:
            made = self.first(self.template)
            x = self.first(x) * torch.sigmoid(made.mean((2, 3), keepdim=True))
            own = torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
            return (made * own + x * own).mean((2, 3))

    torch.manual_seed(0)
    model = Template().eval()
    gates = find_gates(model, images, list(KINDS))
    kinds = sorted(gate.kind for gate in gates)
    assert kinds == ["channel", "static"]
    (own,) = (gate for gate in gates if gate.kind == "channel")
    uses: list[Tensor] = []
    with edit_gates(model, {own.name: lambda g, x: uses.append(x) or g}, gates):
        model(images[:1])
    # The first product with this gate has features that do not depend on the image: it is none.
    (features,) = uses
    static = torch.sigmoid(model.first(model.template).mean((2, 3), keepdim=True))
    torch.testing.assert_close(features, model.first(images[:1]) * static)


def test_parametrized_convolution_is_traced_and_its_network_read_right(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Gated().eval()
    parametrizations.weight_norm(model.first)
    with torch.no_grad():
        (gate,) = find_gates(model, images)
        with watch_gates(model, [gate]) as values:
            model(images)
    assert model.seen is not None
    torch.testing.assert_close(values[gate.name], model.seen, rtol=0, atol=0)


def test_parameters_that_change_between_forwards_do_not_become_features(images: Tensor) -> None:
    class Scaled(Gated):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 6, 1, 1))
            self.register_buffer("count", torch.zeros(1, 6, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            x = self.first(x)
            gate = torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
            return self.second(x * (gate * self.scale * self.count)).mean((2, 3))

    torch.manual_seed(0)
    model = Scaled().eval()
    gates = find_gates(model, images)
    assert len(gates) == 1
    with torch.no_grad(), watch_gates(model, gates) as values:
        for step in range(1, 4):
            with torch._C.DisableTorchFunction():  # as an optimizer in C++ writes
                model.scale.mul_(2)
            if step == 3:
                model.scale = nn.Parameter(model.scale.detach().clone())
            count = float(model.count.flatten()[0]) + 1
            model(images)
            features = model.first(images)
            expected = torch.sigmoid(model.gate(features.mean((2, 3)))) * 2**step * count
            torch.testing.assert_close(values[gates[0].name], expected)


def test_map_forgets_tensors_with_their_end_and_tells_them_apart() -> None:
    known: TensorMap[str] = TensorMap()
    one, other = torch.zeros(2), torch.zeros(2)
    known[one] = "one"
    assert known.get(one) == "one"
    assert one in known
    assert other not in known
    assert known.get(other) is None
    known[one] = "again"
    assert (known.get(one), len(known)) == ("again", 1)
    known.discard(other)
    assert len(known) == 1
    del one
    gc.collect()
    assert len(known) == 0
    for _ in range(100):  # ids are used again
        new = torch.zeros(2)
        assert new not in known
        known[new] = "new"
        del new
    assert len(known) == 0
    known[other] = "other"
    known.discard(other)
    assert other not in known
