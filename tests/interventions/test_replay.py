"""Reruns from a cached prefix, against complete forwards."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from attnscope import build_model, edit_gates, find_gates
from attnscope.gates.hooks import as_factor, watch_gates
from attnscope.interventions.replay import PrefixCache
from tests.making import refused


def make_network(attention: str, placement: str | None = None, name: str = "resnet18") -> nn.Module:
    torch.manual_seed(0)
    options = {"width": 16, "placement": placement} if name != "cnn" else {}
    model = build_model(name, attention=attention, reduction=4, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as in a trained network, every gate has an effect
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return model


@pytest.mark.parametrize(
    ("attention", "placement", "name"),
    [
        ("se", "block", "resnet18"),
        ("cbam", "block", "resnet18"),
        ("cbam", "stage", "resnet18"),
        ("cbam", None, "cnn"),
    ],
)
def test_a_rerun_equals_a_complete_forward(
    attention: str, placement: str | None, name: str
) -> None:
    model = make_network(attention, placement, name)
    size = 32 if name == "cnn" else 16
    x, other = torch.rand(2, 5, 3, size, size, generator=torch.Generator().manual_seed(1))
    gates = find_gates(model, x)
    with torch.no_grad(), watch_gates(model, gates) as seen:
        model(other)
    given = {gate.name: as_factor(seen[gate.name], gate) for gate in gates}
    swapped = {name: (lambda g, f, v=value: v) for name, value in given.items()}
    groups = [[gate.name] for gate in gates] + [[gates[1].name, gates[-1].name]]
    cache = PrefixCache(model, gates, groups)
    forwards = {path: module.__dict__.get("forward") for path, module in model.named_modules()}
    plain = cache.forward(x)
    with torch.no_grad():
        assert torch.equal(plain, model(x))
    for group in groups:
        edits = {key: swapped[key] for key in group}
        with torch.no_grad(), edit_gates(model, edits):
            complete = model(x)
        assert torch.equal(cache.rerun(edits), complete)
        assert not torch.equal(complete, plain)
    # The next forward replaces the cached images.
    plain = cache.forward(other)
    assert torch.equal(cache.rerun({gates[-1].name: swapped[gates[-1].name]}), plain)
    assert forwards == {p: m.__dict__.get("forward") for p, m in model.named_modules()}


def test_only_modules_after_the_gate_run_again() -> None:
    model = make_network("se")
    x = torch.rand(2, 3, 16, 16)
    gates = find_gates(model, x)
    ran: Counter[str] = Counter()
    cache = PrefixCache(model, gates, [[gate.name] for gate in gates])
    cache.forward(x)
    same = {gate.name: {gate.name: lambda g, f: g} for gate in gates}
    for edits in same.values():
        cache.rerun(edits)  # the first rerun also verifies the cache
    convolutions = {p: m for p, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    original = nn.Conv2d.forward

    def counted(self: nn.Conv2d, x: Tensor) -> Tensor:
        ran[next(p for p, m in convolutions.items() if m is self)] += 1
        return original(self, x)

    nn.Conv2d.forward = counted  # a hook would also count calls that are skipped
    try:
        cache.rerun(same["layer3.1.attention.channel"])
    finally:
        nn.Conv2d.forward = original
    assert sorted(ran) == [
        "layer4.0.conv1",
        "layer4.0.conv2",
        "layer4.0.downsample.0",
        "layer4.1.conv1",
        "layer4.1.conv2",
    ]


class Shared(nn.Module):
    """One module that makes three gates, an in-place operation, and an output that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.squeeze = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.relu(x)  # in place, its output is not used
        for _ in range(3):
            y = self.body(x)
            y = y * self.squeeze(y.mean((2, 3)))[:, :, None, None]
            y += x
            x = y
        return self.head(x.mean((2, 3)))


def test_a_rerun_is_exact_with_a_shared_module_and_in_place_operations() -> None:
    torch.manual_seed(3)
    model = Shared().eval()
    x = torch.randn(4, 3, 8, 8)
    gates = find_gates(model, x)
    assert [gate.name for gate in gates] == ["squeeze", "squeeze#2", "squeeze#3"]
    cache = PrefixCache(model, gates, [[gate.name] for gate in gates])
    assert torch.equal(cache.forward(x), model(x))
    for gate in gates:
        edits = {gate.name: lambda g, f: g * 0.3}
        with torch.no_grad(), edit_gates(model, edits):
            complete = model(x)
        assert torch.equal(cache.rerun(edits), complete)


class Twice(nn.Module):
    """A block with a gate that runs twice, and a convolution that also runs outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.block = Block(self.body)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.block(x.repeat(1, 2, 1, 1)[:, :4]) + 1)
        return self.head(self.body(x).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.squeeze = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y * self.squeeze(y.mean((2, 3)))[:, :, None, None]


class Writes(nn.Module):
    """The gate multiplies in place what a module returned before it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), self.shared)
        self.squeeze = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shared(self.stem(x))
        y *= self.squeeze(y.mean((2, 3)))[:, :, None, None]
        return self.head(self.shared(y).mean((2, 3)))


@pytest.mark.parametrize(("network", "runs"), [(Twice, [2, 1]), (Writes, [1])])
def test_what_is_left_out_comes_back_as_it_was(network: type[nn.Module], runs: list[int]) -> None:
    """``runs``: how many convolutions run again for each gate."""
    torch.manual_seed(3)
    model, x = network().eval(), torch.randn(4, 3, 8, 8)
    gates = find_gates(model, x)
    assert len(gates) == len(runs)
    cache = PrefixCache(model, gates, [[gate.name] for gate in gates])
    cache.forward(x)
    ran = []
    original = nn.Conv2d.forward

    def counted(self: nn.Conv2d, x: Tensor) -> Tensor:
        ran.append(self)
        return original(self, x)

    for gate, count in zip(gates, runs, strict=True):
        edits = {gate.name: lambda g, f: g * 0.3}
        with torch.no_grad(), edit_gates(model, edits):
            complete = model(x)
        for _ in range(3):  # what was kept is as good the third time
            assert torch.equal(cache.rerun(edits), complete)
        ran.clear()
        nn.Conv2d.forward = counted
        try:
            cache.rerun(edits)
        finally:
            nn.Conv2d.forward = original
        assert len(ran) == count


class GateProduct(nn.Module):
    """``x * (c * s)``: a cached c would no longer be recognized as a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.channel = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
        self.spatial = nn.Sequential(nn.Conv2d(4, 1, 3, padding=1), nn.Sigmoid())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = x * (self.channel(x.mean((2, 3)))[:, :, None, None] * self.spatial(x))
        return self.head(x.mean((2, 3)))


def test_a_rerun_is_exact_for_gates_that_multiply_each_other() -> None:
    torch.manual_seed(3)
    model = GateProduct().eval()
    x = torch.randn(4, 3, 8, 8)
    gates = find_gates(model, x)
    names = [gate.name for gate in gates]
    assert sorted(names) == ["channel", "spatial"]
    cache = PrefixCache(model, gates, [[name] for name in names] + [names])
    cache.forward(x)
    for group in ([names[0]], [names[1]], names):
        edits = {name: lambda g, f: g * 0.3 for name in group}
        with torch.no_grad(), edit_gates(model, edits):
            complete = model(x)
        assert torch.equal(cache.rerun(edits), complete)


def test_a_network_that_is_not_deterministic_is_refused() -> None:
    class Noisy(Shared):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(3)

    model = Noisy().eval()
    x = torch.randn(4, 3, 8, 8)
    cache = PrefixCache(model, find_gates(model, x), [["squeeze"]])
    cache.forward(x)
    with pytest.raises(ValueError, match="squeeze#2"):
        cache.rerun({"squeeze#2": lambda g, f: g})
    with refused("AS814"):
        cache.rerun({"squeeze": lambda g, f: g})


def test_replacing_gates_by_themselves_changes_no_logit() -> None:
    model = make_network("cbam")
    x = torch.rand(3, 3, 16, 16)
    gates = find_gates(model, x)
    cache = PrefixCache(model, gates, [[gate.name for gate in gates]])
    plain = cache.forward(x)
    own = {gate.name: as_factor(cache.gate_values[gate.name], gate) for gate in gates}
    logits = cache.rerun({name: (lambda g, f, v=v: v) for name, v in own.items()})
    assert torch.equal(logits, plain)
