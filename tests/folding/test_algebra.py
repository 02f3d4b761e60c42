"""Folded networks: the logits of the edited ones, for every mixture of static and dynamic gates."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from attnscope.errors import InputError
from attnscope.folding.algebra import fold_gates, mean_gates
from attnscope.gates.detect import find_gates
from tests.folding.networks import (
    UNIT,
    Means,
    check,
    drawn_mean,
    network,
    pictures,
    toy_images,
)

NETWORKS = [
    ("resnet18", "se", "block", "half"),
    ("resnet18", "se", "stage", "identity"),
    ("resnet18", "eca", "block", "identity"),
    ("resnet18", "cbam", "block", "half"),
    ("resnet18", "cbam", "block", "identity"),
    ("resnet18", "cbam", "stage", "half"),
    ("resnet50", "se", "block", "identity"),
    ("resnet50", "eca", "stage", "half"),
    ("resnet50", "cbam", "block", "half"),
    ("cnn", "se", None, "half"),
    ("cnn", "eca", None, "identity"),
    ("cnn", "cbam", None, "half"),
    ("cnn", "cbam", None, "identity"),
]


@pytest.mark.parametrize(("name", "attention", "placement", "gate_start"), NETWORKS)
def test_a_folded_network_is_the_edited_one(
    name: str, attention: str, placement: str | None, gate_start: str
) -> None:
    model = network(name, attention, placement, gate_start)
    x = pictures(model)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(2)
    # Every combination in one module, which in the ResNets with blocks has a shortcut of its own.
    module = "layer2.0" if placement == "block" else "block2" if name == "cnn" else "layer2"
    own = [gate for gate in gates if gate.name.startswith(f"{module}.attention.")]
    assert [gate.kind for gate in own] == ["channel", "spatial"][: len(own)]
    choices = [("dynamic", "map", "number") if g.kind == "spatial" else (0, 1) for g in own]
    for choice in list(product(*choices)):
        means = {
            gate.name: drawn_mean(gate, what == "number", rng)
            for gate, what in zip(own, choice, strict=True)
            if what not in ("dynamic", 0)
        }
        if means:
            check(model, x, means, gates)
    # And mixtures over the whole network, the last of which is all of them.
    for share in (0.4, 0.7, 1.0):
        draws = torch.rand(len(gates), 2, generator=rng).tolist()
        check(
            model,
            x,
            {
                gate.name: drawn_mean(gate, number < 0.5, rng)
                for gate, (take, number) in zip(gates, draws, strict=True)
                if take < share
            },
            gates,
        )


@pytest.mark.parametrize(
    ("name", "module", "norm"),
    [("resnet18", "layer2.0", "bn2"), ("resnet50", "layer2.0", "bn3"), ("cnn", "block2", "bn")],
)
def test_only_the_norm_that_ends_the_branch_is_scaled(name: str, module: str, norm: str) -> None:
    model = network(name, "se")
    gate = f"{module}.attention.channel"
    (found,) = [g for g in find_gates(model, pictures(model)) if g.name == gate]
    mean = drawn_mean(found, False, torch.Generator().manual_seed(3))
    folded = fold_gates(model, {gate: mean})
    before, after = model.state_dict(), folded.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved == {f"{module}.{norm}.weight", f"{module}.{norm}.bias"}
    for key in moved:
        torch.testing.assert_close(after[key], before[key] * mean)
    assert {key.rpartition(".attention.")[0] for key in before.keys() - after.keys()} == {module}
    assert isinstance(folded.get_submodule(f"{module}.attention"), nn.Identity)


def test_what_is_left_of_a_module() -> None:
    model = network("resnet18", "cbam")
    gates = {g.name: g for g in find_gates(model, pictures(model))}
    channel, spatial = (f"layer1.1.attention.{kind}" for kind in ("channel", "spatial"))
    rng = torch.Generator().manual_seed(4)
    c, s = drawn_mean(gates[channel], False, rng), torch.tensor(0.3)
    both = fold_gates(model, {channel: c, spatial: s})
    assert isinstance(both.get_submodule("layer1.1.attention"), nn.Identity)
    norm = model.get_submodule("layer1.1.bn2")
    torch.testing.assert_close(both.get_submodule("layer1.1.bn2").weight, norm.weight * c * 0.3)
    # A dynamic channel gate would read features that a number in the norm has scaled.
    alone = fold_gates(model, {spatial: s})
    assert torch.equal(alone.get_submodule("layer1.1.bn2").weight, norm.weight)
    kinds = [kind for kind, _ in alone.get_submodule("layer1.1.attention").named_children()]
    assert kinds == ["channel", "spatial"]
    rest = fold_gates(model, {channel: c}).get_submodule("layer1.1.attention")
    assert [kind for kind, _ in rest.named_children()] == ["spatial"]
    # The caller's tensors stay the caller's.
    given = torch.rand(16, 16)
    kept = fold_gates(model, {spatial: given}).get_submodule(spatial).values
    before = kept.clone()
    given.zero_()
    assert torch.equal(kept, before)


def test_means_that_cannot_be_folded() -> None:
    model = network("resnet18", "cbam", "stage")
    channel, spatial = "layer2.attention.channel", "layer2.attention.spatial"
    good = torch.full((32,), 0.5)
    for means, message in [
        (
            {"layer9.attention.channel": good},
            "no gate 'layer9.attention.channel'; there are layer1",
        ),
        (
            {channel: good[:16]},
            r"the mean of layer2.attention.channel is \(16,\); it must be \(32,",
        ),
        ({channel: torch.tensor(0.5)}, r"is \(\); it must be"),
        ({spatial: good}, r"the mean of layer2.attention.spatial is \(32,\); it must be \(H, W\)"),
        ({channel: -good}, "finite and 0 or more"),
        ({channel: good / 0}, "finite and 0 or more"),
    ]:
        with pytest.raises(InputError, match=message):
            fold_gates(model, means)
    with pytest.raises(InputError, match="folded already"):
        fold_gates(fold_gates(model, {channel: good}), {spatial: torch.tensor(0.5)})
    with pytest.raises(InputError, match="only a network of build_model"):
        fold_gates(nn.Sequential(nn.Conv2d(3, 3, 1)), {})


def test_a_stored_map_is_for_one_size() -> None:
    model = network("resnet18", "cbam")
    x = pictures(model)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(5)
    maps = {g.name: drawn_mean(g, False, rng) for g in gates}
    numbers = {g.name: drawn_mean(g, True, rng) for g in gates}
    larger = torch.randn(2, 3, 24, 24)
    with pytest.raises(InputError) as caught:
        fold_gates(model, maps)(larger)
    assert "layer1.0.attention.spatial is a stored map of 16×16" in str(caught.value)
    assert "features of 24×24" in str(caught.value)
    assert "\n" not in str(caught.value)
    with torch.no_grad():
        assert fold_gates(model, numbers)(larger).shape == (2, 10)
    one = {"layer4.1.attention.spatial": torch.full((1, 1), 0.5)}
    with pytest.raises(InputError, match=r"a stored map of 1×1 and meets features of 2×2"):
        fold_gates(model, one)(x)  # it would broadcast


def test_means_are_those_of_the_unedited_network() -> None:
    model = network("resnet18", "cbam", "stage").train()
    model.layer2.eval()
    flags = [module.training for module in model.modules()]
    images = toy_images(7)
    found = mean_gates(model, images, UNIT, batch_size=3)
    numbers = mean_gates(model, images, UNIT, batch_size=7, spatial="number")
    assert flags == [module.training for module in model.modules()]
    seen: Means = {}
    for path, module in model.eval().named_modules():
        if path.endswith((".channel", ".spatial")):
            module.register_forward_hook(
                lambda _m, _x, out, path=path: seen.update({path: out.double()})
            )
    with torch.no_grad():
        model(images.images / 255)
    assert list(found) == list(seen)
    for path, values in seen.items():
        wanted = values.mean((0, 2, 3)) if path.endswith(".channel") else values.mean((0, 1))
        torch.testing.assert_close(found[path].double(), wanted, rtol=0, atol=1e-5)
        if path.endswith(".spatial"):
            assert numbers[path].shape == ()
            torch.testing.assert_close(numbers[path].double(), wanted.mean(), rtol=0, atol=1e-5)
        else:
            torch.testing.assert_close(numbers[path], found[path], rtol=0, atol=1e-6)
