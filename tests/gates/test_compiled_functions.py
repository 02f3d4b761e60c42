"""Functions that torch.compile compiled run as Python under a tracer, and compiled afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnscope.gates import edit_gates, find_gates, watch_gates
from tests.gates import test_untraceable
from tests.making import refused

RUNS: list[str] = []
"""One entry for each call of compiled code."""


def backend(graph: torch.fx.GraphModule, example: Any) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        RUNS.append("compiled")
        return graph.forward(*args)

    return run


@torch.compile(backend=backend)
def compiled(x: Tensor, z: Tensor) -> Tensor:
    return x * torch.sigmoid(z)[:, :, None, None]


class Gated(test_untraceable.Gated):
    def act(self, x: Tensor, z: Tensor) -> Tensor:
        return compiled(x, z)


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _no_code() -> Iterator[None]:
    torch._dynamo.reset()
    RUNS.clear()
    yield
    torch._dynamo.reset()


def assert_compiled(model: nn.Module) -> None:
    RUNS.clear()
    with torch.no_grad():
        model(images())
    assert RUNS == ["compiled"]


@torch.no_grad()
def test_gates_in_a_compiled_function_are_found_read_and_edited() -> None:
    model = Gated().eval()
    features = model.conv(images())
    gate = torch.sigmoid(model.squeeze(features.mean((2, 3))))
    assert_compiled(model)
    RUNS.clear()
    (found,) = find_gates(model, images())
    assert (found.kind, found.axes) == ("channel", "NC")
    with watch_gates(model, [found]) as values:
        model(images())
    torch.testing.assert_close(values[found.name], gate, rtol=0, atol=0)
    with edit_gates(model, {found.name: lambda g, x: g * g}, [found]):
        edited = model(images())
    torch.testing.assert_close(edited, (features * (gate * gate)[:, :, None, None]).mean((2, 3)))
    assert RUNS == []
    assert_compiled(model)


def test_other_networks_run_compiled_after_a_block_also_after_an_exception() -> None:
    other = torch.compile(nn.Linear(3, 3), backend=backend)
    model = Gated().eval()
    gates = find_gates(model, images())
    with pytest.raises(ZeroDivisionError), watch_gates(model, gates):
        raise ZeroDivisionError
    with refused("AS402"), watch_gates(model, gates):
        model.conv, conv = nn.Conv2d(3, 6, 3, padding=1), model.conv
        model.forward = lambda x: model.conv(x)
        model(images())
    del model.forward
    model.conv = conv
    other(torch.ones(2, 3))
    assert RUNS == ["compiled"]
    assert_compiled(model)


def test_the_stance_of_the_user_is_restored() -> None:
    model = Gated().eval()
    with torch.compiler.set_stance("force_eager"):
        find_gates(model, images())
        model(images())
        assert RUNS == []
    assert_compiled(model)


def test_blocks_of_two_threads_that_overlap_restore_the_stance() -> None:
    first, second = Gated().eval(), Gated().eval()
    gates = find_gates(first, images())
    entered, left = Event(), Event()

    def watch() -> None:
        with watch_gates(first, gates):
            entered.set()
            assert left.wait(60)

    thread = Thread(target=watch)
    thread.start()
    assert entered.wait(60)
    with torch.no_grad(), watch_gates(second, gates) as values:
        left.set()
        thread.join()  # the block that set the stance ends before this one
        second(images())
        assert RUNS == []
        assert set(values) == {gates[0].name}
    assert_compiled(first)
