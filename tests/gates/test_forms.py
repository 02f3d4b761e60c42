"""`Gate.form` is part of recordings: the strings are those of 0.1, and name what was done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.gates.detect import find_gates, inspect_gates
from tests.gates.nets import Net, channel, column, images, logits, spatial
from tests.gates.test_spellings import SPELLINGS

FORMS = {
    "method": [""],
    "times ones": ["rmul parameters"],
    "relu6(z + 3) / 6": ["div 6"],
    "1 / (1 + exp(-z))": ["add 1; rdiv 1"],
    "(1 + exp(-z)) ** -1": ["add 1; pow -1"],
    "half of 1 + tanh": ["add 1; mul 0.5"],
    "1 - g": ["rsub 1"],
    "param * g": ["rmul parameters"],
    "(g1 + g2) / 2": ["add .1; div 2"],
    "a gate of a gate": ["mul .1"],
    "stretched and clamped": ["mul 1.5; sub 0.25; clamp 0 1"],
    "joined groups": ["cat"],
    "chunked groups": ["chunk(2, 1)[0]", "chunk(2, 1)[1]"],
    "g and 1 - g": ["", "rsub 1"],
    "softmax over paths, apart": ["unbind(1)[0]", "unbind(1)[1]"],
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_equal_those_of_version_0_1(name: str) -> None:
    assert [g.form for g in find_gates(Net(SPELLINGS[name].body), images())] == FORMS[name]


OTHERS: dict[str, tuple[Callable[[Net, Tensor], Tensor], str]] = {
    "slice": (lambda net, y: y[:, :3] * channel(net, y)[:, :3], "getitem((::, :3:))[0]"),
    "keyword": (lambda net, y: y[:, :3] * channel(net, y).split(3, dim=1)[0], "split(3, dim=1)[0]"),
    "index": (
        lambda net, y: y[:, :2] * channel(net, y).index_select(1, torch.tensor([0, 4])),
        "index_select(1, tensor)[0]",
    ),
    "square root": (lambda net, y: y * channel(net, y).sqrt(), "sqrt"),
    "negative": (lambda net, y: y * -channel(net, y), "neg"),
    "from a number": (lambda net, y: y * torch.rsub(channel(net, y), 2), "rsub 2"),
}


@pytest.mark.parametrize(("body", "form"), OTHERS.values(), ids=OTHERS)
def test_form_names_the_operations_since_the_activation(
    body: Callable[[Net, Tensor], Tensor], form: str
) -> None:
    assert [gate.form for gate in find_gates(Net(body), images())] == [form]


@pytest.mark.parametrize("copy", ["clone", "contiguous", "detach"])
def test_a_copied_product_of_two_gates_remains_two_gates(copy: str) -> None:
    def body(net: Net, y: Tensor) -> Tensor:
        return y * getattr(channel(net, y) * spatial(y), copy)()

    assert [gate.kind for gate in find_gates(Net(body), images())] == ["channel", "spatial"]


@pytest.mark.parametrize(
    ("mode", "count"), [("nearest", 1), ("bilinear", 1), ("area", 1), ("bicubic", 0)]
)
def test_a_resized_map_is_a_gate_unless_interpolation_is_bicubic(mode: str, count: int) -> None:
    """Weights of a bicubic one are negative in part, and leave the bounds."""

    def body(net: Net, y: Tensor) -> Tensor:
        small = torch.sigmoid(F.avg_pool2d(y, 2).mean(1, keepdim=True))
        return y * F.interpolate(small, scale_factor=2, mode=mode)

    found = inspect_gates(Net(body), images())
    assert len(found.gates) == count
    reasons = [(u.code, u.detail) for u in found.ungated]
    assert reasons == [("consumed", "interpolate")] * (1 - count)


def test_a_quotient_is_a_gate_only_if_the_divisor_cannot_be_zero() -> None:
    def over(shift: float) -> Callable[[Net, Tensor], Tensor]:
        return lambda net, y: y * (1 / (column(torch.sigmoid(logits(net, y))) + shift))

    (gate,) = find_gates(Net(over(1.0)), images())
    assert (gate.lo, gate.hi) == (0.5, 1.0)
    assert find_gates(Net(over(0.0)), images()) == []
    assert find_gates(Net(over(-0.5)), images()) == []
