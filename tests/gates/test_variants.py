"""Gates of one activation that the same operations made from different operands are told apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnscope import edit_gates, find_gates, watch_gates
from tests.making import refused

Join = Callable[["Net", Tensor, Tensor], Tensor]


class Net(nn.Module):
    """Features and one spatial activation, which multiply in the way that `join` says."""

    def __init__(self, join: Join) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 8, 3, padding=1)
        self.score = nn.Conv2d(8, 1, 3, padding=1)
        self.a = nn.Parameter(torch.tensor(1.5))
        self.b = nn.Parameter(torch.tensor(-0.5))
        self.register_buffer("rows", torch.arange(8) % 2 == 0)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).relu()
        return self.join(self, x, torch.sigmoid(self.score(x))).mean((2, 3))


IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
# How two products are made -> by hand, the two gates from the activation.
DIFFERENT: dict[str, tuple[Join, Callable[[Net, Tensor], tuple[Tensor, Tensor]]]] = {
    "parameters": (
        lambda net, x, g: x * (g * net.a) + x.flip(1) * (g * net.b),
        lambda net, g: (g * net.a, g * net.b),
    ),
    "a flip": (
        lambda net, x, g: x * g + x.flip(1) * g.flip(3),
        lambda net, g: (g, g.flip(3)),
    ),
    "a shift": (
        lambda net, x, g: x * g.roll(1, 2) + x * g.roll(2, 2),
        lambda net, g: (g.roll(1, 2), g.roll(2, 2)),
    ),
    "a mask": (
        lambda net, x, g: (
            x * torch.where(net.rows, g, 0.0) + x.flip(1) * torch.where(~net.rows, g, 0.0)
        ),
        lambda net, g: (torch.where(net.rows, g, 0.0), torch.where(~net.rows, g, 0.0)),
    ),
}


@pytest.mark.parametrize("how", DIFFERENT)
def test_different_operands_make_different_gates(how: str) -> None:
    join, by_hand = DIFFERENT[how]
    net = Net(join).eval()
    made: list[Tensor] = []
    net.score.register_forward_hook(lambda module, x, y: made.append(torch.sigmoid(y)))
    gates = find_gates(net, IMAGES)
    assert [gate.name for gate in gates] == ["sigmoid", "sigmoid#2"]
    with torch.no_grad(), watch_gates(net, gates) as values:
        net(IMAGES)
    for gate, expected in zip(gates, by_hand(net, made[-1]), strict=True):
        torch.testing.assert_close(values[gate.name], expected[:, 0], rtol=0, atol=0)
        assert gate.lo <= expected.min().item() <= expected.max().item() <= gate.hi


@pytest.mark.parametrize("how", DIFFERENT)
def test_an_edit_changes_its_own_gate_only(how: str) -> None:
    join, by_hand = DIFFERENT[how]
    net = Net(join).eval()
    gates = find_gates(net, IMAGES)
    with torch.no_grad():
        plain = net(IMAGES)
        with edit_gates(net, {gate.name: lambda g, f: g for gate in gates}, gates):
            torch.testing.assert_close(net(IMAGES), plain, rtol=0, atol=0)
        with edit_gates(net, {"sigmoid#2": lambda g, f: torch.zeros_like(g)}, gates):
            edited = net(IMAGES)
        x = net.features(IMAGES).relu()
        first, _ = by_hand(net, torch.sigmoid(net.score(x)))
    torch.testing.assert_close(edited, (x * first).mean((2, 3)))


SAME: dict[str, Join] = {
    "itself": lambda net, x, g: x * g + x.flip(1) * g,
    "two views": lambda net, x, g: x * g.view(-1, 1, 8, 8) + x.flip(1) * g[:, 0][:, None],
    "two equal operations": lambda net, x, g: x * (g * net.a) + x.flip(1) * (g * net.a),
    "equal constants": lambda net, x, g: (
        x * (g * torch.tensor(2.0)) + x.flip(1) * (g * torch.tensor(2.0))
    ),
}


@pytest.mark.parametrize("how", SAME)
def test_equal_operands_make_one_gate(how: str) -> None:
    net = Net(SAME[how]).eval()
    gates = find_gates(net, IMAGES)
    assert [gate.name for gate in gates] == ["sigmoid"]
    with torch.no_grad():
        plain = net(IMAGES)
        with edit_gates(net, {"sigmoid": lambda g, f: g}, gates):
            torch.testing.assert_close(net(IMAGES), plain, rtol=0, atol=0)
        with edit_gates(net, {"sigmoid": lambda g, f: torch.zeros_like(g)}, gates):
            assert net(IMAGES).abs().max() == 0


def test_values_of_one_gate_in_another_order_are_edited_as_they_are() -> None:
    """A transposed map is the same gate, but not the same tensor."""
    net = Net(lambda net, x, g: x * g + x.flip(1) * g.transpose(2, 3)).eval()
    gates = find_gates(net, IMAGES)
    with torch.no_grad():
        plain = net(IMAGES)
        with edit_gates(net, {gate.name: lambda g, f: g for gate in gates}, gates):
            torch.testing.assert_close(net(IMAGES), plain, rtol=0, atol=0)


def test_a_gate_that_multiplies_more_often_than_on_the_sample_is_refused() -> None:
    def repeat(net: Net, x: Tensor, g: Tensor) -> Tensor:
        for _ in range(int(x.mean() > 1)):
            x = x * g
            g = torch.sigmoid(net.score(x))
        return x * g

    net = Net(repeat).eval()
    gates = find_gates(net, IMAGES)
    assert [gate.calls for gate in gates] == [1]
    with torch.no_grad(), watch_gates(net, gates) as values:
        net(IMAGES)
        assert set(values) == {"sigmoid"}
        with refused("AS419", names=("sigmoid",)):
            net(50 * IMAGES)
    more = find_gates(net, 50 * IMAGES)
    assert [gate.calls for gate in more] == [2, 2]
    # One of the gates may be asked for alone.
    with torch.no_grad(), watch_gates(net, more[:1]) as values:
        net(50 * IMAGES)
        assert set(values) == {"sigmoid"}
