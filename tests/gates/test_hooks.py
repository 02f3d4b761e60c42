"""Gates that are read and edited, against plain forward hooks and against values by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import as_factor, edit_gates, watch_gates
from tests.gates.nets import (
    CHANNELS,
    NETWORKS,
    SIZE,
    MidForward,
    Net,
    Squeeze,
    build,
    column,
    hooked,
    images,
    logits,
    pictures,
    spatial,
    state_of,
)
from tests.making import refused


@pytest.mark.parametrize(("name", "attention", "placement"), NETWORKS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("how", ["plain", "channels-last", "autocast", "inference"])
def test_watch_reads_what_a_plain_hook_reads(
    name: str, attention: str, placement: str | None, training: bool, how: str
) -> None:
    model = build(name, attention, placement)
    x = pictures()
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


def test_a_functional_sigmoid_inside_a_forward_is_read() -> None:
    model, x = MidForward(), pictures()
    (gate,) = find_gates(model, x)
    assert (gate.name, gate.kind, gate.channels) == ("sigmoid", "channel", 6)
    with torch.no_grad():
        y = model.features(x)
        by_hand = model.gate(y)
        with watch_gates(model, [gate]) as seen:
            model(x)
        assert torch.equal(seen["sigmoid"], by_hand)
        with edit_gates(model, {"sigmoid": lambda g, f: 2 * g}):
            doubled = model(x)
        expected = (y * (2 * by_hand).view(-1, 6, 1, 1)).sum((2, 3))
        assert torch.equal(doubled, expected)
        assert not torch.equal(doubled, model(x))


def test_the_edit_changes_exactly_its_product() -> None:
    model = build("resnet18", "cbam", "block").eval()
    x = pictures()
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
def test_identity_edit_is_bit_exact_and_ones_remove_the_gates(
    name: str, attention: str, placement: str | None
) -> None:
    model = build(name, attention, placement).eval()
    plain = build(name, "none", None).eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k in plain.state_dict()}, strict=True
    )
    x = pictures()
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
    model, x = MidForward(), pictures()
    y = model.features(x).detach()
    scale = torch.ones(1, 6, 1, 1, requires_grad=True)
    with edit_gates(model, {"sigmoid": lambda g, f: g * scale}):
        model(x).sum().backward()
    expected = (y * model.gate(y).detach().view(-1, 6, 1, 1)).sum((0, 2, 3))
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad[0, :, 0, 0], expected)


def test_a_nested_edit_receives_the_result_of_the_outer_edit() -> None:
    model, x = MidForward(), pictures()
    got: list[Tensor] = []

    def inner(gate: Tensor, features: Tensor) -> Tensor:
        got.append(gate)
        return gate + 0.25

    with torch.no_grad():
        own = model.gate(model.features(x))
        with (
            edit_gates(model, {"sigmoid": lambda g, f: 0.5 * g}),
            edit_gates(model, {"sigmoid": inner}),
        ):
            with watch_gates(model) as seen:
                model(x)
        assert torch.equal(got[0].flatten(1), 0.5 * own)
        assert torch.equal(seen["sigmoid"], 0.5 * own + 0.25)


@pytest.mark.parametrize("raises", [False, True], ids=["well", "raising"])
def test_hooks_and_modes_are_restored_also_after_an_exception(raises: bool) -> None:
    model = build("resnet18", "cbam", "block").train()
    model.layer1.eval()  # a mixture of flags must come back as it was
    model.fc.weight.requires_grad_(False)
    x = pictures()
    before = state_of(model)
    reference = {k: v.clone() for k, v in model.state_dict().items()}

    def use() -> None:
        gates = find_gates(model, x)
        with watch_gates(model, gates), edit_gates(model, {gates[0].name: lambda g, f: g}):
            with torch.no_grad():
                model.eval()(x)
            if raises:
                model(x[:, :2])  # two colors: the first convolution raises

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


def test_two_factors_stay_two_gates_of_one_multiplication() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            channel = torch.sigmoid(x.mean((2, 3), keepdim=True))
            spatial = torch.sigmoid(x.mean(1, keepdim=True))
            return x * (channel * spatial)

    model, x = Net(), pictures()
    found = find_gates(model, x)
    assert [(g.name, g.kind) for g in found] == [("sigmoid", "channel"), ("sigmoid#2", "spatial")]
    with watch_gates(model) as seen:
        plain = model(x)
    assert torch.equal(seen["sigmoid"], torch.sigmoid(x.mean((2, 3))))
    assert torch.equal(seen["sigmoid#2"], torch.sigmoid(x.mean(1)))
    for name in ("sigmoid", "sigmoid#2"):
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

    x = pictures()
    assert [g.name for g in find_gates(Net(), x)] == ["sigmoid"]
    model = Net()
    with edit_gates(model, {"sigmoid": halve}):
        assert torch.equal(model(x), 0.5 * Net()(x))
    assert len(calls) == 1


def test_watch_reads_the_values_after_the_edits() -> None:
    class Overwrites(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
            y = x * gate
            gate.zero_()
            return y

    model, x = Overwrites(), pictures()
    with torch.no_grad(), watch_gates(model) as seen:
        model(x)
    assert torch.equal(seen["sigmoid"], torch.sigmoid(x.mean((2, 3))))


def test_a_gate_that_does_not_multiply_is_refused_by_name() -> None:
    class Sometimes(nn.Module):
        on = True

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True)) if self.on else x

    model, x = nn.Sequential(Sometimes()), pictures()
    gates = find_gates(model, x)
    model[0].on = False
    with watch_gates(model, gates), refused("AS402", names=("gate 0",)):
        model(x)
    with (
        edit_gates(model, {"1": lambda g, f: g}),
        refused("AS401", names=("'1'",)),
    ):
        model(x)
    with refused("AS401", names=("'x'", "0")):
        with edit_gates(model, {"x": lambda g, f: g}, gates):
            pass


def test_an_edit_of_the_wrong_shape_is_refused() -> None:
    model = MidForward()
    with edit_gates(model, {"sigmoid": lambda g, f: g[:, :2]}):
        with refused("AS403", names=("(3, 2, 1, 1)", "(3, 6, 1, 1)")):
            model(pictures())


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
    assert (gate.kind, gate.layout) == ("spatial", "N(HW)C")
    own: list[Tensor] = []

    def see(value: Tensor, features: Tensor) -> Tensor:
        own.append(value)
        return value

    with torch.no_grad(), watch_gates(model, [gate]) as seen, edit_gates(model, {gate.name: see}):
        model(x)
    assert seen[gate.name].shape == (3, 4, 4)
    assert torch.equal(as_factor(seen[gate.name], gate), own[0])


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


def test_an_expanded_gate_that_starts_to_vary_is_refused() -> None:
    class Moody(nn.Module):
        varies = False

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x if self.varies else x.mean((2, 3), keepdim=True) + 0 * x)

    model, x = Moody(), images()
    gates = find_gates(model, x)
    assert [g.kind for g in gates] == ["channel"]
    model.varies = True
    with watch_gates(model, gates), refused("AS404", names=("axis H",)):
        model(x)


@pytest.mark.parametrize("batched", [True, False])
def test_a_factor_has_the_axes_of_the_features(batched: bool) -> None:
    """Without a batch axis what is read has one of length 1; from parameters alone it has none."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.linspace(-1, 1, 3).view(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = x * torch.sigmoid(self.scale)
            return x * torch.sigmoid(x.mean((-2, -1), keepdim=True))

    model, x = Both(), pictures()
    x = x if batched else x[0]
    static, own = find_gates(model, x, ("static", "channel"))
    assert (static.kind, static.axes, own.kind) == ("static", "C", "channel")
    with torch.no_grad(), watch_gates(model, [static, own]) as seen:
        plain = model(x)
    assert seen[static.name].shape == (3,)
    assert seen[own.name].shape == (len(x) if batched else 1, 3)
    factors = {gate.name: as_factor(seen[gate.name], gate) for gate in (static, own)}
    assert factors[own.name].ndim == x.ndim
    edits = {name: lambda g, f, new=new: new for name, new in factors.items()}
    with torch.no_grad(), edit_gates(model, edits, [static, own]):
        assert torch.equal(model(x), plain)
