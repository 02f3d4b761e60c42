"""Every way to write a gate down, and everything that looks like one and is none.

Each network here is a few lines. What the tracer must say of it was written down by hand, what it
must read is computed again by hand, and so is what comes out when its gate is doubled.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attnscope.errors import InputError
from attnscope.gates.detect import find_gates, inspect_gates
from attnscope.gates.hooks import edit_gates, watch_gates
from attnscope.kinds import KINDS, searched_kinds

SIZE, CHANNELS = 8, 6


class Net(nn.Module):
    """A convolution, and then whatever the test writes: ``body(net, features)``."""

    def __init__(self, body: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.other = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(CHANNELS, CHANNELS)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, CHANNELS).view(-1, 1, 1))
        self.register_buffer("mask", torch.ones(1, CHANNELS, 1, 1))
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.conv(x))


def images(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def logits(net: Net, y: Tensor) -> Tensor:
    return net.fc(y.mean((2, 3)))


def column(values: Tensor) -> Tensor:
    return values[:, :, None, None]


def channel(net: Net, y: Tensor) -> Tensor:
    return column(torch.sigmoid(logits(net, y)))


def spatial(y: Tensor) -> Tensor:
    return torch.sigmoid(y.mean(1, keepdim=True))


def rows(y: Tensor) -> Tensor:
    return torch.sigmoid(y.mean(3, keepdim=True))


@dataclass
class Spelling:
    body: Callable[[Net, Tensor], Tensor]
    value: Callable[[Net, Tensor], Tensor] = lambda net, y: torch.sigmoid(logits(net, y))
    """Of the first gate, as it is handed out."""
    kinds: tuple[str, ...] = ("channel",)
    axes: tuple[str, ...] = ("NC",)
    layout: str = "NCHW"
    bounds: tuple[float, float] = (0.0, 1.0)
    neutral: float = 1.0
    activation: str = "sigmoid"
    doubled: Callable[[Net, Tensor], Tensor] | None = None
    """What comes out when the first gate is doubled; default twice what came out."""
    ask: tuple[str, ...] = searched_kinds()
    names: tuple[str, ...] = field(default=("",))


def by_hand_sigmoid(net: Net, y: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-logits(net, y)))


def chunked(net: Net, y: Tensor, times: int = 1) -> Tensor:
    a, b = channel(net, y).chunk(2, 1)
    if times == 2:
        a = 2 * a
    c, d = y.chunk(2, 1)
    return torch.cat([c * a, d * b], 1)


def two_paths(net: Net, y: Tensor) -> tuple[Tensor, Tensor]:
    z = logits(net, y)
    weights = torch.stack([z, -z], 1).softmax(1)[..., None, None]
    return weights, torch.stack([y, net.other(y)], 1)


def chunked_paths(net: Net, y: Tensor, times: float = 1) -> Tensor:
    weights, _ = two_paths(net, y)
    a, b = weights.unbind(1)
    if times == 2:
        return y * (2 * a) + net.other(y) * b
    return y * a + net.other(y) * b


def unet(net: Net, y: Tensor) -> Tensor:
    coarse = F.avg_pool2d(net.other(y), 2)
    psi = torch.sigmoid(coarse.mean(1, keepdim=True))
    return y * F.interpolate(psi, scale_factor=2, mode="bilinear", align_corners=False)


def unet_map(net: Net, y: Tensor) -> Tensor:
    psi = torch.sigmoid(F.avg_pool2d(net.other(y), 2).mean(1, keepdim=True))
    return F.interpolate(psi, scale_factor=2, mode="bilinear", align_corners=False)[:, 0]


def nhwc(y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1)


def nlc(y: Tensor) -> Tensor:
    return y.flatten(2).transpose(1, 2)


SPELLINGS = {
    "method": Spelling(lambda net, y: y * logits(net, y).sigmoid().view(-1, CHANNELS, 1, 1)),
    "gate first": Spelling(lambda net, y: channel(net, y) * y),
    "keywords": Spelling(lambda net, y: torch.mul(input=y, other=channel(net, y))),
    "keywords, gate as input": Spelling(lambda net, y: torch.mul(other=y, input=channel(net, y))),
    "in place": Spelling(lambda net, y: y.mul_(channel(net, y))),
    "augmented": Spelling(lambda net, y: y.clone().__imul__(channel(net, y))),
    "out=": Spelling(lambda net, y: torch.mul(y, channel(net, y), out=torch.empty(0))),
    "sigmoid_": Spelling(lambda net, y: y * column(logits(net, y).sigmoid_())),
    "expit": Spelling(lambda net, y: y * column(torch.special.expit(logits(net, y)))),
    "expand_as": Spelling(lambda net, y: y * channel(net, y).expand_as(y)),
    "expand, contiguous": Spelling(lambda net, y: y * channel(net, y).expand_as(y).contiguous()),
    "repeat": Spelling(lambda net, y: y * channel(net, y).repeat(1, 1, *y.shape[2:])),
    "tile": Spelling(lambda net, y: y * channel(net, y).tile((1, 1, *y.shape[2:]))),
    "repeat_interleave": Spelling(
        lambda net, y: (
            y * channel(net, y).repeat_interleave(y.shape[2], 2).repeat_interleave(y.shape[3], 3)
        )
    ),
    "interpolate": Spelling(lambda net, y: y * F.interpolate(channel(net, y), size=y.shape[2:])),
    "times ones": Spelling(lambda net, y: y * (torch.ones_like(y) * channel(net, y))),
    "written out before": Spelling(
        lambda net, y: y * torch.sigmoid(column(logits(net, y)).expand_as(y)),
        # A sigmoid rounds otherwise in a vector than by itself: so this is taken from the same one.
        lambda net, y: torch.sigmoid(column(logits(net, y)).expand_as(y))[:, :, 0, 0],
    ),
    "one MLP twice": Spelling(
        lambda net, y: y * column(torch.sigmoid(net.fc(y.mean((2, 3))) + net.fc(y.amax((2, 3))))),
        lambda net, y: torch.sigmoid(net.fc(y.mean((2, 3))) + net.fc(y.amax((2, 3)))),
    ),
    "addcmul": Spelling(lambda net, y: torch.addcmul(torch.zeros_like(y), y, channel(net, y))),
    "addcmul, residual": Spelling(
        lambda net, y: torch.addcmul(y, y, channel(net, y)),
        neutral=0.0,
        doubled=lambda net, y: torch.addcmul(y, y, 2 * channel(net, y)),
    ),
    "lerp": Spelling(lambda net, y: torch.lerp(torch.zeros_like(y), y, channel(net, y))),
    "hardsigmoid": Spelling(
        lambda net, y: y * column(F.hardsigmoid(logits(net, y))),
        lambda net, y: F.hardsigmoid(logits(net, y)),
        activation="hardsigmoid",
    ),
    "relu6(z + 3) / 6": Spelling(
        lambda net, y: y * column(F.relu6(logits(net, y) + 3) / 6),
        lambda net, y: F.relu6(logits(net, y) + 3) / 6,
        activation="relu6",
    ),
    "relu6 in place": Spelling(
        lambda net, y: y * column(logits(net, y).add_(3.0).clamp_(0.0, 6.0).div_(6.0)),
        lambda net, y: F.relu6(logits(net, y) + 3) / 6,
        activation="relu6",
    ),
    "clip": Spelling(
        lambda net, y: y * column(torch.clip(logits(net, y) / 6 + 0.5, 0, 1)),
        lambda net, y: torch.clip(logits(net, y) / 6 + 0.5, 0, 1),
        activation="clamp",
    ),
    "1 / (1 + exp(-z))": Spelling(
        lambda net, y: y * column(by_hand_sigmoid(net, y)), by_hand_sigmoid
    ),
    "(1 + exp(-z)) ** -1": Spelling(
        lambda net, y: y * column((1 + (-logits(net, y)).exp()) ** -1),
        lambda net, y: (1 + (-logits(net, y)).exp()) ** -1,
    ),
    "tanh": Spelling(
        lambda net, y: y * column(torch.tanh(logits(net, y))),
        lambda net, y: torch.tanh(logits(net, y)),
        bounds=(-1.0, 1.0),
        activation="tanh",
    ),
    "half of 1 + tanh": Spelling(
        lambda net, y: y * column(0.5 * (torch.tanh(logits(net, y)) + 1)),
        lambda net, y: 0.5 * (torch.tanh(logits(net, y)) + 1),
        activation="tanh",
    ),
    "1 + g": Spelling(
        lambda net, y: y * (1 + channel(net, y)),
        lambda net, y: 1 + torch.sigmoid(logits(net, y)),
        bounds=(1.0, 2.0),
    ),
    "1 - g": Spelling(
        lambda net, y: y * (1 - channel(net, y)), lambda net, y: 1 - torch.sigmoid(logits(net, y))
    ),
    "2 * g": Spelling(
        lambda net, y: y * (2 * channel(net, y)),
        lambda net, y: 2 * torch.sigmoid(logits(net, y)),
        bounds=(0.0, 2.0),
    ),
    "g squared": Spelling(
        lambda net, y: y * channel(net, y) ** 2, lambda net, y: torch.sigmoid(logits(net, y)) ** 2
    ),
    "param * g": Spelling(
        lambda net, y: y * (net.scale * channel(net, y)),
        lambda net, y: net.scale[:, 0, 0] * torch.sigmoid(logits(net, y)),
        bounds=(0.0, 1.5),
    ),
    "(g1 + g2) / 2": Spelling(
        lambda net, y: y * ((channel(net, y) + channel(net, y.relu())) / 2),
        lambda net, y: (torch.sigmoid(logits(net, y)) + torch.sigmoid(logits(net, y.relu()))) / 2,
    ),
    "a gate of a gate": Spelling(
        lambda net, y: y * (channel(net, y) * channel(net, y.relu())),
        lambda net, y: torch.sigmoid(logits(net, y)) * torch.sigmoid(logits(net, y.relu())),
    ),
    "x + x * g": Spelling(
        lambda net, y: y + y * channel(net, y),
        neutral=0.0,
        doubled=lambda net, y: y + y * (2 * channel(net, y)),
    ),
    "x * g + x": Spelling(
        lambda net, y: y * channel(net, y) + y,
        neutral=0.0,
        doubled=lambda net, y: y * (2 * channel(net, y)) + y,
    ),
    "x + other * g": Spelling(
        lambda net, y: y + net.other(y) * channel(net, y),
        doubled=lambda net, y: y + net.other(y) * (2 * channel(net, y)),
    ),
    "two factors": Spelling(
        lambda net, y: y * (channel(net, y) * spatial(y)),
        kinds=("channel", "spatial"),
        axes=("NC", "NHW"),
        names=("", "#2"),
    ),
    "two factors, one a number an image": Spelling(
        lambda net, y: y * (channel(net, y) * torch.sigmoid(y.mean((1, 2, 3), keepdim=True))),
        kinds=("channel", "channel"),
        axes=("NC", "NC"),
        names=("", "#2"),
    ),
    "stretched and clamped": Spelling(
        lambda net, y: y * (1.5 * channel(net, y) - 0.25).clamp(0, 1),
        lambda net, y: (1.5 * torch.sigmoid(logits(net, y)) - 0.25).clamp(0, 1),
    ),
    "two factors, one a static": Spelling(
        lambda net, y: y * (torch.sigmoid(net.scale) * channel(net, y)),
        lambda net, y: torch.sigmoid(net.scale[:, 0, 0]) * torch.sigmoid(logits(net, y)),
        bounds=(0.0, float(torch.sigmoid(torch.tensor(1.5)))),
    ),
    "joined groups": Spelling(
        lambda net, y: y * column(torch.cat([g.sigmoid() for g in logits(net, y).chunk(2, 1)], 1))
    ),
    "chunked groups": Spelling(
        chunked,
        lambda net, y: torch.sigmoid(logits(net, y))[:, :3],
        kinds=("channel", "channel"),
        axes=("NC", "NC"),
        names=("", "#2"),
        doubled=lambda net, y: chunked(net, y, 2),
    ),
    "used twice": Spelling(
        lambda net, y: (lambda g: y * g + net.other(y) * g)(channel(net, y)),
    ),
    "g and 1 - g": Spelling(
        lambda net, y: (lambda g: y * g + net.other(y) * (1 - g))(channel(net, y)),
        kinds=("channel", "channel"),
        axes=("NC", "NC"),
        names=("", "#2"),
        doubled=lambda net, y: (lambda g: y * (2 * g) + net.other(y) * (1 - g))(channel(net, y)),
    ),
    "bounded features": Spelling(lambda net, y: F.relu6(y) * channel(net, y)),
    "map": Spelling(
        lambda net, y: y * spatial(y), lambda net, y: spatial(y)[:, 0], ("spatial",), ("NHW",)
    ),
    "map written out": Spelling(
        lambda net, y: y * spatial(y).repeat(1, CHANNELS, 1, 1),
        lambda net, y: spatial(y)[:, 0],
        ("spatial",),
        ("NHW",),
    ),
    "rows": Spelling(
        lambda net, y: y * rows(y), lambda net, y: rows(y)[..., 0], ("strip",), ("NCH",)
    ),
    "columns and rows": Spelling(
        lambda net, y: y * rows(y.mT).mT * rows(y),
        lambda net, y: rows(y.mT)[..., 0],
        ("strip", "strip"),
        ("NCW", "NCH"),
        names=("", "#2"),
    ),
    "attention U-Net": Spelling(unet, unet_map, ("spatial",), ("NHW",)),
    "NHWC": Spelling(
        lambda net, y: nhwc(y) * torch.sigmoid(logits(net, y))[:, None, None, :], layout="NHWC"
    ),
    "NHWC, map": Spelling(
        lambda net, y: nhwc(y) * torch.sigmoid(nhwc(y).mean(3, keepdim=True)),
        lambda net, y: torch.sigmoid(nhwc(y).mean(3)),
        ("spatial",),
        ("NHW",),
        layout="NHWC",
    ),
    "NLC": Spelling(
        lambda net, y: nlc(y) * torch.sigmoid(logits(net, y))[:, None, :], layout="NLC"
    ),
    "NLC, map": Spelling(
        lambda net, y: nlc(y) * torch.sigmoid(nlc(y).mean(2, keepdim=True)),
        lambda net, y: torch.sigmoid(nlc(y).mean(2)).view(-1, *y.shape[2:]),
        ("spatial",),
        ("NL",),
        layout="NLC",
    ),
    "NCL": Spelling(
        lambda net, y: y.flatten(2) * torch.sigmoid(logits(net, y))[:, :, None], layout="NCL"
    ),
    "softmax over channels": Spelling(
        lambda net, y: y * column(logits(net, y).softmax(1)),
        lambda net, y: logits(net, y).softmax(1),
        activation="softmax",
    ),
    "softmax over pixels": Spelling(
        lambda net, y: y * y.mean(1).flatten(1).softmax(1).view(-1, 1, *y.shape[2:]),
        lambda net, y: y.mean(1).flatten(1).softmax(1).view(-1, *y.shape[2:]),
        ("spatial",),
        ("NHW",),
        activation="softmax",
    ),
    "softmax over paths": Spelling(
        lambda net, y: torch.mul(*two_paths(net, y)).sum(1),
        lambda net, y: two_paths(net, y)[0][..., 0, 0],
        ("branch",),
        ("NBC",),
        layout="NBCHW",
        activation="softmax",
    ),
    "softmax over paths, apart": Spelling(
        chunked_paths,
        lambda net, y: two_paths(net, y)[0][:, 0, :, 0, 0],
        ("branch", "branch"),
        ("NC", "NC"),
        activation="softmax",
        names=("", "#2"),
        doubled=lambda net, y: chunked_paths(net, y, 2),
    ),
    "from parameters": Spelling(
        lambda net, y: y * torch.sigmoid(net.scale),
        lambda net, y: torch.sigmoid(net.scale[:, 0, 0]),
        ("static",),
        ("C",),
        ask=tuple(KINDS),
    ),
    "full": Spelling(
        lambda net, y: y * torch.sigmoid(net.other(y)),
        lambda net, y: torch.sigmoid(net.other(y)),
        ("full",),
        ("NCHW",),
        ask=tuple(KINDS),
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("how", ["float32", "autocast", "channels-last", "training"])
def test_a_gate_is_found_read_and_edited(spelling: Spelling, how: str) -> None:
    model, x = Net(spelling.body), images()
    gates = find_gates(model, x, spelling.ask)
    assert tuple(g.kind for g in gates) == spelling.kinds
    assert tuple(g.axes for g in gates) == spelling.axes
    assert tuple(g.name for g in gates) == spelling.names
    gate = gates[0]
    assert (gate.activation, gate.layout) == (spelling.activation, spelling.layout)
    assert (gate.lo, gate.hi) == pytest.approx(spelling.bounds)
    assert gate.neutral == spelling.neutral

    if how == "channels-last":
        x = x.to(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    model.train(how == "training")
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"), torch.no_grad():
        y = model.conv(x)
        expected = spelling.value(model, y.clone())
        with watch_gates(model, gates) as seen:
            plain = model(x)
        assert torch.equal(plain, model(x))
        assert torch.equal(seen[gate.name], expected)
        doubled = spelling.doubled(model, y.clone()) if spelling.doubled else 2 * plain
        with edit_gates(model, {gate.name: lambda g, f: 2 * g}, gates):
            edited = model(x)
        assert torch.equal(edited, doubled)
        with edit_gates(model, {g.name: lambda g, f: g for g in gates}, gates):
            assert torch.equal(model(x), plain)


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
    "two factors, reshaped as one": lambda net, y: (
        y.flatten(2) * (channel(net, y) * spatial(y)).flatten(2)
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
def test_no_gate(body: Callable[[Net, Tensor], Tensor]) -> None:
    assert find_gates(Net(body), images()) == []


def test_no_gate_in_inference_mode() -> None:
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
    ("name", "fates"),
    {
        "silu by hand": ["full: multiplies features of its own shape"],
        "silu by hand, of vectors": ["consumed by mul"],
        "silu by hand, 1×1": ["multiplies what is no feature map"],
        "self-attention": ["consumed by matmul"],
        "softmax pooling": ["softmax pooling"],
        "two factors, reshaped as one": 2 * ["full: multiplies features of its own shape"],
        "parameter": ["static: from parameters alone"],
        "mask": ["consumed by gt"],
        "dynamic kernel": ["consumed by conv2d"],
        "weight mask": ["consumed by conv2d"],
        "added": ["consumed by add"],
        "overwritten": ["consumed by copy"],
        "one for the batch": ["consumed by mean", "one gate for all images of a batch"],
        "tanh times a scale": ["used by no operation"],
        "not bounded": [],
        "exponential": [],
    }.items(),
)
def test_what_is_no_gate_is_reported(name: str, fates: list[str]) -> None:
    found = inspect_gates(Net(NO_GATES[name]), images())
    assert [u.fate for u in found.ungated] == fates


def test_an_operation_that_is_not_known_is_named() -> None:
    model = Net(lambda net, y: torch.einsum("nchw,nc->nchw", y, torch.sigmoid(logits(net, y))))
    (ungated,) = inspect_gates(model, images()).ungated
    assert (ungated.made_in, ungated.activation, ungated.fate) == (
        "", "sigmoid", "consumed by einsum",
    )  # fmt: skip


def test_rows_that_are_not_images_are_reported() -> None:
    def grouped(net: Net, y: Tensor) -> Tensor:
        groups = y.reshape(-1, 3, *y.shape[2:])
        return (groups * torch.sigmoid(groups.mean((2, 3), keepdim=True))).view_as(y)

    found = inspect_gates(Net(grouped), images())
    assert found.gates == []
    assert [u.fate for u in found.ungated] == ["multiplies features whose rows are not the images"]


def test_one_image_without_a_batch_axis() -> None:
    class OneImage(nn.Module):
        def forward(self, x: Tensor) -> Tensor:  # (3, H, W)
            return x * torch.sigmoid(x.mean((1, 2)))[:, None, None] * torch.sigmoid(x.mean(0))

    model, x = OneImage(), images()[0]
    gates = find_gates(model, x)
    assert [(g.kind, g.layout, g.axes) for g in gates] == [
        ("channel", "CHW", "C"),
        ("spatial", "CHW", "HW"),
    ]
    with watch_gates(model, gates) as seen:
        plain = model(x)
    assert torch.equal(seen[""], torch.sigmoid(x.mean((1, 2)))[None])
    assert seen["#2"].shape == (1, SIZE, SIZE)
    with edit_gates(model, {"": lambda g, f: 2 * g}, gates):
        assert torch.equal(model(x), 2 * plain)


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, y: Tensor) -> Tensor:
        return y * column(torch.sigmoid(self.fc(y.mean((2, 3)))))


def test_one_module_at_two_places_and_in_a_loop() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, CHANNELS, 1)
            self.se = Squeeze()

        def forward(self, x: Tensor) -> Tensor:
            y = self.se(self.conv(x))
            for _ in range(2):
                y = self.se(y)
            return y

    model, x = Shared(), images()
    gates = find_gates(model, x)
    assert [g.name for g in gates] == ["se", "se#2", "se#3"]
    y = model.conv(x)
    with watch_gates(model, gates) as seen:
        plain = model(x)
    for name in seen:
        gate = torch.sigmoid(model.se.fc(y.mean((2, 3))))
        assert torch.equal(seen[name], gate)
        y = y * column(gate)
    assert torch.equal(plain, y)
    with edit_gates(model, {"se#3": lambda g, f: 2 * g}, gates):
        assert torch.equal(model(x), 2 * plain)


def test_two_views_of_one_gate_are_edited_once_and_read_at_the_first() -> None:
    def twice(net: Net, y: Tensor) -> Tensor:
        gate = torch.sigmoid(logits(net, y))
        psi = spatial(y)
        small = F.avg_pool2d(y, 2) * F.interpolate(psi, scale_factor=0.5)
        return y * column(gate) * psi + net.other(y) * column(gate) + small.mean()

    model, x = Net(twice), images()
    gates = find_gates(model, x)
    assert [(g.kind, g.grid) for g in gates] == [
        ("spatial", (SIZE // 2, SIZE // 2)),
        ("channel", None),
    ]
    calls: list[tuple[int, ...]] = []

    def note(gate: Tensor, features: Tensor) -> Tensor:
        calls.append(tuple(gate.shape))
        return gate

    with watch_gates(model, gates) as seen, edit_gates(model, {g.name: note for g in gates}, gates):
        model(x)
    # The map once for each of its two sizes.
    assert sorted(calls) == [(2, 1, 4, 4), (2, 1, 8, 8), (2, CHANNELS, 1, 1)]
    assert {v.shape[1:] for v in seen.values()} == {(4, 4), (CHANNELS,)}


def test_a_gate_that_is_written_out_and_then_varies_is_refused() -> None:
    class Moody(nn.Module):
        varies = False

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x if self.varies else x.mean((2, 3), keepdim=True) + 0 * x)

    model, x = Moody(), images()
    gates = find_gates(model, x)
    assert [g.kind for g in gates] == ["channel"]
    model.varies = True
    with watch_gates(model, gates), pytest.raises(InputError, match="varies along W"):
        model(x)


def test_a_gate_that_starts_at_zero_keeps_its_kind_where_it_is_written_out() -> None:
    model = Net(lambda net, y: y * channel(net, y).repeat(1, 1, *y.shape[2:]))
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    assert [(g.kind, g.axes) for g in find_gates(model, images())] == [("channel", "NC")]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_modules_are_refused_by_name(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, CHANNELS, 1)
            self.se = Squeeze()
            self.on = True

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return checkpoint(self.se, y, use_reentrant=reentrant) if self.on else self.se(y)

    model, x = Checkpointed(), images()
    with pytest.raises(InputError, match=r"gate in se runs within torch\.utils\.checkpoint"):
        find_gates(model, x)
    model.on = False
    gates = find_gates(model, x)
    model.on = True
    with edit_gates(model, {"se": lambda g, f: g}, gates), pytest.raises(InputError, match="in se"):
        model(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_scripted_and_compiled_modules_are_refused_by_name() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())
    for inner, how in (
        (torch.jit.trace(block, images()), "torch.jit"),
        (torch.compile(block), "torch.compile"),
    ):
        with pytest.raises(InputError, match=rf"module inner \(.*{how}"):
            find_gates(Outer(inner), images())


def test_kinds_are_checked() -> None:
    with pytest.raises(InputError, match="kind of gate 'rows' is not known"):
        find_gates(Net(lambda net, y: y), images(), ["rows"])


def test_the_order_of_kinds_does_not_change_names() -> None:
    model = Net(lambda net, y: (y * torch.sigmoid(net.other(y))) * channel(net, y))
    (gate,) = find_gates(model, images())
    both = find_gates(model, images(), tuple(KINDS))
    assert [(g.kind, g.name) for g in both] == [("full", "#2"), ("channel", gate.name)]


def test_finding_draws_no_random_numbers() -> None:
    model = Net(lambda net, y: y * channel(net, y) * (1 + 0 * torch.rand_like(y)))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    find_gates(model, images())
    assert torch.equal(torch.rand(1), expected)


def test_marks_pin_no_memory() -> None:
    """Every tensor that was marked is gone when the network would have let go of it."""
    alive: list[Any] = []

    def body(net: Net, y: Tensor) -> Tensor:
        for _ in range(4):
            y = F.relu6(net.other(y))
            alive.append(weakref.ref(y))
        gone = [ref() is None for ref in alive[:-1]]
        assert all(gone), gone
        return y

    model = Net(body)
    with torch.no_grad(), watch_gates(model, []):
        model(images())
    alive.clear()
    find_gates(model, images())


def test_a_parameter_that_comes_back_from_an_operation_stays_one() -> None:
    """``to`` returns the tensor itself where nothing has to change, and the input has a part in it."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.scale = nn.Linear(3, 3), nn.Parameter(torch.rand(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]
            gated = x * (gate * self.scale)
            return gated + 0 * self.scale.to(x)

    torch.manual_seed(0)
    model, x = Scaled().eval(), torch.rand(2, 3, 4, 4)
    found = find_gates(model, x)
    wanted = torch.sigmoid(model.fc(x.mean((2, 3)))) * model.scale.flatten()
    with torch.no_grad(), watch_gates(model, found) as seen:
        for write in (False, True, False):
            if write:
                model.scale.mul_(1)
            model(x)
            torch.testing.assert_close(seen[found[0].name], wanted)


def test_a_buffer_that_was_replaced_does_not_live_on() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + 1
            return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]

    torch.manual_seed(0)
    model, x = Counts().eval(), torch.rand(2, 3, 4, 4)
    old = []
    with torch.no_grad(), watch_gates(model, find_gates(model, x)):
        for _ in range(5):
            model(x)
            old.append(weakref.ref(model.seen))
        # The tracer may hold the one that the last forward began with, and no older one.
        assert [ref() is not None for ref in old] == [False] * 3 + [True] * 2
