"""Every way to write a gate down.

Each network here is a few lines. What the tracer must say of it was written down by hand, what it
must read is computed again by hand, and so is what comes out when its gate is doubled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import edit_gates, watch_gates
from attnscope.kinds import KINDS, searched_kinds
from tests.gates.nets import (
    CHANNELS,
    Net,
    channel,
    column,
    images,
    logits,
    nhwc,
    nlc,
    rows,
    spatial,
)


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
    """What follows the name of the activation in the names of the gates."""


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
    "clone": Spelling(lambda net, y: y * channel(net, y).clone().contiguous()),
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
        kinds=("channel", "scalar"),
        axes=("NC", "N"),
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
        lambda net, y: nlc(y) * torch.sigmoid(logits(net, y))[:, None, :], layout="N(HW)C"
    ),
    "NLC, map": Spelling(
        lambda net, y: nlc(y) * torch.sigmoid(nlc(y).mean(2, keepdim=True)),
        lambda net, y: torch.sigmoid(nlc(y).mean(2)).view(-1, *y.shape[2:]),
        ("spatial",),
        ("NHW",),
        layout="N(HW)C",
    ),
    "NCL": Spelling(
        lambda net, y: y.flatten(2) * torch.sigmoid(logits(net, y))[:, :, None], layout="NC(HW)"
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
    assert tuple(g.name for g in gates) == tuple(spelling.activation + n for n in spelling.names)
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
