"""The gates of a network as nodes of its exported graph.

`torch.export` turns a network into a graph of operations. The network runs once under the tracer,
which tells each multiplication by a gate, and which of the operations below Python's functions it
is: so many multiplications of so many in this module. The graph runs once, too, and the same
operation belongs to one node. Names and values of gates therefore are those of the tracer, and do
not depend on how the graph spells an operation.
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule, Interpreter, Node
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from attnscope.errors import InputError, first_line
from attnscope.gates.detect import inspect_call
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.graph_nodes import (
    Meeting,
    copy_graph,
    free_shapes,
    meetings_of,
    no_node,
    structure_of,
)
from attnscope.gates.hooks import place_of
from attnscope.gates.inputs import Inputs
from attnscope.gates.modes import eval_mode
from attnscope.gates.products import UNBOUNDED_FORM, Product
from attnscope.gates.tracer import Tracer, own_level
from attnscope.gates.values import read_values
from attnscope.kinds import Gate

_MOST_IMAGES = 1 << 20
_LONGEST = 160  # characters of what torch says in a message
_ROUNDING = 1e-5  # of the largest value; kernels may be others than in the network


def export_gates(
    model: nn.Module, images: Any, gates: Sequence[Gate] | None = None
) -> GraphNetwork:
    """Export a network as a graph and find its gates among the nodes.

    The number of images is free; the other sizes are those of the sample. The network is exported
    in eval mode. The graph shares its parameters.

    Args:
        model: any network. Of a graph, such as a folded network, a copy is returned.
        images: a sample as for `attnscope.find_gates`.
        gates: gates from `attnscope.find_gates`. Default: they are found on the sample.

    Raises:
        InputError: AS416, torch cannot export the network for any number of images; AS417, a gate
            is no node of the graph, or the graph computes other values than the network; AS418, the
            network is a graph for inputs of other shapes.
    """
    inputs = Inputs.of(images)
    if isinstance(model, GraphNetwork):  # another export would lose the modules of its operations
        return model.with_only(gates, inputs.args)
    batch = inputs.batch_size()
    if inputs.is_list or batch is None:
        problem = "takes a list of images" if inputs.is_list else "takes no batch of images"
        raise InputError(
            "AS416",
            f"{type(model).__name__} {problem}, so that it has no graph for any number of images; "
            "use the network itself",
        )
    if batch == 1:  # torch.export takes a size of one for a constant
        inputs, batch = inputs.with_one_more(), 2
    if gates is None:
        gates = inspect_call(model, inputs.args, {}).gates
    with own_level(), eval_mode(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        module = _export(model, inputs, batch)
        paths, aliases = _paths(model)
        shapes = free_shapes(inputs.tensors, batch)
        network = GraphNetwork.of(module, list(paths.values()), shapes, aliases, gates)
        seen = _observe(model, gates, inputs, paths)
        _name_nodes(network, seen.uses, inputs)
        missing = [gate.name for gate in gates if gate.name not in network.sites]
        if missing:
            raise no_node(missing[0])
        more = inputs.with_one_more()
        _expect_equal(network, inputs, seen)
        _expect_equal(network, more, _observe(model, gates, more, paths))
    return network


def with_gates(network: GraphNetwork, names: Sequence[str] | None = None) -> GraphNetwork:
    """Return a network with gates as extra outputs.

    Args:
        network: a network of `export_gates`.
        names: names of gates. Default: all.

    Returns:
        A network that returns ``(output, values)``. The output is that of the network. ``values``
        holds name -> what multiplies the features, and `read_gates` gives it the gate's axes.
    """
    sites = network.sites
    names = [gate.name for gate in network.gates] if names is None else list(names)
    graph, known = copy_graph(network.exported_graph)
    output = next(node for node in graph.nodes if node.op == "output")
    values = []
    for name in names:
        node, meeting = sites[name][0]
        value = known[meeting.operand(node)]
        if meeting.divides:
            with graph.inserting_before(known[node]):
                value = graph.call_function(torch.ops.aten.reciprocal.default, (value,))
            value.meta["calls"] = node.meta.get("calls")
        values.append(value)
    output.args = ((*output.args[0], *values),)
    info = structure_of(graph)
    leaves = pytree.tree_unflatten([0] * info.out_spec.num_leaves, info.out_spec)
    both = pytree.tree_structure((leaves, dict.fromkeys(names, 0)))
    graph._codegen.pytree_info = info._replace(out_spec=both)  # type: ignore[attr-defined]
    return network.with_graph(graph)


def read_gates(
    network: GraphNetwork, values: Mapping[str, Tensor], batch: int | None
) -> dict[str, Tensor]:
    """Return values of `with_gates` in the form of `attnscope.watch_gates`.

    Args:
        network: the network.
        values: name of a gate -> what multiplies the features.
        batch: number of images.

    Raises:
        InputError: AS404, a gate varies along an axis along which it was constant on the sample.
    """
    sites = network.sites
    found = {}
    for gate in network.gates:
        if gate.name in values:
            aligned = sites[gate.name][0][1].aligned
            value = values[gate.name]
            value = value if aligned is None else aligned.read(value)
            found[gate.name] = read_values(value, gate, batch)
    return found


def _export(model: nn.Module, inputs: Inputs, batch: int) -> GraphModule:
    images = Dim("images", min=1, max=_MOST_IMAGES)

    def dynamic(value: Any) -> Any:
        is_batch = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch
        return {0: images} if is_batch else None

    try:
        bound = inspect.signature(model.forward).bind(*inputs.args)
        shapes = pytree.tree_map(dynamic, dict(bound.arguments))
        # torch prints the graph of a failed export, and version 2.11 warns about its own code,
        # which fails the export where warnings are errors.
        quiet = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
        with quiet[0], quiet[1], warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, inputs.args, dynamic_shapes=shapes)
            # Without operations in place, the users of a node are all that read its value.
            module: GraphModule = program.run_decompositions({}).module(check_guards=False)
        return module
    except Exception as error:  # the network and the exporter may raise anything
        raise InputError(
            "AS416",
            f"torch.export cannot export {type(model).__name__} for any number of images "
            f"({_reason(error)}); use the network itself",
        ) from None


def _reason(error: Exception) -> str:
    """Return in a few words why an export failed."""
    if "DataDependent" in type(error).__name__:
        return "what it computes depends on values, as in `if x.sum() > 0`"
    if "Constraints violated" in str(error):
        return "the number of images becomes a constant, as `len(x)` makes it, but not `x.shape[0]`"
    line = first_line(error)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _paths(model: nn.Module) -> tuple[dict[int, str], dict[str, str]]:
    """Return the path of each module by its id, and the path for each other path of it."""
    paths = {id(module): path for path, module in model.named_modules()}
    every = model.named_modules(remove_duplicate=False)
    return paths, {path: paths[id(module)] for path, module in every}


Key = tuple[str, str, int]
"""A module, an operation below Python's functions, and the number of such ones before it."""


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Numbers the operations below Python's functions within each module."""

    def __init__(self, running: Callable[[], str], see: Callable[[Key, list[Any]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._running, self._see = running, see
        self._counts: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # An operation in place is an operation of its own in the graph.
        kind = self._running(), func._schema.name.rstrip("_")
        self._see((*kind, self._counts[kind]), pytree.tree_leaves((args, kwargs)))
        self._counts[kind] += 1
        return func(*args, **kwargs)


@dataclass(frozen=True)
class _Use:
    """A multiplication by a gate in the network."""

    gate: Gate
    product: Product
    operand_at: int = -1
    """Position of the operand among the arguments of the operation."""
    features_at: int | None = None
    """Position of the features there."""

    @property
    def operand(self) -> Tensor:
        """The gate, or the argument from which the operation makes it."""
        aligned = self.product.aligned
        return self.product.gate if aligned is None else aligned.argument


class _Watcher(Tracer):
    """Tells which operation of the network multiplies by which gate, and the values of gates."""

    def __init__(self, model: nn.Module, gates: Sequence[Gate], batch: int | None) -> None:
        super().__init__(model)
        self.skips_unknown = True
        self.meets_unbounded = any(gate.form == UNBOUNDED_FORM for gate in gates)
        self.gates = {place_of(gate): gate for gate in gates}
        self.batch = batch
        self.uses: dict[Key, list[_Use]] = {}
        """The multiplications by gates, by the operation that does them."""
        self.values: dict[str, Tensor] = {}
        self.output: Any = None
        self._met: list[_Use] = []

    def meet(self, product: Product) -> Tensor:
        is_unbounded = product.mark.form == UNBOUNDED_FORM
        mark = product.mark.inverted() if product.divides and not is_unbounded else product.mark
        gate = self.gates.get(mark.place) or self.gates.get(mark.old_place)
        if gate is not None:
            if gate.name not in self.values:
                with _disable_current_modes():  # these are no operations of the network
                    values = 1 / product.gate if product.divides else product.gate
                    self.values[gate.name] = read_values(values, gate, self.batch).clone()
            self._met.append(_Use(gate, product))
        return product.gate

    def see(self, key: Key, arguments: list[Any]) -> None:
        """Called before each operation below Python's functions."""
        for use in list(self._met):
            places = [i for i, argument in enumerate(arguments) if argument is use.operand]
            if places:
                features = use.product.features
                others = [i for i, argument in enumerate(arguments) if argument is features]
                at = others[0] if others and features is not None else None
                used = replace(use, operand_at=places[0], features_at=at)
                self.uses.setdefault(key, []).append(used)
                self._met.remove(use)


def _observe(
    model: nn.Module, gates: Sequence[Gate], inputs: Inputs, paths: dict[int, str]
) -> _Watcher:
    """Run the network once under the tracer."""
    watcher = _Watcher(model, gates, inputs.batch_size())
    with _running_module(paths) as running, watcher:
        with _Operations(lambda: running[-1] if running else "", watcher.see):
            watcher.output = model(*inputs.args)
    return watcher


@contextmanager
def _running_module(paths: dict[int, str]) -> Iterator[list[str]]:
    """Follow which modules run: their paths, the innermost last."""
    running: list[str] = []

    def enter(module: nn.Module, args: Any) -> None:
        if id(module) in paths:
            running.append(paths[id(module)])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in paths:
            running.pop()

    hooks = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


class _NodeRunner(Interpreter):
    """Runs a graph and tells which node runs."""

    def __init__(self, network: GraphNetwork) -> None:
        super().__init__(network, graph=network.exported_graph)
        self.node: Node | None = None

    def run_node(self, n: Node) -> Any:
        self.node = n
        return super().run_node(n)

    @property
    def running(self) -> str:
        """The path of the module to which the node belongs."""
        calls = () if self.node is None else self.node.meta.get("calls", ())
        return str(calls[-1][1]) if calls else ""


def _name_nodes(network: GraphNetwork, uses: dict[Key, list[_Use]], inputs: Inputs) -> None:
    """Give each node that multiplies by a gate the name of the gate.

    Raises:
        InputError: AS417, a multiplication is no node.
    """
    runner = _NodeRunner(network)
    found: set[Key] = set()

    def see(key: Key, arguments: list[Any]) -> None:
        node = runner.node
        if key not in uses or node is None:
            return
        found.add(key)
        places = {}
        for place, each in enumerate(node.all_input_nodes):
            places[id(runner.env[each])] = place
        for use in uses[key]:
            operand = places.get(id(arguments[use.operand_at]))
            if operand is None:
                raise no_node(use.gate.name)
            features = None
            if use.product.features is not None:
                at = use.features_at
                others = [place for place in places.values() if place != operand]
                features = others[0] if at is None else places.get(id(arguments[at]))
            meeting = Meeting(
                use.gate.name, operand, features, use.product.divides, use.product.aligned
            )
            node.meta["gates"] = (*meetings_of(node), meeting)

    with _Operations(lambda: runner.running, see):
        runner.run(*pytree.tree_leaves(inputs.args), enable_io_processing=False)
    for key, missing in uses.items():
        if key not in found:
            raise no_node(missing[0].gate.name)


def _expect_equal(network: GraphNetwork, inputs: Inputs, seen: _Watcher) -> None:
    """Refuse a graph whose output or gates are not those of the network."""
    output, raw = with_gates(network)(*inputs.args)
    values = read_gates(network, raw, inputs.batch_size())
    pairs = [("the output", output, seen.output)]
    pairs += [(f"the gate {name}", value, seen.values[name]) for name, value in values.items()]
    for what, found, expected in pairs:
        if not all(map(_close, Inputs((found,), {}).tensors, Inputs((expected,), {}).tensors)):
            raise InputError(
                "AS417",
                f"{what} of the exported graph has other values than in the network; use the "
                "network itself",
            )


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not found.is_floating_point() or torch.equal(found, expected):
        return torch.equal(found, expected)
    scale = float(expected.abs().nan_to_num(posinf=0.0).max()) or 1.0
    tolerance = _ROUNDING * (torch.finfo(found.dtype).eps / torch.finfo(torch.float32).eps)
    return torch.allclose(found, expected, rtol=0, atol=tolerance * scale, equal_nan=True)
