"""Folded networks give the output of the network whose gates are edited to the same constants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnscope import edit_gates, find_gates, watch_gates
from attnscope.gates import GraphNetwork, as_factor, export_gates
from attnscope.kinds import Gate
from attnscope.networks.graph_fold import GraphFold, fold_graph
from tests.gates.case_networks import CASES
from tests.gates.exported import assert_equal
from tests.making import refused

CHANNELS = 8


def constants_of(model: nn.Module, inputs: object, lowest: float = 0.2) -> dict[str, Tensor]:
    """Random constants, which means are not: they may be so near to the gates that a fold which
    does nothing would pass."""
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad(), watch_gates(model) as values:
        model(*arguments)
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(value.shape[1:], generator=generator).to(value.dtype) + lowest
        for name, value in values.items()
    }


def edited(
    model: nn.Module, gates: list[Gate], constants: dict[str, Tensor], inputs: object, batch: int
) -> Tensor:
    """The output of the network with gates edited to constants."""

    def constant(gate: Gate) -> Callable[[Tensor, Tensor], Tensor]:
        value = constants[gate.name]
        factor = as_factor(value[None].expand(batch, *value.shape), gate)
        return lambda values, features: factor

    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    edits = {gate.name: constant(gate) for gate in gates if gate.name in constants}
    with torch.no_grad(), edit_gates(model, edits, gates):
        return model(*arguments)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def assert_folded(
    model: nn.Module,
    sample: object,
    inputs: object,
    constants: dict[str, Tensor],
    batch: int,
    network: GraphNetwork | None = None,
) -> GraphFold:
    gates = find_gates(model, sample)
    network = network or export_gates(model, sample, gates)
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad():
        plain = model(*arguments)
        fold = fold_graph(network, constants)
        found = fold.network(*arguments)
        assert torch.equal(network(*arguments), plain), "the unfolded graph has changed"
    expected = edited(model, gates, constants, inputs, batch)
    assert relative(expected, plain) > 1e-3, "the constants change nothing"
    assert relative(found, expected) < 1e-5
    rest = [gate for gate in gates if gate.name not in constants]
    assert fold.network.gates == rest
    assert set(fold.forms) == set(constants)
    return fold


CASES_TO_FOLD = """
    one_plus_gate_in_place cbam divided_by_one_plus_exp selective_kernel_stack einsum
    batched_diagonal_matrix gate_applied_twice gate_of_a_gate triplet_attention spatial_groupwise
    shuffle_attention frames_as_images one_value_an_image residual_attention shared_module
""".split()  # noqa: SIM905
"""One for each operation and each form of a gate. `python -m analysis.coverage.graphs` exports and
folds all cases, and the networks of timm and torchvision."""


@pytest.mark.parametrize("name", CASES_TO_FOLD)
def test_a_case_is_exported_and_folded_wholly_and_in_part(name: str) -> None:
    torch.manual_seed(0)
    model = CASES[name]().eval()
    sample, inputs = model.sample(), model.inputs(3)
    network = assert_equal(model, sample, inputs)
    sites = 2 if name == "gate_applied_twice" else 1
    assert {len(nodes) for nodes in network.sites.values()} == {sites}
    constants = constants_of(model, inputs)
    assert_folded(model, sample, inputs, constants, 3, network)
    for start in range(2) if len(constants) > 1 else ():
        some = {name: constants[name] for name in list(constants)[start::2]}
        fold = assert_folded(model, sample, inputs, some, 3, network)
        kept = [each.name for each in fold.network.gates]
        with watch_gates(fold.network) as values:
            fold.network(*(inputs if isinstance(inputs, tuple) else (inputs,)))
        assert list(values) == kept


def test_a_network_of_timm_is_exported_and_folded() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet").eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as those of a trained network
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
    x = torch.randn(3, 3, 64, 64, generator=generator)
    network = assert_equal(model, x[:2], x)
    fold = assert_folded(model, x[:2], x, constants_of(model, x), 3, network)
    assert set(fold.forms.values()) == {"after"}
    assert sum(p.numel() for p in fold.network.parameters()) < sum(
        p.numel() for p in model.parameters()
    )


class Around(nn.Module):
    """A channel gate between whatever the test puts before and after it."""

    def __init__(
        self,
        before: Callable[[Around, Tensor], Tensor],
        after: Callable[[Around, Tensor], Tensor],
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, CHANNELS, 3)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.group_norm = nn.GroupNorm(2, CHANNELS)
        self.plain_norm = nn.BatchNorm2d(CHANNELS, affine=False)
        self.depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.grouped = nn.Conv2d(CHANNELS, 12, 3, padding=1, groups=4)
        self.reflecting = nn.Conv2d(CHANNELS, 6, 3, padding=1, padding_mode="reflect")
        self.conv, self.conv2 = nn.Conv2d(CHANNELS, 6, 3, padding=2), nn.Conv2d(CHANNELS, 6, 1)
        self.two = nn.Conv2d(CHANNELS, 2, 1, bias=False)
        self.squeeze = nn.Linear(CHANNELS, CHANNELS)
        self.head = nn.Linear(CHANNELS, 5)
        self.shared = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.before, self.after = before, after
        for norm in (self.norm, self.group_norm, self.plain_norm):
            for values in (norm.weight, norm.bias):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 1.5)
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self, self.stem(x))
        gate = self.squeeze(x.mean((2, 3))).sigmoid()
        return self.after(self, x * gate[:, :, None, None])


class Several:
    """Networks side by side in one, which is exported at once."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        self.names = list(networks)
        self.model = SideBySide(*networks.values()).eval()
        self.x = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
        self.gates = find_gates(self.model, self.x)
        assert [gate.name for gate in self.gates] == list(map(str, range(len(networks))))
        self.network = export_gates(self.model, self.x, self.gates)


class SideBySide(nn.Sequential):
    """Returns what each of its modules returns."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(module(x) for module in self)


def assert_forms(several: Several, lowest: float, takes: dict[str, bool], side: str) -> None:
    """Each network has the gate in the layers on one side of it, or stored, and the outputs are
    those of edited gates."""
    constants = constants_of(several.model, several.x, lowest)
    with torch.no_grad():
        plain = several.model(several.x)
        fold = fold_graph(several.network, constants)
        found = fold.network(several.x)
        assert all(map(torch.equal, several.network(several.x), plain)), "the graph has changed"
    expected = edited(several.model, several.gates, constants, several.x, len(several.x))
    for name, *outputs in zip(several.names, plain, expected, found, strict=True):
        assert relative(outputs[1], outputs[0]) > 1e-3, f"the constants change nothing: {name}"
        assert relative(outputs[2], outputs[1]) < 1e-5, name
    assert fold.network.gates == []
    forms = dict(zip(several.names, fold.forms.values(), strict=True))
    assert forms == {name: side if taken else "stored" for name, taken in takes.items()}
    written = {several.names[int(name.partition(".")[0])] for name in fold.written}
    assert written == {name for name, taken in takes.items() if taken}
    stored = [name for name, _ in fold.network.named_buffers() if name.startswith("folded")]
    assert len(stored) == list(takes.values()).count(False)


def gelu(net: Around, x: Tensor) -> Tensor:
    return nn.functional.gelu(x)


BEFORE: dict[str, tuple[Callable[[Around, Tensor], Tensor], bool, bool]] = {
    # what is before the gate -> does it take a positive scale, and one of both signs?
    "convolution": (lambda net, x: x, True, True),
    "norm": (lambda net, x: net.norm(x), True, True),
    "group norm": (lambda net, x: net.group_norm(x), True, True),
    "norm without weight": (lambda net, x: net.plain_norm(x), False, False),
    "depthwise": (lambda net, x: net.depthwise(x), True, True),
    "relu": (lambda net, x: net.norm(x).relu(), True, False),
    "relu in place": (lambda net, x: net.norm(x).relu_(), True, False),
    "max pooling": (lambda net, x: nn.functional.max_pool2d(net.norm(x), 2), True, False),
    "mean pooling": (lambda net, x: nn.functional.avg_pool2d(net.norm(x), 2), True, True),
    "number": (lambda net, x: net.norm(x) * 0.5, True, True),
    "sum": (lambda net, x: net.norm(x) + net.depthwise(net.shared(x)), True, True),
    "sum with the input": (lambda net, x: net.norm(x) + x.cos(), False, False),
    "twice the same": (lambda net, x: (y := net.norm(x)) + y, False, False),
    "square": (lambda net, x: (y := net.norm(x)) * y, False, False),
    "concatenation": (
        lambda net, x: torch.cat([net.conv2(x), net.two(net.norm(x))], 1),
        True,
        True,
    ),
    "gelu": (gelu, False, False),
    "shared weights": (lambda net, x: net.shared(net.shared(x)), False, False),
    "half": (lambda net, x: net.norm(x).double().float(), False, False),
}


@pytest.mark.parametrize("lowest", [0.2, -0.5])
def test_layers_before_the_gate_take_it_only_where_that_is_exact(
    lowest: float, before_gates: Several
) -> None:
    takes = {name: positive if lowest > 0 else both for name, (_, positive, both) in BEFORE.items()}
    assert_forms(before_gates, lowest, takes, "before")


@pytest.fixture(scope="module")
def before_gates() -> Several:
    return Several(
        {name: Around(of, lambda net, x: x.cos()) for name, (of, _, _) in BEFORE.items()}
    )


AFTER: dict[str, tuple[Callable[[Around, Tensor], Tensor], bool, bool]] = {
    "convolution": (lambda net, x: net.conv(x), True, True),
    "depthwise": (lambda net, x: net.depthwise(x), True, True),
    "grouped": (lambda net, x: net.grouped(x), True, True),
    "reflected borders": (lambda net, x: net.reflecting(x), True, True),
    "padded": (lambda net, x: net.conv(nn.functional.pad(x, (1, 1, 2, 0))), True, True),
    "padded with ones": (
        lambda net, x: net.conv(nn.functional.pad(x, (1, 1, 2, 0), value=1.0)),
        False,
        False,
    ),
    "two convolutions": (lambda net, x: net.conv2(x).sum() + net.conv(x), True, True),
    "relu": (lambda net, x: net.conv(x.relu()), True, False),
    "silu": (lambda net, x: net.conv(nn.functional.silu(x)), False, False),
    "mean and linear": (lambda net, x: net.head(x.mean((2, 3))), True, True),
    "pooling and linear": (
        lambda net, x: net.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)),
        True,
        True,
    ),
    "tokens": (lambda net, x: net.head(x.flatten(2).transpose(1, 2)), True, True),
    "channels last": (lambda net, x: net.head(x.permute(0, 2, 3, 1)), True, True),
    "flattened": (lambda net, x: x.flatten(1)[:, :50].exp(), False, False),
    "another factor": (lambda net, x: net.conv(x * net.shared.weight.mean()), True, True),
    "a map": (lambda net, x: net.conv(x * torch.linspace(0, 1, x.shape[-1])), True, True),
    "a sum": (lambda net, x: net.conv(x + 1), False, False),
    "the output": (lambda net, x: x, False, False),
    "the output, too": (lambda net, x: net.conv(x)[:, :4, :8, :8] + x[:, :4], False, False),
    "shared weights": (lambda net, x: net.shared(net.shared(x)), False, False),
    "norm": (lambda net, x: net.norm(x), False, False),
}


@pytest.mark.parametrize("lowest", [0.2, -0.5])
def test_layers_after_the_gate_take_it_only_where_that_is_exact(
    lowest: float, after_gates: Several
) -> None:
    takes = {name: positive if lowest > 0 else both for name, (_, positive, both) in AFTER.items()}
    assert_forms(after_gates, lowest, takes, "after")


@pytest.fixture(scope="module")
def after_gates() -> Several:
    return Several({name: Around(lambda net, x: x.cos(), of) for name, (of, _, _) in AFTER.items()})


def test_features_that_others_read_keep_their_scale() -> None:
    model = Around(
        lambda net, x: net.norm(x),
        lambda net, x: x.cos(),
    ).eval()

    def forward(x: Tensor) -> Tensor:
        y = model.norm(model.stem(x))
        gate = model.squeeze(y.mean((2, 3))).sigmoid()
        return (y * gate[:, :, None, None]).cos() + y

    model.forward = forward  # type: ignore[method-assign]
    x = torch.randn(2, 3, 10, 10)
    fold = assert_folded(model, x, x, constants_of(model, x), 2)
    assert fold.forms == {"sigmoid": "stored"}


def test_the_values_of_other_gates_are_not_scaled() -> None:
    # The channel gate multiplies what a spatial gate is made of; the spatial gate stays.
    model = CASES["cbam"]().eval()
    x = model.inputs(3)
    constants = constants_of(model, x)
    first, second = constants
    fold = assert_folded(model, model.sample(), x, {first: constants[first]}, 3)
    gates = find_gates(model, model.sample())
    expected = {}
    factor = as_factor(constants[first][None], gates[0])
    with torch.no_grad():
        with edit_gates(model, {first: lambda values, features: factor}, gates):
            with watch_gates(model, gates) as expected:
                model(x)
        with watch_gates(fold.network) as found:
            fold.network(x)
    assert relative(found[second], expected[second]) < 1e-6


def test_parameters_that_computed_the_gate_are_removed() -> None:
    model = Around(lambda net, x: net.norm(x), lambda net, x: net.conv(x)).eval()
    x = torch.randn(2, 3, 10, 10)
    fold = fold_graph(export_gates(model, x), constants_of(model, x))
    names = {name for name, _ in fold.network.named_parameters()}
    assert names == {
        *("stem.weight", "stem.bias", "norm.weight", "norm.bias", "conv.weight", "conv.bias")
    }
    assert set(fold.written) == {"norm.weight", "norm.bias"}


def test_a_gate_that_acted_on_folded_gates_only_is_unused() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.inner, self.outer = nn.Conv2d(3, 4, 1), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            scaled = x * self.inner(x.mean((2, 3))).sigmoid()[..., None, None]
            return x * self.outer(scaled.mean((2, 3))).sigmoid()[..., None, None]

    model = Nested().eval()
    x = torch.randn(2, 3, 6, 6)
    network = export_gates(model, x)
    constants = constants_of(model, x)
    inner, outer = constants
    fold = fold_graph(network, {outer: constants[outer]})
    assert (fold.unused, fold.network.gates) == ([inner], [])
    assert fold_graph(network, constants).forms[inner] == "unused"


@pytest.fixture(scope="module")
def plain() -> GraphNetwork:
    model = Around(lambda net, x: x, lambda net, x: x).eval()
    return export_gates(model, torch.randn(2, 3, 10, 10))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (torch.ones(3), "AS370"),
        (torch.ones(CHANNELS, 1), "AS370"),
        (torch.ones(()), "AS370"),
        (torch.full((CHANNELS,), float("nan")), "AS371"),
    ],
)
def test_constants_of_another_shape_and_infinite_ones_are_refused(
    value: Tensor, code: str, plain: GraphNetwork
) -> None:
    with refused(code, names=("sigmoid",)):
        fold_graph(plain, {"sigmoid": value})


def test_an_unknown_gate_is_refused(plain: GraphNetwork) -> None:
    with refused("AS401", names=("sigmoid", "other")):
        fold_graph(plain, {"other": torch.ones(CHANNELS)})
