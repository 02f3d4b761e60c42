"""What is said of a network's gates: names, kinds, axes, bounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.gates.detect import find_gates, inspect_gates
from attnscope.gates.hooks import edit_gates, watch_gates
from attnscope.kinds import KINDS
from attnscope.networks.build import build_model
from tests.gates.nets import (
    SIZE,
    Net,
    build,
    channel,
    hooked,
    images,
    pictures,
    state_of,
)
from tests.making import refused


def test_every_field_of_a_gate_is_known_by_hand() -> None:
    model = build("resnet18", "cbam", "stage")
    found = find_gates(model, pictures())
    assert [(g.name, g.kind, g.channels, g.grid) for g in found] == [
        ("layer1.attention.channel", "channel", 16, None),
        ("layer1.attention.spatial", "spatial", 16, (32, 32)),
        ("layer2.attention.channel", "channel", 32, None),
        ("layer2.attention.spatial", "spatial", 32, (16, 16)),
        ("layer3.attention.channel", "channel", 64, None),
        ("layer3.attention.spatial", "spatial", 64, (8, 8)),
        ("layer4.attention.channel", "channel", 128, None),
        ("layer4.attention.spatial", "spatial", 128, (4, 4)),
    ]
    assert {(g.activation, g.lo, g.hi, g.neutral) for g in found} == {("sigmoid", 0.0, 1.0, 1.0)}
    assert {g.applied_in for g in found} == {f"layer{i}.attention" for i in range(1, 5)}


def test_a_network_without_gates_has_none() -> None:
    assert find_gates(build("resnet18", "none", None), pictures()) == []


def test_a_bare_sigmoid_module_takes_its_parents_name() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return x * self.fc(x.mean((2, 3))).unsqueeze(-1).unsqueeze(-1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x).mean((2, 3))

    (gate,) = find_gates(Net(), pictures())
    assert (gate.name, gate.made_in, gate.applied_in) == ("block.fc", "block.fc.1", "block")


def test_find_gates_restores_the_flags_when_the_forward_raises() -> None:
    model = build("resnet18", "cbam", "block").train()
    model.layer1.eval()  # a mixture of flags must come back as it was
    before = state_of(model)
    find_gates(model, pictures())
    assert state_of(model) == before
    with pytest.raises(RuntimeError):
        find_gates(model, pictures()[:, :2])
    assert state_of(model) == before


def test_bounds_follow_arithmetic() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (3 - 2 * torch.tanh(x.mean((2, 3), keepdim=True)))

    (gate,) = find_gates(Net(), pictures())
    assert (gate.activation, gate.lo, gate.hi, gate.midpoint) == ("tanh", 1.0, 5.0, 3.0)


def test_two_gates_of_one_module_are_numbered() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
            return x * torch.sigmoid(x.mean(1, keepdim=True))

    found = find_gates(Net(), pictures())
    assert [(g.name, g.kind) for g in found] == [("sigmoid", "channel"), ("sigmoid#2", "spatial")]


def test_maps_of_one_pixel_take_a_larger_sample_and_are_then_known_by_place() -> None:
    model = build_model("resnet18", attention="se", stem="imagenet", width=16).eval()
    x = pictures(size=32)  # layer4 is 1×1: a channel gate has the shape of its features
    gates = find_gates(model, x)
    assert len(gates) == 8
    assert {g.kind for g in gates} == {"channel"}
    expected = hooked(model, x)
    with torch.no_grad(), watch_gates(model, gates) as seen:
        model(x)
    assert all(torch.equal(seen[name], value[:, :, 0, 0]) for name, value in expected.items())
    with torch.no_grad(), watch_gates(model) as seen:
        model(x)  # found on what this forward gets, enlarged
    assert list(seen) == list(expected)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_gate_of_a_single_channel_is_a_channel_gate(dimensions: int) -> None:
    """With several channels, the same gate is one value for each image."""

    class Net(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
            self.conv = convolution(3, channels, 1)
            self.fc = nn.Linear(channels, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            gate = self.fc(y.flatten(2).mean(2)).sigmoid()
            return y * gate.reshape(len(x), *[1] * (1 + dimensions))

    torch.manual_seed(0)
    x = torch.rand(3, 3, *[8] * dimensions)
    for channels, kind, axes, shape in ((1, "channel", "NC", (3, 1)), (4, "scalar", "N", (3,))):
        net = Net(channels)
        (gate,) = find_gates(net, x)
        assert (gate.kind, gate.axes, gate.channels) == (kind, axes, channels)
        with torch.no_grad(), watch_gates(net, [gate]) as seen:
            net(x)
        expected = net.fc(net.conv(x).flatten(2).mean(2)).sigmoid()
        assert torch.equal(seen[gate.name], expected.reshape(shape))
        with torch.no_grad(), edit_gates(net, {gate.name: lambda gate, _: 0 * gate}):
            assert not net(x).any()


def test_a_gate_of_unclear_axes_is_listed_and_does_not_hide_the_others() -> None:
    class OneSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(3, 3)
            self.fc = nn.Linear(3 * 16, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2:] != (32, 32):
                raise ValueError("one size only")
            x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
            small = F.avg_pool2d(x, 32)
            small = small * torch.sigmoid(self.gate(small.flatten(1)))[:, :, None, None]
            return self.fc(torch.cat([small.flatten(1), x[:, :, :3, :5].flatten(1)], 1))

    model = OneSize()
    found = inspect_gates(model, pictures())
    assert [(gate.kind, gate.axes) for gate in found.gates] == [("channel", "NC")]
    assert [ungated.code for ungated in found.ungated] == ["size"]


def test_names_drop_the_wrapper() -> None:
    model = build("resnet18", "se", "stage").eval()
    wrapped = nn.DataParallel(model)  # without a GPU it calls its module
    assert find_gates(wrapped, pictures()) == find_gates(model, pictures())


def test_one_image_without_a_batch_axis() -> None:
    class OneImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:  # (3, H, W)
            x = self.conv(x)
            return x * torch.sigmoid(x.mean((1, 2)))[:, None, None] * torch.sigmoid(x.mean(0))

    model, x = OneImage(), images()[0]
    gates = find_gates(model, x)
    assert [(g.kind, g.layout, g.axes) for g in gates] == [
        ("channel", "CHW", "C"),
        ("spatial", "CHW", "HW"),
    ]
    with watch_gates(model, gates) as seen:
        plain = model(x)
    assert torch.equal(seen["sigmoid"], torch.sigmoid(model.conv(x).mean((1, 2)))[None])
    assert seen["sigmoid#2"].shape == (1, SIZE, SIZE)
    with edit_gates(model, {"sigmoid": lambda g, f: 2 * g}, gates):
        assert torch.equal(model(x), 2 * plain)


def test_a_gate_that_starts_at_zero_keeps_its_kind_where_it_is_written_out() -> None:
    model = Net(lambda net, y: y * channel(net, y).repeat(1, 1, *y.shape[2:]))
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    assert [(g.kind, g.axes) for g in find_gates(model, images())] == [("channel", "NC")]


def test_kinds_are_checked() -> None:
    with refused("AS120", names=("'rows'",)):
        find_gates(Net(lambda net, y: y), images(), ["rows"])


def test_the_order_of_kinds_does_not_change_names() -> None:
    model = Net(lambda net, y: (y * torch.sigmoid(net.other(y))) * channel(net, y))
    both = [("full", "sigmoid"), ("channel", "sigmoid#2")]
    assert [(g.kind, g.name) for g in find_gates(model, images())] == both
    assert [(g.kind, g.name) for g in find_gates(model, images(), tuple(KINDS)[::-1])] == both
    model = Net(lambda net, y: (y * torch.sigmoid(y)) * channel(net, y))
    (gate,) = find_gates(model, images())
    with_activation = find_gates(model, images(), tuple(KINDS))
    assert [(g.kind, g.name) for g in with_activation] == [
        ("activation", "sigmoid#2"),
        ("channel", gate.name),
    ]


def test_finding_draws_no_random_numbers() -> None:
    model = Net(lambda net, y: y * channel(net, y) * (1 + 0 * torch.rand_like(y)))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    find_gates(model, images())
    assert torch.equal(torch.rand(1), expected)
