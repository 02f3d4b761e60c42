"""Gates of recurrent networks, whose features are bounded, too; and poolings by a matrix product."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnscope import edit_gates, find_gates, inspect_gates, watch_gates
from tests.gates.exported import assert_equal


class Unit(nn.Module):
    """A convolutional GRU, as in RAFT: the state is bounded by its tanh."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.z, self.r, self.q = (nn.Conv2d(8, 4, size, padding=size // 2) for _ in range(3))
        self.seen: list[dict[str, Tensor]] = []
        self.scale = 1.0

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([h, x], 1)
        z, r = self.z(both).sigmoid(), self.r(both).sigmoid()
        q = self.q(torch.cat([r * h, x], 1)).tanh()
        self.seen.append({"z": z, "r": r, "1-z": 1 - z})
        return (1 - z) * h + self.scale * z * q if self.scale != 1 else (1 - z) * h + z * q


class Recurrent(nn.Module):
    def __init__(self, steps: int = 2, size: int = 3, bounded: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.gru, self.head = nn.Conv2d(3, 4, 3), Unit(size), nn.Conv2d(4, 2, 1)
        self.steps, self.bounded = steps, bounded

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = x.tanh() if self.bounded else x
        for _ in range(self.steps):
            h = self.gru(h, x)
        return self.head(h).mean((2, 3))


@pytest.mark.parametrize("bounded", [True, False])
def test_gates_of_a_recurrent_unit_are_of_kind_full_in_each_step(bounded: bool) -> None:
    model = Recurrent(bounded=bounded).eval()
    x = torch.randn(3, 3, 10, 10)
    gates = find_gates(model, x[:2])
    assert [(gate.kind, gate.axes) for gate in gates] == [("full", "NCHW")] * 6
    assert {gate.made_in for gate in gates} == {"gru"}
    model.gru.seen.clear()
    with torch.no_grad(), watch_gates(model, gates) as values:
        model(x)
    expected = [step[name] for step in model.gru.seen for name in ("r", "1-z", "z")]
    assert all(map(torch.equal, values.values(), expected))


def test_an_edit_changes_the_gate_where_it_multiplies_only() -> None:
    model = Recurrent(steps=1).eval()
    x = torch.randn(3, 3, 10, 10)
    (update,) = (
        gate for gate in find_gates(model, x) if gate.source == "gru.z" and "sub" not in gate.form
    )
    with torch.no_grad(), edit_gates(model, {update.name: lambda gate, features: 0.5 * gate}):
        found = model(x)
    model.gru.scale = 0.5
    with torch.no_grad():
        torch.testing.assert_close(found, model(x))
        model.gru.scale = 1.0
        assert not torch.allclose(found, model(x))


def test_the_graph_of_a_recurrent_network_has_its_gates() -> None:
    model = Recurrent().eval()
    x = torch.randn(3, 3, 10, 10)
    model.gru.seen = Ignored()
    assert len(assert_equal(model, x[:2], x).gates) == 6


class Ignored(list[dict[str, Tensor]]):
    def append(self, values: dict[str, Tensor]) -> None:
        pass


class Formula(nn.Module):
    """Two maps of the same shape, made by convolutions or position by position."""

    def __init__(self, formula: Callable[[Tensor, Tensor, Tensor], Tensor], size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (nn.Conv2d(3, 4, size, padding=size // 2) for _ in range(2))
        self.c, self.formula = nn.Conv2d(3, 4, 3, padding=1), formula

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.formula(self.a(x), self.b(x), self.c(x))[:, :3]).mean((2, 3))


FORMULAS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], int, list[str]]] = {
    # formula, size of the kernels of a and b -> activations of the gates
    "gated activation": (lambda a, b, x: a.tanh() * b.sigmoid(), 3, ["sigmoid"]),
    "the same of one value": (lambda a, b, x: a.tanh() * b.sigmoid(), 1, []),
    "the other order": (lambda a, b, x: b.sigmoid() * a.tanh() + x, 3, ["sigmoid"]),
    "one minus": (lambda a, b, x: a.tanh() * (1 - b.sigmoid()), 3, ["sigmoid"]),
    "softsign": (lambda a, b, x: nn.functional.softsign(a) * b.sigmoid(), 3, ["sigmoid"]),
    "interpolation": (lambda a, b, x: x.tanh().lerp(a.tanh(), b.sigmoid()), 3, ["sigmoid"]),
    "a product that is a gate": (lambda a, b, x: x * (a.tanh() * b.sigmoid()), 3, ["tanh"]),
    "one plus such a gate": (lambda a, b, x: x * (1 + b.sigmoid() * a.tanh()), 3, ["sigmoid"]),
    "two gates of one sign": (lambda a, b, x: a.sigmoid() * b.sigmoid(), 3, []),
    "features of one sign": (lambda a, b, x: nn.functional.relu6(a) * b.tanh(), 3, []),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_product_of_two_bounded_maps_has_a_gate_if_it_is_none(name: str) -> None:
    formula, size, activations = FORMULAS[name]
    found = inspect_gates(Formula(formula, size).eval(), torch.randn(2, 3, 8, 8))
    assert [gate.activation for gate in found.gates] == activations
    assert all(gate.kind == "full" for gate in found.gates)
    assert found.gates or len(found.ungated) == 2  # nothing is silent


def pooled(product: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """A softmax over positions times a map, and the product of it with the features."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv1d(3, 5, 3, padding=1), nn.Conv1d(3, 5, 3, padding=1)
            self.head = nn.Linear(15, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2)
            weights = self.a(x).softmax(-1) * self.b(x)
            return self.head(product(x, weights).flatten(1))

    return Pooled().eval()


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: x @ w.transpose(-2, -1),
        lambda x, w: w @ x.permute(0, 2, 1),
        lambda x, w: x.bmm(w.permute(0, 2, 1)),
        lambda x, w: torch.einsum("ncl,nkl->nck", x, w),
    ],
    ids=["matmul", "left", "bmm", "einsum"],
)
def test_a_softmax_whose_positions_a_matrix_product_sums_is_a_pooling(
    product: Callable[[Tensor, Tensor], Tensor],
) -> None:
    found = inspect_gates(pooled(product), torch.randn(2, 3, 6, 6))
    assert found.gates == []
    assert [each.code for each in found.ungated] == ["pooling"]


def test_a_softmax_whose_positions_stay_is_a_gate() -> None:
    found = find_gates(
        pooled(lambda x, w: (w.transpose(1, 2) @ w @ x.mT)[:, :5]), torch.randn(2, 3, 6, 6)
    )
    assert [gate.kind for gate in found] == ["full"]


@pytest.mark.parametrize(
    ("total", "kinds"),
    [
        (lambda x: x.sum(1), ["spatial"]),
        (lambda x: x.sum(dim=1), ["spatial"]),
        (lambda x: torch.sum(x, axis=1, keepdim=True), ["spatial"]),
        (lambda x: x.sum(dim=(2, 3)), []),
        (lambda x: x.sum(axis=(-1, -2)), []),
    ],
    ids=["channels", "channels by name", "axis", "positions by name", "positions from the end"],
)
def test_a_softmax_over_positions_is_a_pooling_if_positions_are_summed(
    total: Callable[[Tensor], Tensor], kinds: list[str]
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.where = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            where = self.where(x).flatten(2).softmax(-1).reshape(-1, 1, *x.shape[2:])
            return total(x * where)

    found = inspect_gates(Net().eval(), torch.randn(2, 3, 8, 8))
    assert [gate.kind for gate in found.gates] == kinds
    assert [each.code for each in found.ungated] == ["pooling"] * (not kinds)
