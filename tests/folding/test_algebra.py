"""Folded networks give the logits of edited networks, for all mixtures of folded and dynamic gates."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from attnscope.folding.algebra import fold_gates, mean_gates
from attnscope.gates.detect import find_gates
from tests.folding.networks import (
    UNIT,
    Means,
    check,
    network,
    pictures,
    random_mean,
    toy_images,
)
from tests.making import refused

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
def test_a_folded_network_gives_the_logits_of_the_edited_one(
    name: str, attention: str, placement: str | None, gate_start: str
) -> None:
    model = network(name, attention, placement, gate_start)
    x = pictures(model)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(2)
    # All combinations in one module, which in ResNets with gates in blocks has a shortcut convolution.
    module = "layer2.0" if placement == "block" else "block2" if name == "cnn" else "layer2"
    own = [gate for gate in gates if gate.name.startswith(f"{module}.attention.")]
    assert [gate.kind for gate in own] == ["channel", "spatial"][: len(own)]
    choices = [("dynamic", "map", "number") if g.kind == "spatial" else (0, 1) for g in own]
    for choice in list(product(*choices)):
        means = {
            gate.name: random_mean(gate, what == "number", rng)
            for gate, what in zip(own, choice, strict=True)
            if what not in ("dynamic", 0)
        }
        if means:
            check(model, x, means, gates)
    # Random mixtures over the network; the last share folds all gates.
    for share in (0.4, 0.7, 1.0):
        draws = torch.rand(len(gates), 2, generator=rng).tolist()
        check(
            model,
            x,
            {
                gate.name: random_mean(gate, number < 0.5, rng)
                for gate, (take, number) in zip(gates, draws, strict=True)
                if take < share
            },
            gates,
        )


@pytest.mark.parametrize(
    ("name", "module", "norm"),
    [("resnet18", "layer2.0", "bn2"), ("resnet50", "layer2.0", "bn3"), ("cnn", "block2", "bn")],
)
def test_only_the_last_norm_of_the_branch_is_scaled(name: str, module: str, norm: str) -> None:
    model = network(name, "se")
    gate = f"{module}.attention.channel"
    (found,) = [g for g in find_gates(model, pictures(model)) if g.name == gate]
    mean = random_mean(found, False, torch.Generator().manual_seed(3))
    folded = fold_gates(model, {gate: mean})
    before, after = model.state_dict(), folded.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved == {f"{module}.{norm}.weight", f"{module}.{norm}.bias"}
    for key in moved:
        torch.testing.assert_close(after[key], before[key] * mean)
    assert {key.rpartition(".attention.")[0] for key in before.keys() - after.keys()} == {module}
    assert isinstance(folded.get_submodule(f"{module}.attention"), nn.Identity)


def test_a_module_keeps_only_its_remaining_gates() -> None:
    model = network("resnet18", "cbam")
    gates = {g.name: g for g in find_gates(model, pictures(model))}
    channel, spatial = (f"layer1.1.attention.{kind}" for kind in ("channel", "spatial"))
    rng = torch.Generator().manual_seed(4)
    c, s = random_mean(gates[channel], False, rng), torch.tensor(0.3)
    both = fold_gates(model, {channel: c, spatial: s})
    assert isinstance(both.get_submodule("layer1.1.attention"), nn.Identity)
    norm = model.get_submodule("layer1.1.bn2")
    torch.testing.assert_close(both.get_submodule("layer1.1.bn2").weight, norm.weight * c * 0.3)
    # With a number in the norm, a dynamic channel gate would read scaled features.
    alone = fold_gates(model, {spatial: s})
    assert torch.equal(alone.get_submodule("layer1.1.bn2").weight, norm.weight)
    kinds = [kind for kind, _ in alone.get_submodule("layer1.1.attention").named_children()]
    assert kinds == ["channel", "spatial"]
    rest = fold_gates(model, {channel: c}).get_submodule("layer1.1.attention")
    assert [kind for kind, _ in rest.named_children()] == ["spatial"]
    # Stored values are copies of the caller's tensors.
    given = torch.rand(16, 16)
    kept = fold_gates(model, {spatial: given}).get_submodule(spatial).values
    before = kept.clone()
    given.zero_()
    assert torch.equal(kept, before)


def test_means_that_do_not_fit_are_refused() -> None:
    model = network("resnet18", "cbam", "stage")
    channel, spatial = "layer2.attention.channel", "layer2.attention.spatial"
    good = torch.full((32,), 0.5)
    unknown = "layer9.attention.channel"
    for code, means, names in [
        ("AS852", {unknown: good}, (unknown, "layer1.attention.channel")),
        ("AS853", {channel: good[:16]}, (channel, "(16,)", "(32,)")),
        ("AS853", {channel: torch.tensor(0.5)}, (channel, "()")),
        ("AS853", {spatial: good}, (spatial, "(32,)", "(H, W)")),
        ("AS854", {channel: -good}, (channel,)),
        ("AS854", {channel: good / 0}, (channel,)),
    ]:
        with refused(code, names=names):
            fold_gates(model, means)
    with refused("AS851"):
        fold_gates(fold_gates(model, {channel: good}), {spatial: torch.tensor(0.5)})
    with refused("AS850"):
        fold_gates(nn.Sequential(nn.Conv2d(3, 3, 1)), {})


def test_a_stored_map_refuses_another_size() -> None:
    model = network("resnet18", "cbam")
    x = pictures(model)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(5)
    maps = {g.name: random_mean(g, False, rng) for g in gates}
    numbers = {g.name: random_mean(g, True, rng) for g in gates}
    larger = torch.randn(2, 3, 24, 24)
    with refused("AS314", names=("layer1.0.attention.spatial", "16×16", "24×24")):
        fold_gates(model, maps)(larger)
    with torch.no_grad():
        assert fold_gates(model, numbers)(larger).shape == (2, 10)
    one = {"layer4.1.attention.spatial": torch.full((1, 1), 0.5)}
    with refused("AS314", names=("layer4.1.attention.spatial", "1×1", "2×2")):
        fold_gates(model, one)(x)  # it would broadcast


def test_mean_gates_equal_the_means_of_module_outputs() -> None:
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
