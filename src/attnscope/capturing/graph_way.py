"""A network that runs as an exported graph and returns its gates, cut at the layers of Grad-CAM.

Each part of the graph can be compiled. What runs before the first layer of Grad-CAM has no
gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from attnscope.attribution import HeadGraph
from attnscope.errors import InputError
from attnscope.gates.graph import export_gates, with_gates
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.graph_nodes import Call, plan_calls, structure_of
from attnscope.gates.values import Constancy, read_values
from attnscope.kinds import Gate

BACKEND = "inductor"
"""What compiles the parts, as `torch.compile` calls it."""
_ATEN = torch.ops.aten
_COMPARING = {each.default for each in (_ATEN.amax, _ATEN.amin, _ATEN.max, _ATEN.min)}
"""Operations whose gradient compares features with a maximum or minimum."""


@dataclass
class Part:
    """Some operations of a graph, which follow each other."""

    inputs: list[Node]
    """The nodes of the whole graph whose values it needs."""
    outputs: list[Node]
    """Those whose values others need."""
    run: GraphModule
    """Takes the values of ``inputs``, returns those of ``outputs``."""
    compiled: Callable[..., tuple[Any, ...]] | None = None


class GraphWay:
    """Runs the graph of a network, and reads its gates and the maps of layers."""

    def __init__(self, network: GraphNetwork, layers: Sequence[str]) -> None:
        """Cut the graph.

        Args:
            network: A network of `attnscope.gates.export_gates`.
            layers: Paths of the layers of Grad-CAM, in any order.

        Raises:
            InputError: AS676, a layer is no single value of the graph.
        """
        self.gates = network.gates
        self._sites = {name: sites[0][1] for name, sites in network.sites.items()}
        whole = with_gates(network)
        self._graph = whole.exported_graph
        # In the graph with gates as outputs, these are outputs of their modules, too.
        nodes = {node.name: node for node in self._graph.nodes}
        cuts = _cuts_of(network.exported_graph, layers)
        self._cuts = {nodes[node.name]: layer for node, layer in cuts.items()}
        self._parts = list(_parts_of(whole, list(self._cuts)))
        self._batch: int | None = None  # the size for which it is compiled
        self.head = HeadGraph(list(layers))

    def compile(self, batch: Tensor) -> None:
        """Compile the graph for batches of one size; others run as before.

        A part with gradients that looks for a maximum among features is not compiled: its backward
        pass compares them with the maximum. Compiled code may compute them again with another
        rounding, so that none is equal and the gradient is NaN.

        Args:
            batch: Images of that size.

        Raises:
            Exception: Whatever the compiler raises.
        """
        for number, part in enumerate(self._parts):
            if number > 0 and any(node.target in _COMPARING for node in part.run.graph.nodes):
                continue
            part.compiled = torch.compile(part.run, backend=BACKEND, dynamic=False)
        self._batch = len(batch)
        checks: list[Constancy] = []
        with torch.no_grad():
            returned, _ = self(batch, checks)
            # The gradient is compiled when it is first needed.
            logits = [t for t in pytree.tree_leaves(returned) if t.requires_grad]
            for layer in self.head.layers:
                with torch.enable_grad():
                    score = torch.stack([each.float().sum() for each in logits]).sum()
                torch.autograd.grad(score, self.head.outputs[layer], retain_graph=True)
        self.head.outputs.clear()

    def __call__(self, x: Tensor, checks: list[Constancy]) -> tuple[Any, dict[str, Tensor]]:
        """Run the network on a batch.

        Args:
            x: The images.
            checks: As for `attnscope.gates.values.read_values`.

        Returns:
            What the network returns, and the values of its gates.
        """
        self.head.outputs.clear()
        checks.clear()
        values: dict[Node, Any] = {}
        for node, leaf in zip(_placeholders(self._graph), pytree.tree_leaves(x), strict=True):
            values[node] = leaf
        layers = list(self._cuts.items())
        with torch.no_grad():
            for number, part in enumerate(self._parts):
                run: Callable[..., tuple[Any, ...]] = part.run
                if part.compiled is not None and len(x) == self._batch:
                    run = part.compiled
                with torch.set_grad_enabled(number > 0):
                    found = run(*(values[node] for node in part.inputs))
                values.update(zip(part.outputs, found, strict=True))
                if number < len(layers):
                    cut, layer = layers[number]
                    if not values[cut].requires_grad:
                        values[cut] = values[cut].detach().requires_grad_()
                    self.head.outputs[layer] = values[cut]
            output = next(node for node in self._graph.nodes if node.op == "output")
            leaves = [values[n] if isinstance(n, Node) else n for n in output.args[0]]
            returned, raw = pytree.tree_unflatten(leaves, structure_of(self._graph).out_spec)
            gates = {
                gate.name: self._read(gate, raw[gate.name], len(x), checks) for gate in self.gates
            }
        return returned, gates

    def _read(self, gate: Gate, raw: Tensor, batch: int, checks: list[Constancy]) -> Tensor:
        aligned = self._sites[gate.name].aligned
        value = raw.detach() if aligned is None else aligned.read(raw.detach())
        return read_values(value, gate, batch, checks)


def graph_way(
    model: nn.Module, sample: Tensor, gates: Sequence[Gate], layers: Sequence[str]
) -> GraphWay:
    """Export a network and cut its graph.

    Args:
        model: The network, in eval mode.
        sample: Some images.
        gates: Its gates.
        layers: Layers of Grad-CAM.

    Raises:
        InputError: As `attnscope.gates.export_gates`; AS676, a layer is no single value of the
            graph.
    """
    return GraphWay(export_gates(model, sample, gates), layers)


def _placeholders(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _cuts_of(graph: Graph, layers: Sequence[str]) -> dict[Node, str]:
    """Return the node whose value each layer returns, in the order of the graph."""
    found: dict[Node, str] = {}
    calls = list(_calls_in(plan_calls(graph)))
    for layer in layers:
        own = [call for call in calls if call.path == layer]
        if len(own) != 1 or len(own[0].outputs) != 1 or own[0].outputs[0] in found:
            raise InputError(
                "AS676",
                f"the output of the layer {layer}, which Grad-CAM explains, is no single value of "
                "the exported graph; use the network itself",
            )
        found[own[0].outputs[0]] = layer
    return {node: found[node] for node in graph.nodes if node in found}


def _calls_in(call: Call) -> Iterator[Call]:
    for item in call.items:
        if isinstance(item, Call):
            yield item
            yield from _calls_in(item)


def _parts_of(network: GraphNetwork, cuts: Sequence[Node]) -> Iterator[Part]:
    """Cut a graph after nodes: what needs the value of a cut is in a later part."""
    graph = network.exported_graph
    number: dict[Node, int] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            continue
        needed = [n for n in node.all_input_nodes if n.op != "get_attr"]
        number[node] = max((number[n] + (n in cuts) for n in needed), default=0)
        if node in cuts:  # also if it needs no earlier cut
            number[node] = max(number[node], cuts.index(node))
    last = len(cuts)
    output = next(node for node in graph.nodes if node.op == "output")
    number[output] = last + 1
    for part in range(last + 1):
        own = [n for n in graph.nodes if number.get(n) == part and n.op != "placeholder"]
        inside = set(own)
        inputs = list(
            dict.fromkeys(
                n
                for node in own
                for n in node.all_input_nodes
                if n not in inside and n.op != "get_attr"
            )
        )
        outputs = [n for n in own if any(number[user] != part for user in n.users)]
        yield Part(inputs, outputs, _module_of(network, own, inputs, outputs))


def _module_of(
    network: GraphNetwork, own: Sequence[Node], inputs: Sequence[Node], outputs: Sequence[Node]
) -> GraphModule:
    """Return a module that runs some nodes. Its tensors are those of the network, detached."""
    graph = Graph()
    known: dict[Node, Node] = {}
    tensors: dict[str, Any] = {}
    for node in inputs:
        known[node] = graph.placeholder(node.name)
        known[node].meta = dict(node.meta)

    def take(node: Node) -> Node:
        if node not in known:  # a parameter
            name = str(node.target)
            value = network.tensor(name)
            # Else compiled code would compute the gradients of the parameters, too.
            tensors[name] = value.detach() if isinstance(value, Tensor) else value
            known[node] = graph.get_attr(name)
        return known[node]

    for node in own:
        known[node] = graph.node_copy(node, take)
    graph.output(tuple(known[node] for node in outputs))
    return GraphModule(tensors, graph).eval()


@contextmanager
def compiled_gradients() -> Iterator[None]:
    """Allow several gradients of one forward of compiled code, as Grad-CAM of two classes needs."""
    from torch._functorch import config

    with config.patch(donated_buffer=False):
        yield
