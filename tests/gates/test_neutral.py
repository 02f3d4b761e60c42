"""The neutral value of a gate leaves the features unchanged, however the product is added."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnscope import edit_gates, find_gates
from attnscope.gates import inspect_gates, watch_gates


class Net(nn.Module):
    def __init__(self, join: Callable[[Net, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 1, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout()
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self, x, torch.sigmoid(self.score(x)))


JOINS: dict[str, tuple[float, Callable[[Net, Tensor, Tensor], Tensor]]] = {
    "x * g": (1, lambda net, x, g: x * g),
    "x * (1 + g)": (1, lambda net, x, g: x * (1 + g)),
    "x + x * g": (0, lambda net, x, g: x + x * g),
    "x - x * g": (0, lambda net, x, g: x - x * g),
    "x * g - x": (2, lambda net, x, g: x * g - x),
    "x - (1 - g) * x": (0, lambda net, x, g: x - (1 - g) * x),
    "x + scale * (x * g)": (0, lambda net, x, g: x + net.scale * (x * g)),
    "x * g * scale + x": (0, lambda net, x, g: x * g * net.scale + x),
    "x - x * g / 2": (0, lambda net, x, g: x - x * g / 2),
    "x + -(x * g)": (0, lambda net, x, g: x + -(x * g)),
    "x + dropout(x * g)": (0, lambda net, x, g: x + net.dropout(x * g)),
    "rsub": (0, lambda net, x, g: torch.rsub(x * g, x)),
    "add with alpha": (0, lambda net, x, g: torch.add(x, x * g, alpha=0.5)),
    "addcmul": (0, lambda net, x, g: torch.addcmul(x, x, g)),
}


@pytest.mark.parametrize("name", JOINS)
def test_the_neutral_value_changes_nothing(name: str) -> None:
    expected, join = JOINS[name]
    torch.manual_seed(0)
    net, x = Net(join).eval(), torch.rand(2, 3, 8, 8)
    (gate,) = find_gates(net, x)
    assert gate.neutral == expected
    with (
        torch.no_grad(),
        edit_gates(net, {gate.name: lambda g, f: torch.full_like(g, gate.neutral)}, [gate]),
    ):
        torch.testing.assert_close(net(x), x)


def test_a_network_may_write_into_its_input() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x.sub_(0.5).div_(0.25)
            return x * torch.sigmoid(self.score(x))

    net, x = InPlace().eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        plain = net(x.clone())
        with watch_gates(net):  # searches on the input of the first forward
            torch.testing.assert_close(net(x.clone()), plain, rtol=0, atol=0)
    before = x.clone()
    find_gates(net, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bound", [torch.relu, nn.functional.relu6, torch.tanh])
def test_bounded_features_may_have_one_channel(
    channels: int, bound: Callable[[Tensor], Tensor]
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, channels, 3, padding=1)
            self.score = nn.Linear(3, channels)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.score(x.mean((2, 3))))[:, :, None, None]
            return (bound(self.features(x)) * gate).mean((2, 3))

    net, x = Net().eval(), torch.rand(3, 3, 8, 8)
    (gate,) = find_gates(net, x)
    assert (gate.kind, gate.channels) == ("channel", channels)
    with torch.no_grad(), watch_gates(net, [gate]) as values:
        net(x)
        torch.testing.assert_close(values[gate.name], torch.sigmoid(net.score(x.mean((2, 3)))))


def test_gates_beside_each_other_stay_two_gates_of_one_channel() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions, self.channel = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            channel = torch.sigmoid(self.channel(x.mean((2, 3))))[:, :, None, None]
            return x * (torch.sigmoid(self.positions(x)) * channel)

    found = inspect_gates(Net().eval(), torch.rand(3, 1, 8, 8))
    assert len(found.gates) == 2
    assert not found.ungated
