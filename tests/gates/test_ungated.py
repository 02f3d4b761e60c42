"""Activations that look like gates and are not, and the reasons that are given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.gates.detect import find_gates, inspect_gates
from attnscope.gates.hooks import watch_gates
from attnscope.kinds import NOT_A_GATE
from tests.gates.nets import (
    CHANNELS,
    SIZE,
    Net,
    channel,
    column,
    images,
    logits,
    nlc,
    spatial,
)


def overwritten_through_a_view(net: Net, y: Tensor) -> Tensor:
    gate = channel(net, y)
    gate.view(-1).copy_(y.mean((2, 3)).flatten())
    return y * gate


def written_into(gate: Tensor, values: Tensor) -> Tensor:
    gate[:, :2] = column(values)[:, :2]
    return gate


def lstm_cell(net: Net, y: Tensor) -> Tensor:
    rows = nlc(y)
    i, f, o = torch.sigmoid(rows), torch.sigmoid(-rows), torch.sigmoid(2 * rows)
    cell = f * rows + i * torch.tanh(rows)
    return o * torch.tanh(cell)


def self_attention(net: Net, y: Tensor) -> Tensor:
    return y.flatten(2).softmax(2) @ y.flatten(2).transpose(1, 2)


def softmax_pooling(net: Net, y: Tensor) -> Tensor:
    weights = y.mean(1).flatten(1).softmax(1).view(-1, 1, *y.shape[2:])
    return (y * weights).sum((2, 3))


def stochastic_depth(net: Net, y: Tensor) -> Tensor:
    return y + net.other(y) * y.new_empty(len(y), 1, 1, 1).bernoulli_(0.5)


NO_GATES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "overwritten through a view": overwritten_through_a_view,
    "silu by hand": lambda net, y: y * torch.sigmoid(y),
    "silu by hand, of vectors": lambda net, y: (
        lambda z: y.mean((2, 3)) + net.fc(z * torch.sigmoid(z))
    )(logits(net, y)),
    "silu by hand, 1×1": lambda net, y: (
        lambda z: y + z * torch.sigmoid(z)
    )(y.mean((2, 3), keepdim=True)),
    "swish and silu": lambda net, y: F.silu(y) + F.hardswish(y) + F.gelu(y, approximate="tanh"),
    "glu": lambda net, y: F.glu(y, 1),
    "glu by hand": lambda net, y: y[:, :3] * torch.sigmoid(y[:, 3:]),
    "lstm": lambda net, y: nn.LSTM(CHANNELS, 4, batch_first=True)(nlc(y))[0],
    "lstm by hand": lstm_cell,
    "self-attention": self_attention,
    "softmax pooling": softmax_pooling,
    "parameter": lambda net, y: y * torch.sigmoid(net.scale),
    "buffer": lambda net, y: y * torch.sigmoid(net.mask + 1),
    "dropout": lambda net, y: F.dropout2d(y, 0.5, training=True),
    "stochastic depth": stochastic_depth,
    "mask": lambda net, y: y * (channel(net, y) > 0.5),
    "mask of numbers": lambda net, y: y * (channel(net, y) > 0.5).float(),
    "layer scale": lambda net, y: y * net.scale,
    "norm with a clamp": lambda net, y: y * (1 / y.norm(dim=1, keepdim=True).clamp(min=1e-3)),
    "divided by a norm": lambda net, y: y / y.norm(dim=1, keepdim=True).clamp_min(1e-3),
    "relu6 times a scale": lambda net, y: F.relu6(y) * net.scale,
    "tanh times a scale": lambda net, y: torch.tanh(y) * net.scale,
    "clamped times a scale": lambda net, y: y.clamp(-1, 1) * net.scale,
    "clamped plus clamped": lambda net, y: (F.relu6(y) + F.relu6(-y)) * net.scale,
    "weight mask": lambda net, y: F.conv2d(y, net.other.weight * torch.sigmoid(net.scale[..., None])),
    "dynamic weight mask": lambda net, y: F.conv2d(
        y, net.other.weight * torch.sigmoid(y.mean()) * torch.ones(1, 1, 3, 3)
    ),
    "dynamic kernel": lambda net, y: y + F.conv2d(
        y, net.fc.weight[:2, :, None, None].expand(2, 6, 3, 3) * channel(net, y), padding=1
    ).mean(1, keepdim=True),
    "fake quantisation": lambda net, y: torch.clamp(torch.round(y / 0.1), -128, 127) * 0.1,
    "fake quantisation, learned": lambda net, y: (
        torch.clamp(torch.round(y / net.scale), -128, 127) * net.scale
    ),
    "features broadcast over it": lambda net, y: (
        y.mean((2, 3), keepdim=True) * torch.sigmoid(y)
    ),
    "rows broadcast over it": lambda net, y: y.mean(2, keepdim=True) * torch.sigmoid(y),
    "overwritten": lambda net, y: y * channel(net, y).copy_(y.mean((2, 3), keepdim=True)),
    "joined with what is none": lambda net, y: (
        y * torch.cat([channel(net, y)[:, :3], column(logits(net, y))[:, 3:]], 1)
    ),
    "one over a gate": lambda net, y: y * (1 / column(torch.tanh(logits(net, y)))),
    "written into": lambda net, y: y * written_into(channel(net, y), logits(net, y)),
    "added": lambda net, y: y + channel(net, y),
    "not bounded": lambda net, y: y * column(logits(net, y)),
    "exponential": lambda net, y: y * column(logits(net, y).exp()),
    "one for the batch": lambda net, y: y * channel(net, y).mean(0, keepdim=True).sigmoid(),
}  # fmt: skip


@pytest.mark.parametrize("body", NO_GATES.values(), ids=NO_GATES)
def test_look_alikes_are_not_gates(body: Callable[[Net, Tensor], Tensor]) -> None:
    assert find_gates(Net(body), images()) == []


def test_look_alikes_are_not_gates_in_inference_mode() -> None:
    """Where tensors count no versions, writes are seen where they happen."""
    for name in ("overwritten", "written into", "silu by hand"):
        with torch.inference_mode():
            assert find_gates(Net(NO_GATES[name]), images()) == []


def test_a_constant_that_was_written_into_is_features() -> None:
    def padded(net: Net, y: Tensor) -> Tensor:
        larger = y.new_zeros(len(y), CHANNELS, y.shape[2] + 2, y.shape[3] + 2)
        larger[:, :, 1:-1, 1:-1] = y
        return larger * channel(net, y)

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert [g.kind for g in find_gates(Net(padded), images())] == ["channel"]


@pytest.mark.parametrize(
    ("name", "reasons"),
    {
        "silu by hand": [("other-kind", "activation")],
        "silu by hand, of vectors": [("other-kind", "activation")],
        "silu by hand, 1×1": [("no-features", "")],
        "self-attention": [("consumed", "matmul")],
        "softmax pooling": [("pooling", "")],
        "parameter": [("other-kind", "static")],
        "mask": [("consumed", "gt")],
        "dynamic kernel": [("routing", "conv2d")],
        "weight mask": [("consumed", "conv2d")],
        "added": [("consumed", "add")],
        "overwritten": [("consumed", "copy")],
        "one for the batch": [("consumed", "sigmoid"), ("whole-batch", "")],
        "tanh times a scale": [("returned", "")],
        "not bounded": [],
        "exponential": [],
    }.items(),
)
def test_activations_that_are_not_gates_are_listed_with_a_reason(
    name: str, reasons: list[tuple[str, str]]
) -> None:
    found = inspect_gates(Net(NO_GATES[name]), images())
    activations = [u for u in found.ungated if u.activation != "none"]
    assert [(u.code, u.detail) for u in activations] == reasons
    assert all(u.code in NOT_A_GATE and u.detail in u.reason for u in found.ungated)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (lambda net, y: y * column(logits(net, y)), "unbounded"),
        (lambda net, y: y * column(logits(net, y)).relu(), "unbounded"),
        (lambda net, y: y * F.softplus(y.mean(1, keepdim=True)), "unbounded"),
        (lambda net, y: y / (y.std(1, keepdim=True) + 1e-5), "statistic"),
        (lambda net, y: (y - y.mean((2, 3), keepdim=True)) * y.var((2, 3), keepdim=True).rsqrt(),
         "statistic"),
        (lambda net, y: y * (channel(net, y) > 0.5), "mask"),
    ],
)  # fmt: skip
def test_multipliers_without_bounds_are_listed(
    body: Callable[[Net, Tensor], Tensor], code: str
) -> None:
    found = inspect_gates(Net(body), images())
    assert found.gates == []
    assert [u.code for u in found.ungated if u.activation == "none"] == [code]


@pytest.mark.parametrize(
    ("body", "pointwise"),
    [
        (lambda net, y: y * torch.sigmoid(y), True),
        (lambda net, y: y[:, :3] * torch.sigmoid(y[:, 3:]), True),
        (lambda net, y: y * torch.sigmoid(F.conv2d(y, net.other.weight[:, :, 1:2, 1:2])), True),
        (lambda net, y: y * torch.sigmoid(net.other(y)), False),
        (lambda net, y: y * torch.sigmoid(y - y.mean((2, 3), keepdim=True)), False),
        (lambda net, y: y * torch.sigmoid(y.flip(3)), False),
        (lambda net, y: y.flatten(2) * (channel(net, y) * spatial(y)).flatten(2), False),
    ],
)
def test_a_gate_of_the_features_shape_is_an_activation_if_it_is_pointwise(
    body: Callable[[Net, Tensor], Tensor], pointwise: bool
) -> None:
    found = inspect_gates(Net(body), images())
    assert [gate.kind for gate in found.gates] == ([] if pointwise else ["full"])
    listed = [(u.code, u.detail) for u in found.ungated]
    assert (("other-kind", "activation") in listed) == pointwise


def test_a_consumed_activation_is_named_with_its_consumer() -> None:
    model = Net(lambda net, y: y * torch.cumsum(torch.sigmoid(logits(net, y)), 1)[..., None, None])
    first, second = inspect_gates(model, images()).ungated
    assert (first.activation, first.code, first.detail) == ("sigmoid", "consumed", "cumsum")
    assert second.code == "unbounded"


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        (lambda net, y: y * (spatial(y) / spatial(y).amax((2, 3), keepdim=True)), "consumed", "div"),
        (lambda net, y: y / spatial(y), "consumed", "div"),
        (lambda net, y: y * (1 / spatial(y)), "consumed", "rdiv"),
        (lambda net, y: torch._foreach_mul([y], [spatial(y).expand_as(y).clone()])[0],
         "consumed", "foreach_mul"),
        (lambda net, y: torch.meshgrid([channel(net, y).flatten()], indexing="ij")[0].sum() + y,
         "consumed", "meshgrid"),
        (lambda net, y: torch.vmap(torch.mul)(y, channel(net, y)), "unused", ""),
        (lambda net, y: torch.stack([a * b for a, b in zip(y, channel(net, y), strict=True)]),
         "size", ""),
    ],
)  # fmt: skip
def test_a_reason_is_true_of_a_network_that_takes_any_size(
    body: Callable[[Net, Tensor], Tensor], code: str, detail: str
) -> None:
    model = Net(body).eval()
    assert model(images(size=SIZE + 3)).shape[-1] == SIZE + 3
    found = inspect_gates(model, images())
    ungated = next(each for each in found.ungated if each.activation == "sigmoid")
    assert (ungated.code, ungated.detail) == (code, detail)
    assert "image size" not in ungated.reason
    # An operation uses each of them, so that another one cannot be said to have no use.
    assert "any operation" not in ungated.reason


def test_groups_that_share_an_axis_with_the_images_are_read_by_image_and_group() -> None:
    def grouped(net: Net, y: Tensor) -> Tensor:
        groups = y.reshape(-1, 3, *y.shape[2:])
        return (groups * torch.sigmoid(groups.mean((2, 3), keepdim=True))).view_as(y)

    model = Net(grouped)
    (gate,) = find_gates(model, images())
    assert (gate.kind, gate.axes, gate.layout, gate.rows_per_image) == (
        "grouped", "NGC", "(NG)CHW", 2,
    )  # fmt: skip
    with watch_gates(model, [gate]) as seen:
        model(images(5))
    y = model.conv(images(5))
    assert torch.equal(seen[gate.name], y.mean((2, 3)).sigmoid().view(5, 2, 3))


def test_rows_with_the_images_after_one_another_are_told_by_their_values() -> None:
    def views(net: Net, y: Tensor) -> Tensor:
        both = torch.cat([y, y.flip(3).relu()])
        return (both * torch.sigmoid(both.mean((2, 3), keepdim=True))).chunk(2)[1]

    model = Net(views)
    (gate,) = find_gates(model, images())
    assert (gate.axes, gate.layout) == ("NGC", "(GN)CHW")
    with watch_gates(model, [gate]) as seen:
        model(images(5))
    y = model.conv(images(5))
    by_hand = y.flip(3).relu().mean((2, 3)).sigmoid()
    torch.testing.assert_close(seen[gate.name][:, 1], by_hand)
    assert not torch.allclose(seen[gate.name][:, 0], by_hand)


def test_an_activation_that_the_network_returns_is_listed_so() -> None:
    (ungated,) = inspect_gates(
        Net(lambda net, y: logits(net, y).sigmoid().flatten(1)), images()
    ).ungated
    assert (ungated.activation, ungated.code) == ("sigmoid", "returned")
