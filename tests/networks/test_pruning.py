"""Pruned networks give the output of the network whose gates are edited to constants with zeros."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope import find_gates, watch_gates
from attnscope.gates import GraphNetwork, export_gates
from attnscope.kinds import Gate as FoundGate
from attnscope.networks.exporting import export_file
from attnscope.networks.graph_fold import GraphFold, fold_graph, removable_channels
from tests.networks.test_exporting import needs_onnx, run_onnx
from tests.networks.test_graph_fold import edited, relative

CHANNELS = 8
ZEROS = (0, 3, 4)
LEFT = CHANNELS - len(ZEROS)


class Gate(nn.Module):
    """Multiplies features by a gate for each channel."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.squeeze(x.mean((2, 3))).sigmoid()[:, :, None, None]


class Net(nn.Module):
    """A stem, whatever the test puts before the gate, the gate, and whatever comes after it."""

    def __init__(
        self, before: Callable[[Net, Tensor], Tensor], after: Callable[[Net, Tensor], Tensor]
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, CHANNELS, 3)
        self.norm, self.norm2 = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)
        self.depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.gate, self.gate2 = Gate(), Gate()
        self.where = nn.Conv2d(CHANNELS, 1, 3, padding=1)
        self.grouped = nn.Conv2d(CHANNELS, 12, 3, padding=1, groups=4)
        self.conv, self.point = nn.Conv2d(CHANNELS, 6, 3, padding=2), nn.Conv2d(CHANNELS, 6, 1)
        self.both = nn.Conv2d(2 * CHANNELS, 6, 3)
        self.head, self.flat = nn.Linear(CHANNELS, 5), nn.Linear(CHANNELS * 64, 5)
        self.shared = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.group_norm = nn.GroupNorm(2, CHANNELS)
        self.before, self.after = before, after
        for norm in (self.norm, self.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, 0.3, 0.9)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.gate(self.before(self, self.stem(x))))


def image() -> Tensor:
    return torch.randn(3, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def constants_of(model: nn.Module, x: Tensor, gates: list[FoundGate]) -> dict[str, Tensor]:
    """Random constants of all gates, from 0.2 to 1.2."""
    with torch.no_grad(), watch_gates(model, gates) as values:
        model(x)
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(value.shape[1:], generator=generator) + 0.2
        for name, value in values.items()
    }


def with_zeros(
    constants: dict[str, Tensor], gate: str, zeros: tuple[int, ...]
) -> dict[str, Tensor]:
    value = constants[gate].clone()
    value[list(zeros)] = 0
    return {**constants, gate: value}


def pruned(
    model: nn.Module, folded: list[str] | None = None, zeros: tuple[int, ...] = ZEROS
) -> GraphFold:
    """The network with all gates or some folded; those of the first are 0 at some channels."""
    x = image()
    gates = find_gates(model, x)
    names = [gate.name for gate in gates] if folded is None else folded
    every = constants_of(model, x, gates)
    constants = with_zeros({name: every[name] for name in names}, names[0], zeros)
    network = export_gates(model, x, gates)
    with torch.no_grad():
        plain = model(x)
        fold = fold_graph(network, constants, prune=True)
        assert torch.equal(network(x), plain), "the unfolded graph has changed"
        for count in (1, 3):
            expected = edited(model, gates, constants, x[:count], count)
            assert relative(fold.network(x[:count]), expected) < 1e-5
            assert relative(expected, plain[:count]) > 1e-3, "the constants change nothing"
    assert [gate.name for gate in fold.network.gates] == [
        gate.name for gate in gates if gate.name not in names
    ]
    assert {name: tuple(fold.network.tensor(name).shape) for name in fold.narrowed} == fold.narrowed
    return fold


def sizes(network: GraphNetwork) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.named_parameters()}


def nothing(net: Net, x: Tensor) -> Tensor:
    return x


def inverted(net: Net, x: Tensor) -> Tensor:
    """What is before the gate in an inverted residual block."""
    return F.silu(net.norm2(net.depthwise(F.silu(net.norm(x)))))


GOES: dict[str, tuple[Callable[[Net, Tensor], Tensor], Callable[[Net, Tensor], Tensor]]] = {
    "inverted residual": (inverted, lambda net, x: net.point(x)),
    "padded convolution": (lambda net, x: net.norm(x).relu(), lambda net, x: net.conv(x)),
    "flattened": (lambda net, x: net.norm(x), lambda net, x: net.flat(x.flatten(1))),
    "norm, then no padding": (lambda net, x: x, lambda net, x: net.point(net.norm(x).relu())),
    "depthwise after": (lambda net, x: x, lambda net, x: net.point(net.depthwise(x))),
    "concatenation": (
        lambda net, x: x,
        lambda net, x: net.both(torch.cat([x.relu(), x.sigmoid() * x], 1)),
    ),
    "spatial gate": (
        lambda net, x: x,
        lambda net, x: net.conv(x * net.where(x).sigmoid()),
    ),
    "shared weights": (lambda net, x: net.shared(x), lambda net, x: net.shared(x).relu()),
    "scale of channels": (
        lambda net, x: net.norm(x) * net.norm2.weight[:, None, None],
        lambda net, x: net.conv(x),
    ),
}


STAYS: dict[str, tuple[Callable[[Net, Tensor], Tensor], Callable[[Net, Tensor], Tensor], str]] = {
    "sum": (lambda net, x: net.norm(x), lambda net, x: net.conv(x + net.shared(x)), "added"),
    "output": (lambda net, x: net.norm(x), lambda net, x: x, "returns"),
    "norm, then padding": (
        lambda net, x: x,
        lambda net, x: net.conv(net.norm(x).sigmoid()),
        "conv2d",
    ),
    "grouped": (lambda net, x: x, lambda net, x: net.grouped(x), "conv2d"),
    "group norm": (lambda net, x: x, lambda net, x: net.conv(net.group_norm(x)), "group_norm"),
    "another gate": (lambda net, x: x, lambda net, x: net.conv(net.gate2(x)), "gate2"),
}


class SideBySide(nn.Sequential):
    """Returns what each of its modules returns. They are exported at once."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(module(x) for module in self)


def test_channels_go_only_where_nothing_needs_them() -> None:
    cases = {**GOES, **{name: case[:2] for name, case in STAYS.items()}}
    model = SideBySide(*(Net(*case) for case in cases.values())).eval()
    x = image()
    gates = find_gates(model, x)
    every = constants_of(model, x, gates)
    folded = {f"{number}.gate": name for number, name in enumerate(cases)}
    constants = {name: value for name, value in every.items() if name in folded}
    network = export_gates(model, x, gates)
    could = removable_channels(network, constants)
    plain = fold_graph(network, constants)
    for name in folded:
        constants = with_zeros(constants, name, ZEROS)
    fold = fold_graph(network, constants, prune=True)
    expected = edited(model, gates, constants, x, len(x))
    with torch.no_grad():
        found = fold.network(x)
    for name, *outputs in zip(cases, expected, found, strict=True):
        assert relative(outputs[1], outputs[0]) < 1e-5, name
    assert (plain.pruned, plain.narrowed) == ({}, {})
    before, after = sizes(plain.network), sizes(fold.network)
    assert {key: after[key] for key in after if key.startswith("0.")} == {
        "0.stem.weight": (LEFT, 3, 3, 3),
        "0.stem.bias": (LEFT,),
        **{f"0.{norm}.{key}": (LEFT,) for norm in ("norm", "norm2") for key in ("weight", "bias")},
        "0.depthwise.weight": (LEFT, 1, 3, 3),
        "0.depthwise.bias": (LEFT,),
        "0.point.weight": (6, LEFT, 1, 1),
        "0.point.bias": (6,),
    }
    for gate, name in folded.items():
        number = gate.partition(".")[0]
        got = fold.pruned[gate]
        changed = [key for key in fold.narrowed if key.startswith(f"{number}.")]
        if name in GOES:
            assert (got.removed, got.filters, got.kept, got.reason) == (ZEROS, 3, (), ""), name
            assert could[gate].removed == tuple(range(CHANNELS)), name
            layer = "pruned_conv2d" if name == "shared weights" else "stem.weight"
            rows = [
                size[0]
                for key, size in after.items()
                if key.startswith(number + ".") and layer in key
            ]
            assert LEFT in rows, name
        else:
            assert (got.removed, got.filters, got.kept, changed) == ((), 0, ZEROS, []), name
            assert STAYS[name][2] in got.reason
            assert STAYS[name][2] in could[gate].reason
            own = {key: size for key, size in before.items() if key.startswith(f"{number}.")}
            assert own.items() <= after.items()
    for key, shape in fold.narrowed.items():
        assert tuple(fold.network.tensor(key).shape) == shape


class Summed(Net):
    """Adds the features of two gates."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.conv((self.gate(self.norm(y)) + self.gate2(self.norm2(y))).relu())


def test_a_sum_loses_channels_that_both_sides_lack() -> None:
    model = Summed(nothing, nothing)
    x = image()
    gates = find_gates(model, x)
    constants = constants_of(model, x, gates)
    first, second = constants
    constants = with_zeros(with_zeros(constants, first, (0, 3, 4)), second, (3, 4, 7))
    fold = fold_graph(export_gates(model, x), constants, prune=True)
    with torch.no_grad():
        assert relative(fold.network(x), edited(model, gates, constants, x, 3)) < 1e-5
    assert fold.pruned[first].removed == fold.pruned[second].removed == (3, 4)
    assert (fold.pruned[first].kept, fold.pruned[second].kept) == ((0,), (7,))
    assert sizes(fold.network)["conv.weight"] == (6, 6, 3, 3)


class Residual(Net):
    """Two residual branches with gates at their ends: one is added, the other is subtracted."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = (y + self.gate(self.norm(self.shared(y)))).relu()
        y = (y - self.gate2(self.norm2(self.depthwise(self.second(y)).relu()))).relu()
        return self.conv(y)

    def __init__(self) -> None:
        super().__init__(nothing, nothing)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11, as it reads
def test_a_summand_loses_channels_and_the_sum_gets_zeros(tmp_path: Path) -> None:
    model = Residual()
    x = image()
    gates = find_gates(model, x)
    constants = constants_of(model, x, gates)
    first, second = constants
    constants = with_zeros(with_zeros(constants, first, (0, 3, 4)), second, (6, 7))
    network = export_gates(model, x)
    could = removable_channels(network, constants)
    assert {gate.removed for gate in could.values()} == {tuple(range(CHANNELS))}
    fold = fold_graph(network, constants, prune=True)
    expected = edited(model, gates, constants, x, 3)
    with torch.no_grad():
        assert relative(fold.network(x), expected) < 1e-5
    for name, zeros in ((first, (0, 3, 4)), (second, (6, 7))):
        found = fold.pruned[name]
        assert (found.removed, found.filters, found.kept) == (zeros, len(zeros), ())
        assert fold.forms[name] == "before"
    found = sizes(fold.network)
    assert found["shared.weight"] == (5, CHANNELS, 1, 1)
    assert found["norm.weight"] == (5,)
    assert found["second.weight"] == (6, CHANNELS, 1, 1)
    assert found["depthwise.weight"] == (6, 1, 3, 3)
    assert found["conv.weight"] == (6, CHANNELS, 3, 3)
    needs_onnx()
    written = export_file(fold.network, tmp_path / "net.onnx")
    (output,) = run_onnx(written.file, x)
    assert relative(output, expected) < 1e-4
    program = torch.export.load(export_file(fold.network, tmp_path / "net.pt2").file)
    with torch.no_grad():
        assert torch.equal(program.module()(x), fold.network(x))


def test_filters_of_a_grouped_convolution_stay() -> None:
    net = Net(lambda net, x: net.norm(net.in_groups(x)).relu(), lambda net, x: net.point(x))
    net.in_groups = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=4)
    # Four filters that are left could be taken for four groups of one.
    for zeros in (ZEROS, (0, 1, 2, 3)):
        fold = pruned(net, zeros=zeros)
        (gate,) = fold.pruned.values()
        assert (gate.removed, gate.filters, gate.kept) == (zeros, 0, ())
        found = sizes(fold.network)
        assert found["in_groups.weight"] == (CHANNELS, 2, 3, 3)
        assert found["point.weight"] == (6, CHANNELS - len(zeros), 1, 1)


class Skipping(Net):
    """Reads the features also without the gate."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.stem(x))
        return self.conv(self.gate(y)).mean() + self.point(y)


def test_filters_stay_whose_features_are_read_otherwise() -> None:
    fold = pruned(Skipping(nothing, nothing))
    (gate,) = fold.pruned.values()
    assert (gate.removed, gate.filters, gate.kept) == (ZEROS, 0, ())
    found = sizes(fold.network)
    assert found["stem.weight"] == (CHANNELS, 3, 3, 3)
    assert found["conv.weight"] == (6, LEFT, 3, 3)
    assert found["point.weight"] == (6, CHANNELS, 1, 1)


def test_one_channel_stays_if_all_are_zero() -> None:
    fold = pruned(
        Net(lambda net, x: net.norm(x), lambda net, x: net.conv(x)), zeros=tuple(range(8))
    )
    (gate,) = fold.pruned.values()
    assert (gate.removed, gate.kept, gate.reason) == (
        tuple(range(1, 8)),
        (0,),
        "one channel must stay",
    )


def test_gates_that_are_left_have_the_values_of_the_edited_network() -> None:
    model = Net(lambda net, x: x, lambda net, x: net.conv(x * net.where(x).sigmoid()))
    x = image()
    gates = find_gates(model, x)
    first, second = (gate.name for gate in gates)
    fold = pruned(model, [first])
    with torch.no_grad(), watch_gates(fold.network) as found:
        fold.network(x)
    constants = with_zeros({first: constants_of(model, x, gates)[first]}, first, ZEROS)
    with torch.no_grad(), watch_gates(model, gates) as expected:
        edited(model, gates, constants, x, 3)
    torch.testing.assert_close(found[second], expected[second], rtol=1e-5, atol=1e-6)


def test_a_network_of_timm_is_pruned_and_exported() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet").eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as those of a trained network
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
    x = torch.randn(3, 3, 64, 64, generator=generator)
    gates = find_gates(model, x)
    constants = {
        name: value * (torch.rand(value.shape, generator=generator) > 0.3)
        for name, value in constants_of(model, x, gates).items()
    }
    network = export_gates(model, x, gates)
    fold = fold_graph(network, constants, prune=True)
    with torch.no_grad():
        assert relative(fold.network(x), edited(model, gates, constants, x, 3)) < 1e-5
    kept = {name: int((value != 0).sum()) for name, value in constants.items()}
    for name, gate in fold.pruned.items():
        assert len(gate.removed) == gate.filters == len(constants[name]) - kept[name] > 0
        block = name.rpartition(".se")[0]
        found = sizes(fold.network)
        assert found[f"{block}.conv_pw.weight"][0] == kept[name]
        assert found[f"{block}.conv_dw.weight"][0] == kept[name]
        assert found[f"{block}.conv_pwl.weight"][1] == kept[name]
