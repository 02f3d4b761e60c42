"""The gates of an exported graph are those of the tracer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attnscope.gates.graph import export_gates
from attnscope.gates.graph_network import GraphNetwork
from attnscope.networks.attention import ATTENTIONS, build_attention
from tests.gates.case_networks import CASES
from tests.gates.exported import assert_equal, run
from tests.making import refused


class Net(nn.Module):
    """A convolution, an attention module of ours, and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.attention = build_attention(kind, 16, reduction=4, kernel_size=3)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.norm(self.conv(x)).relu_())
        return self.head(y.mean((2, 3)))


def images(count: int, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def exported() -> tuple[Net, GraphNetwork]:
    """A network and its graph, which no test changes."""
    model = Net("cbam").eval()
    return model, export_gates(model, images(2))


class Every(Net):
    """All attention modules, one after another."""

    def __init__(self) -> None:
        super().__init__("se")
        self.attention = nn.Sequential()
        for kind in ATTENTIONS:
            self.attention.add_module(kind, build_attention(kind, 16, reduction=4, kernel_size=3))


def test_the_graph_of_each_attention_module_has_its_gates() -> None:
    network = assert_equal(Every().eval(), images(2), images(5))
    assert all(len(sites) == 1 for sites in network.sites.values())
    assert {name.split(".")[1] for name in network.sites} == set(ATTENTIONS)


def test_one_image_is_enough_to_export() -> None:
    assert_equal(Net("cbam").eval(), images(1), images(1))


@pytest.mark.parametrize("name", ["two_tensors", "dict_input"])
def test_the_graph_takes_the_inputs_of_the_network(name: str) -> None:
    torch.manual_seed(0)
    model = CASES[name]().eval()
    assert_equal(model, model.sample(), model.inputs(3))


def test_names_are_those_of_the_modules_even_where_all_gates_are_equal() -> None:
    # Gates that start at one have equal values, so that values cannot tell them.
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (build_attention("se", 4, reduction=2) for _ in range(2))
            for gate in (self.a, self.b):
                for parameter in gate.parameters():
                    nn.init.zeros_(parameter)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) + 1).mean((2, 3))

    model = Twice().eval()
    x = torch.randn(2, 4, 8, 8)
    network = export_gates(model, x)
    applied = {name: nodes[0][0].meta["calls"][0][1] for name, nodes in network.sites.items()}
    assert applied == {"a.channel": "a", "b.channel": "b"}


def test_hooks_on_modules_of_the_graph_see_what_they_return(
    exported: tuple[Net, GraphNetwork],
) -> None:
    model, network = exported
    seen: dict[str, Tensor] = {}
    for each in (model, network):
        name = "ours" if each is network else "true"
        hook = each.get_submodule("attention.channel").register_forward_hook(
            lambda module, args, output, name=name: seen.__setitem__(name, output)
        )
        with torch.no_grad():
            each(images(3))
        hook.remove()
    assert torch.equal(seen["ours"], seen["true"])


def test_what_a_hook_returns_replaces_what_the_module_returns(
    exported: tuple[Net, GraphNetwork],
) -> None:
    model, network = exported
    outputs = []
    for each in (model, network):
        module = each.get_submodule("attention.channel")
        with module.register_forward_hook(lambda module, args, output: output * 0.5):
            with torch.no_grad():
                outputs.append(each(images(3)))
    assert torch.equal(*outputs)
    with torch.no_grad():
        assert not torch.equal(outputs[0], model(images(3)))


def test_the_gradient_of_a_module_of_the_graph_is_that_of_the_network() -> None:
    model = Net("se").eval()
    network = export_gates(model, images(2))
    found = []
    for each in (model, network):
        seen = []
        with each.get_submodule("conv").register_forward_hook(
            lambda module, args, output, seen=seen: seen.append(output)
        ):
            logits = each(images(3))
        found.append(torch.autograd.grad(logits[:, 1].sum(), seen[0])[0])
    assert torch.equal(*found)


def test_the_graph_shares_parameters_and_its_copy_does_not() -> None:
    model = Net("se").eval()
    network = export_gates(model, images(2))
    assert network.get_parameter("conv.weight") is model.conv.weight
    other = copy.deepcopy(network)
    assert other.get_parameter("conv.weight") is not model.conv.weight
    with torch.no_grad():
        assert torch.equal(other(images(3)), model(images(3)))
        model.conv.weight.mul_(2)
        assert not torch.equal(other(images(3)), network(images(3)))
    assert [gate.name for gate in other.gates] == ["attention.channel"]


def test_the_graph_of_a_graph_is_a_copy_with_the_same_modules_and_gates(
    exported: tuple[Net, GraphNetwork],
) -> None:
    model, network = exported
    spatial = network.gates[1]
    copied = export_gates(network, images(3), [spatial])
    assert copied is not network
    assert (copied.gates, len(network.gates)) == ([spatial], 2)
    assert run(copied, images(3), edited=False)[1].keys() == {spatial.name}
    seen: list[Tensor] = []
    with copied.get_submodule("norm").register_forward_hook(
        lambda module, args, output: seen.append(output)
    ):
        with torch.no_grad():
            assert torch.equal(copied(images(3)), model(images(3)))
    assert [value.shape for value in seen] == [(3, 16, 16, 16)]
    with refused("AS418"):
        export_gates(network, images(2, 24))
    with refused("AS417", names=("other",)):
        export_gates(network, images(2), [replace(spatial, name="other")])


def test_exporting_leaves_the_network_as_it_was() -> None:
    model = Net("cbam").train()
    state = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    export_gates(model, images(2))
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_images_of_another_size_or_precision_are_refused(
    exported: tuple[Net, GraphNetwork],
) -> None:
    _, network = exported
    for wrong in (images(2, 24), images(2).double(), torch.randn(2, 1, 16, 16)):
        with refused("AS418", names=("(N, 3, 16, 16)", tuple(wrong.shape))):
            network(wrong)


def by_values(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def of_length(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).reshape(x.shape)


def failing(x: Tensor) -> Tensor:
    if torch.compiler.is_exporting():
        raise RuntimeError("not today")
    return x


@pytest.mark.parametrize(
    ("change", "words"),
    [(by_values, "x.sum"), (of_length, "len"), (failing, "not today")],
)
def test_a_network_that_cannot_be_exported_says_why(
    change: Callable[[Tensor], Tensor], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    class Changed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(change(x))

    with refused("AS416", names=("Changed", words)):
        export_gates(Changed("se").eval(), images(2))
    assert capfd.readouterr() == ("", "")


def test_a_warning_during_an_export_is_no_failure() -> None:
    """Some versions of torch warn about their own code, and warnings may be errors."""

    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                warnings.warn("old", FutureWarning, stacklevel=1)
            return super().forward(x)

    model = Noisy("se").eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = export_gates(model, images(2))
        assert torch.equal(graph(images(3)), model(images(3)))


def test_a_list_of_images_has_no_graph() -> None:
    model = CASES["list_of_images"]().eval()
    with refused("AS416", names=("ListOfImages",)):
        export_gates(model, model.sample())


def test_a_graph_with_other_values_is_refused() -> None:
    class Other(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(2 * x if torch.compiler.is_exporting() else x)

    with refused("AS417", names=("output",)):
        export_gates(Other("se").eval(), images(2))


def test_a_gate_that_the_graph_lacks_is_refused() -> None:
    class Without(Net):
        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                return self.head(self.norm(self.conv(x)).relu_().mean((2, 3)))
            return super().forward(x)

    with refused("AS417", names=("attention.channel",)):
        export_gates(Without("se").eval(), images(2))
