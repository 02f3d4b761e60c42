"""The tracer against plain forward hooks, against values by hand, and against what it must not see."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

from attnscope.errors import InputError
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import as_factor, edit_gates, watch_gates
from attnscope.networks.build import build_model

NETWORKS = [
    pytest.param("resnet18", kind, placement, id=f"{kind}-{placement}")
    for kind in ("se", "eca", "cbam")
    for placement in ("block", "stage")
] + [pytest.param("cnn", "cbam", None, id="cnn")]


def build(name: str, attention: str, placement: str | None) -> nn.Module:
    torch.manual_seed(0)
    width = None if name == "cnn" else 16
    return build_model(name, attention=attention, placement=placement, width=width)


def images(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def hooked(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Every output of a submodule called channel or spatial, by a plain forward hook."""
    found = {}
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: found.update({name: out}))
        for name, module in model.named_modules()
        if name.endswith((".channel", ".spatial"))
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return found


class MidForward(nn.Module):
    """Somebody's block whose sigmoid is a functional call in the middle of its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.squeeze = nn.Linear(6, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def gate(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.squeeze(y.mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        return (y * self.gate(y).view(-1, 6, 1, 1)).sum((2, 3))


def state_of(model: nn.Module) -> tuple[object, ...]:
    return (
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad is None for p in model.parameters()],
        len(_get_current_function_mode_stack()),
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize(("name", "attention", "placement"), NETWORKS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("how", ["plain", "channels-last", "autocast", "inference"])
def test_reads_what_a_plain_hook_reads(
    name: str, attention: str, placement: str | None, training: bool, how: str
) -> None:
    model = build(name, attention, placement)
    x = images()
    if how == "channels-last":
        model, x = (
            model.to(memory_format=torch.channels_last),
            x.to(memory_format=torch.channels_last),
        )
    gates = find_gates(model, x)
    model.train(training)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast")
    no_grad = torch.inference_mode(how == "inference")
    with autocast, no_grad:
        torch.manual_seed(2)  # dropout
        expected = hooked(model, x)
        torch.manual_seed(2)
        with watch_gates(model, gates) as seen:
            model(x)
    assert list(seen) == list(expected) == [gate.name for gate in gates]
    for gate in gates:
        value = expected[gate.name]
        wanted = value[:, :, 0, 0] if gate.kind == "channel" else value[:, 0]
        assert seen[gate.name].dtype == value.dtype
        assert torch.equal(seen[gate.name], wanted)
        assert not seen[gate.name].requires_grad


def test_what_is_known_of_each_gate() -> None:
    model = build("resnet18", "cbam", "stage")
    found = find_gates(model, images())
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
    assert find_gates(build("resnet18", "none", None), images()) == []


def test_functional_sigmoid_in_the_middle_of_a_forward() -> None:
    model, x = MidForward(), images()
    (gate,) = find_gates(model, x)
    assert (gate.name, gate.kind, gate.channels) == ("", "channel", 6)
    with torch.no_grad():
        y = model.features(x)
        by_hand = model.gate(y)
        with watch_gates(model, [gate]) as seen:
            model(x)
        assert torch.equal(seen[""], by_hand)
        with edit_gates(model, {"": lambda g, f: 2 * g}):
            doubled = model(x)
        expected = (y * (2 * by_hand).view(-1, 6, 1, 1)).sum((2, 3))
        assert torch.equal(doubled, expected)
        assert not torch.equal(doubled, model(x))


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

    (gate,) = find_gates(Net(), images())
    assert (gate.name, gate.made_in, gate.applied_in) == ("block.fc", "block.fc.1", "block")


def test_the_edit_changes_exactly_its_product() -> None:
    model = build("resnet18", "cbam", "block").eval()
    x = images()
    name = "layer3.0.attention.channel"
    inputs: dict[str, Tensor] = {}
    with torch.no_grad(), watch_gates(model) as seen:
        before = model(x)
        plain = dict(seen)
    module = model.get_submodule("layer3.0.attention.spatial")
    handle = module.register_forward_pre_hook(lambda m, a: inputs.update(after=a[0].clone()))
    with torch.no_grad():
        model(x)
        unedited = inputs["after"]
        with edit_gates(model, {name: lambda g, f: 2 * g}), watch_gates(model) as seen:
            after = model(x)
            edited = dict(seen)
    handle.remove()
    assert torch.equal(inputs["after"], 2 * unedited)  # doubling is exact in binary
    assert torch.equal(edited[name], 2 * plain[name])  # the watcher sees what multiplied
    upstream = [g for g in plain if g < name]
    assert all(torch.equal(edited[g], plain[g]) for g in upstream)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(("name", "attention", "placement"), NETWORKS)
def test_identity_edit_is_bit_exact_and_ones_take_the_gates_away(
    name: str, attention: str, placement: str | None
) -> None:
    model = build(name, attention, placement).eval()
    plain = build(name, "none", None).eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k in plain.state_dict()}, strict=True
    )
    x = images()
    gates = find_gates(model, x)
    with torch.no_grad():
        logits = model(x)
        with edit_gates(model, {g.name: lambda g, f: g for g in gates}, gates):
            assert torch.equal(model(x), logits)
        with edit_gates(model, {g.name: lambda g, f: torch.ones_like(g) for g in gates}, gates):
            assert torch.equal(model(x), plain(x))
        assert torch.equal(model(x), logits)
        assert not torch.allclose(plain(x), logits)


def test_gradients_flow_through_an_edit() -> None:
    model, x = MidForward(), images()
    y = model.features(x).detach()
    scale = torch.ones(1, 6, 1, 1, requires_grad=True)
    with edit_gates(model, {"": lambda g, f: g * scale}):
        model(x).sum().backward()
    expected = (y * model.gate(y).detach().view(-1, 6, 1, 1)).sum((0, 2, 3))
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad[0, :, 0, 0], expected)


def test_edits_nest() -> None:
    model, x = MidForward(), images()
    got: list[Tensor] = []

    def inner(gate: Tensor, features: Tensor) -> Tensor:
        got.append(gate)
        return gate + 0.25

    with torch.no_grad():
        own = model.gate(model.features(x))
        with edit_gates(model, {"": lambda g, f: 0.5 * g}), edit_gates(model, {"": inner}):
            with watch_gates(model) as seen:
                model(x)
        assert torch.equal(got[0].flatten(1), 0.5 * own)
        assert torch.equal(seen[""], 0.5 * own + 0.25)


@pytest.mark.parametrize("raises", [False, True], ids=["well", "raising"])
def test_nothing_is_left_behind(raises: bool) -> None:
    model = build("resnet18", "cbam", "block").train()
    model.layer1.eval()  # a mixture of flags must come back as it was
    model.fc.weight.requires_grad_(False)
    x = images()
    before = state_of(model)
    reference = {k: v.clone() for k, v in model.state_dict().items()}

    def use() -> None:
        gates = find_gates(model, x)
        with watch_gates(model, gates), edit_gates(model, {gates[0].name: lambda g, f: g}):
            with torch.no_grad():
                model.eval()(x)
            if raises:
                model(x[:, :2])  # two colours: the first convolution raises

    flags = [m.training for m in model.modules()]
    if raises:
        with pytest.raises(RuntimeError, match="channels"):
            use()
    else:
        use()
    for module, flag in zip(model.modules(), flags, strict=True):
        module.training = flag  # the test's own eval()
    assert state_of(model) == before
    assert all(torch.equal(v, reference[k]) for k, v in model.state_dict().items())


def test_find_gates_restores_the_flags_when_the_forward_raises() -> None:
    model = build("resnet18", "cbam", "block").train()
    model.layer1.eval()  # a mixture of flags must come back as it was
    before = state_of(model)
    find_gates(model, images())
    assert state_of(model) == before
    with pytest.raises(RuntimeError):
        find_gates(model, images()[:, :2])
    assert state_of(model) == before


def test_the_tracer_works_again_after_a_forward_that_raised() -> None:
    model = build("resnet18", "se", "block").eval()
    gates = find_gates(model, images())
    with torch.no_grad(), watch_gates(model, gates) as seen:
        with pytest.raises(RuntimeError):
            model(images()[:, :2])
        model(images())
        assert list(seen) == [gate.name for gate in gates]


def test_a_network_that_catches_its_own_exception_keeps_its_names() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not today")

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails = Fails()

        def forward(self, x: Tensor) -> Tensor:
            with suppress(RuntimeError):
                x = self.fails(x)
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    (gate,) = find_gates(nn.Sequential(Careful()), images())
    assert (gate.name, gate.applied_in) == ("0", "0")


def run(forward: Callable[[nn.Module, Tensor], Tensor]) -> list[str]:
    """Kinds of the gates of a network with one convolution, one linear layer and this forward."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.fc = nn.Linear(6, 6)
            self.scale = nn.Parameter(torch.ones(6, 1, 1))
            self.register_buffer("mask", torch.ones(1, 6, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, self.conv(x))

    return [gate.kind for gate in find_gates(Net(), images())]


def pooled_gate(net: nn.Module, y: Tensor) -> Tensor:
    return torch.sigmoid(net.fc(y.mean((2, 3))))[:, :, None, None]


def overwritten_through_a_view(net: nn.Module, y: Tensor) -> Tensor:
    gate = pooled_gate(net, y)
    gate.view(-1).copy_(y.mean((2, 3)).flatten())
    return y * gate


NO_GATES = {
    "overwritten through a view": overwritten_through_a_view,
    "silu by hand": lambda net, y: y * torch.sigmoid(y),
    "swish and silu": lambda net, y: F.silu(y) + F.hardswish(y),
    "glu": lambda net, y: F.glu(y, 1),
    "parameter": lambda net, y: y * torch.sigmoid(net.scale),
    "buffer": lambda net, y: y * torch.sigmoid(net.mask + 1),
    "layer scale": lambda net, y: y * net.scale,
    "weight mask": lambda net, y: F.conv2d(
        y, torch.ones(6, 6, 1, 1) * torch.sigmoid(net.scale[:, :, :, None])
    ),
    "features broadcast over the gate": lambda net, y: (
        y.mean((2, 3), keepdim=True) * torch.sigmoid(y)
    ),
    "rows broadcast over the gate": lambda net, y: y.mean(2, keepdim=True) * torch.sigmoid(y),
    "dynamic kernel": lambda net, y: (
        net.fc.weight[:3, :, None, None].expand(3, 6, 3, 3) * pooled_gate(net, y)
    ),
    "self-attention": lambda net, y: y.flatten(2).softmax(2) @ y.flatten(2).transpose(1, 2),
    "overwritten": lambda net, y: y * pooled_gate(net, y).copy_(y.mean((2, 3), keepdim=True)),
    "added": lambda net, y: y + pooled_gate(net, y),
    "not bounded": lambda net, y: y * net.fc(y.mean((2, 3)))[:, :, None, None],
    "thresholded": lambda net, y: y * (pooled_gate(net, y) > 0.5),
}


@pytest.mark.parametrize("forward", NO_GATES.values(), ids=NO_GATES)
def test_no_gate(forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    assert run(forward) == []


SPELLINGS = {
    "method": lambda net, y: y * pooled_gate(net, y),
    "gate first": lambda net, y: pooled_gate(net, y) * y,
    "keywords": lambda net, y: torch.mul(input=y, other=pooled_gate(net, y)),
    "in place": lambda net, y: y.clone().mul_(pooled_gate(net, y)),
    "augmented": lambda net, y: y.clone().__imul__(pooled_gate(net, y)),
    "sigmoid_": lambda net, y: y * net.fc(y.mean((2, 3))).sigmoid_()[:, :, None, None],
    "hardsigmoid": lambda net, y: y * F.hardsigmoid(net.fc(y.mean((2, 3))))[:, :, None, None],
    "one plus": lambda net, y: y * (1 + pooled_gate(net, y)),
    "twice": lambda net, y: y * (2 * pooled_gate(net, y)),
    "clone": lambda net, y: y * pooled_gate(net, y).clone().contiguous(),
    "bounded features": lambda net, y: F.relu6(y) * pooled_gate(net, y),
}


@pytest.mark.parametrize("forward", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_a_channel_gate(forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    assert run(forward) == ["channel"]


@pytest.mark.parametrize("spelling", ["keywords", "in place", "gate first", "bounded features"])
def test_an_edit_reaches_every_spelling(spelling: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return SPELLINGS[spelling](self, x)

    model, x = Net(), images()
    with torch.no_grad():
        plain = model(x)
        with edit_gates(model, {"": lambda g, f: 2 * g}):
            assert torch.equal(model(x), 2 * plain)


def test_bounds_follow_arithmetic() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (3 - 2 * torch.tanh(x.mean((2, 3), keepdim=True)))

    (gate,) = find_gates(Net(), images())
    assert (gate.activation, gate.lo, gate.hi, gate.midpoint) == ("tanh", 1.0, 5.0, 3.0)


def test_two_factors_stay_two_gates_of_one_multiplication() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            channel = torch.sigmoid(x.mean((2, 3), keepdim=True))
            spatial = torch.sigmoid(x.mean(1, keepdim=True))
            return x * (channel * spatial)

    model, x = Net(), images()
    found = find_gates(model, x)
    assert [(g.name, g.kind) for g in found] == [("", "channel"), ("#2", "spatial")]
    with watch_gates(model) as seen:
        plain = model(x)
    assert torch.equal(seen[""], torch.sigmoid(x.mean((2, 3))))
    assert torch.equal(seen["#2"], torch.sigmoid(x.mean(1)))
    for name in ("", "#2"):
        with edit_gates(model, {name: lambda g, f: 2 * g}):
            assert torch.equal(model(x), 2 * plain)


def test_one_gate_used_twice_is_one_gate_and_is_edited_once() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
            return x * gate + (x**2) * gate

    calls: list[int] = []

    def halve(gate: Tensor, features: Tensor) -> Tensor:
        calls.append(1)
        return 0.5 * gate

    x = images()
    assert [g.name for g in find_gates(Net(), x)] == [""]
    model = Net()
    with edit_gates(model, {"": halve}):
        assert torch.equal(model(x), 0.5 * Net()(x))
    assert len(calls) == 1


def test_two_gates_of_one_module_are_numbered() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
            return x * torch.sigmoid(x.mean(1, keepdim=True))

    found = find_gates(Net(), images())
    assert [(g.name, g.kind) for g in found] == [("", "channel"), ("#2", "spatial")]


def test_maps_of_one_pixel_take_a_larger_sample_and_are_then_known_by_place() -> None:
    model = build_model("resnet18", attention="se", stem="imagenet", width=16).eval()
    x = images(size=32)  # layer4 is 1×1: a channel gate has the shape of its features
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


def test_a_network_of_one_size_with_maps_of_one_pixel_is_refused_by_name() -> None:
    class OneSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(3, 3)
            self.fc = nn.Linear(3 * 16, 2)

        def forward(self, x: Tensor) -> Tensor:
            small = F.avg_pool2d(x, 32)
            small = small * torch.sigmoid(self.gate(small.flatten(1)))[:, :, None, None]
            return self.fc(torch.cat([small.flatten(1), x[:, :, :3, :5].flatten(1)], 1))

    model = OneSize()
    with pytest.raises(InputError, match=r"cannot be told.*takes no larger images"):
        find_gates(model, images())


def test_what_is_recorded_is_what_multiplied() -> None:
    class Overwrites(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
            y = x * gate
            gate.zero_()
            return y

    model, x = Overwrites(), images()
    with torch.no_grad(), watch_gates(model) as seen:
        model(x)
    assert torch.equal(seen[""], torch.sigmoid(x.mean((2, 3))))


def test_a_gate_that_does_not_fire_is_named() -> None:
    class Sometimes(nn.Module):
        on = True

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True)) if self.on else x

    model, x = nn.Sequential(Sometimes()), images()
    gates = find_gates(model, x)
    model[0].on = False
    with watch_gates(model, gates), pytest.raises(InputError, match="gate 0 did not multiply"):
        model(x)
    with (
        edit_gates(model, {"1": lambda g, f: g}),
        pytest.raises(InputError, match="there is no gate '1'; there are none"),
    ):
        model(x)
    with pytest.raises(InputError, match="there is no gate 'x'; there are 0"):
        with edit_gates(model, {"x": lambda g, f: g}, gates):
            pass


def test_an_edit_of_another_shape_is_refused() -> None:
    model = MidForward()
    with edit_gates(model, {"": lambda g, f: g[:, :2]}):
        with pytest.raises(InputError, match=r"returned \(3, 2, 1, 1\).*\(3, 6, 1, 1\)"):
            model(images())


def test_names_drop_the_wrapper() -> None:
    model = build("resnet18", "se", "stage").eval()
    wrapped = nn.DataParallel(model)  # without a GPU it calls its module
    assert find_gates(wrapped, images()) == find_gates(model, images())


def test_a_spatial_gate_over_tokens_as_a_factor() -> None:
    """It is read as a grid, and multiplies as a row of tokens."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.look = nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            return (tokens * torch.sigmoid(self.look(tokens))).mean(1)

    torch.manual_seed(0)
    model, x = Tokens().eval(), torch.rand(3, 3, 8, 8)
    (gate,) = find_gates(model, x)
    assert (gate.kind, gate.layout) == ("spatial", "NLC")
    own: list[Tensor] = []

    def see(value: Tensor, features: Tensor) -> Tensor:
        own.append(value)
        return value

    with torch.no_grad(), watch_gates(model, [gate]) as seen, edit_gates(model, {gate.name: see}):
        model(x)
    assert seen[gate.name].shape == (3, 4, 4)
    assert torch.equal(as_factor(seen[gate.name], gate), own[0])
