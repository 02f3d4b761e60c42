"""Modules that run without the tracer, and the map that does not keep tensors alive."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
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


class Quantized(Tensor):
    """Weights with linear and convolution of their own, as those with quantized values have."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in (F.linear, torch.conv2d, F.multi_head_attention_forward):
            return super().__torch_function__(func, types, args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            args = [0.5 * a.as_subclass(Tensor) if type(a) is cls else a for a in args]
            return func(*args, **(kwargs or {}))


def quantized(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().as_subclass(Quantized), requires_grad=False)


def assert_read_as_it_runs(model: Gated, images: Tensor) -> None:
    with torch.no_grad():
        plain, gate = model(images), model.seen
        found = find_gates(model, images)
        with watch_gates(model, found) as values:
            assert torch.equal(model(images), plain)
    assert gate is not None
    assert torch.equal(values[found[0].name], gate)


@pytest.mark.parametrize("name", ["first", "gate", "second"])
@pytest.mark.parametrize("registered", [True, False])
def test_weights_with_operations_of_their_own_keep_them(
    name: str, registered: bool, images: Tensor
) -> None:
    torch.manual_seed(0)
    model = Gated().eval()
    before = model(images)
    module = getattr(model, name)
    weight = quantized(module.weight)
    del module.weight
    module.weight = weight if registered else weight.detach()
    assert registered == ("weight" in module._parameters)
    assert not torch.allclose(model(images), before)
    assert_read_as_it_runs(model, images)


def test_weights_that_are_replaced_in_a_block_keep_their_operations(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Gated().eval()
    found = find_gates(model, images)
    with torch.no_grad(), watch_gates(model, found):
        before = model(images)
        model.second.weight = quantized(model.second.weight)
        after = model(images)
    torch.testing.assert_close(after, model(images), rtol=0, atol=0)
    assert not torch.allclose(after, before)


def test_an_input_with_operations_of_its_own_keeps_them(images: Tensor) -> None:
    class Wrapping(Gated):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.as_subclass(Quantized))

    torch.manual_seed(0)
    model = Wrapping().eval()
    assert not torch.allclose(model(images), Gated.forward(model, images))
    assert_read_as_it_runs(model, images)


def test_a_forward_of_an_instance_is_traced(images: Tensor) -> None:
    """Adapters replace the forward of a module of torch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)).eval()
    conv, squeeze = model[1], nn.Linear(4, 4)
    seen: list[Tensor] = []

    def forward(x: Tensor) -> Tensor:
        seen[:] = [torch.sigmoid(squeeze(x.mean((2, 3))))]
        return conv._conv_forward(x, conv.weight, conv.bias) * seen[0][:, :, None, None]

    conv.forward = forward
    with torch.no_grad():
        (gate,) = find_gates(model, images)
        with watch_gates(model, [gate]) as values:
            model(images)
    assert torch.equal(values[gate.name], seen[0])


@pytest.mark.parametrize("keywords", [False, True])
def test_attention_to_tensors_with_operations_of_their_own_is_traced(
    keywords: bool, images: Tensor
) -> None:
    class Attending(Gated):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.wrapped = True

        def forward(self, x: Tensor) -> Tensor:
            rows = super().forward(x)[:, None].expand(-1, 3, -1)
            rows = rows.as_subclass(Quantized) if self.wrapped else rows
            named = dict(query=rows, key=rows, value=rows)
            out = self.attention(**named) if keywords else self.attention(*named.values())
            return out[0]

    torch.manual_seed(0)
    model = Attending().eval()
    with torch.no_grad():
        wrapped = model(images)
        model.wrapped = False
        assert not torch.allclose(model(images), wrapped)
        assert_read_as_it_runs(model, images)  # by its fast path
        model.wrapped = True
    assert_read_as_it_runs(model, images)
    assert not model.attention._forward_pre_hooks_with_kwargs
