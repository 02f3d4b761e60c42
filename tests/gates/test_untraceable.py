"""Functions that run without Python, at the level of a Python module."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from attnscope.gates import find_gates, watch_gates
from tests.making import refused


def by_hand(x: Tensor, z: Tensor) -> Tensor:
    return x * torch.sigmoid(z)[:, :, None, None]


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch.jit.script is deprecated
    scripted = torch.jit.script(by_hand)
helpers = ModuleType("helpers")
helpers.__dict__["scripted"] = scripted


def helper(x: Tensor, z: Tensor) -> Tensor:
    return scripted(x, z)


class Gated(nn.Module):
    """A gate by a function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.squeeze = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.act(x, self.squeeze(x.mean((2, 3)))).mean((2, 3))

    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return by_hand(x, z)


class InMethod(Gated):
    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return scripted(x, z)


class InHelper(Gated):
    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return helper(x, z)


class InModule(Gated):
    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return helpers.scripted(x, z)


class InLambda(Gated):
    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return next(map(lambda x, z: scripted(x, z), [x], [z]))


class Inherited(InMethod):
    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return super().act(x, z)


class OfClass(Gated):
    scripted = staticmethod(scripted)

    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return self.scripted(x, z)


class InAttribute(Gated):
    def __init__(self) -> None:
        super().__init__()
        self.act = helper


def with_cell() -> Gated:
    scripted = helpers.__dict__["scripted"]

    class InCell(Gated):
        def act(self, x: Tensor, z: Tensor) -> Tensor:
            return scripted(x, z)

    return InCell()


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


MAKERS = [InMethod, InHelper, InModule, InLambda, Inherited, OfClass, InAttribute, with_cell]


@pytest.mark.parametrize("make", MAKERS)
def test_a_scripted_function_that_a_forward_calls_is_refused(make: Callable[[], Gated]) -> None:
    model = nn.Sequential(make()).eval()
    torch.testing.assert_close(model(images()), Gated()(images()))  # it has the gate
    with refused("AS406", names=("scripted", "the module 0", "torch.jit")):
        find_gates(model, images())


def test_a_scripted_function_that_no_forward_calls_refuses_nothing() -> None:
    class Other(Gated):
        """Its attribute has the name of the function, and another method calls the function."""

        def __init__(self) -> None:
            super().__init__()
            self.scripted = nn.Sigmoid()

        def act(self, x: Tensor, z: Tensor) -> Tensor:
            return x * self.scripted(z)[:, :, None, None]

        def fast(self, x: Tensor, z: Tensor) -> Tensor:
            return scripted(x, z)

    model, seen = Other().eval(), []
    (gate,) = find_gates(model, images())
    model.scripted.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad(), watch_gates(model, [gate]) as values:
        model(images())
    assert torch.equal(values[gate.name], seen[0])
