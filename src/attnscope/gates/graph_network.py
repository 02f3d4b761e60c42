"""A network that runs its exported graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.nn.modules import module as torch_modules

from attnscope.errors import InputError
from attnscope.gates.graph_nodes import (
    Call,
    Meeting,
    Shapes,
    copy_graph,
    describe_shapes,
    meetings_of,
    no_node,
    plan_calls,
    structure_of,
)
from attnscope.gates.inputs import Inputs
from attnscope.kinds import Gate


class Part(nn.Module):
    """The operations of one module of the network, in the place of that module."""

    def forward(self, run: Callable[[], Any]) -> Any:
        """Run the operations."""
        return run()


class GraphNetwork(nn.Module):
    """A network that runs an exported graph.

    Its parameters have the names that they have in the network, and a submodule is in the place of
    each module of the network. If there are hooks on modules, or gates are read or edited, it calls
    these submodules and runs node by node; otherwise it runs the code of the graph, which gives the
    same values.

    Its gates are nodes. `attnscope.find_gates` returns them, and `attnscope.watch_gates` and
    `attnscope.edit_gates` meet them there, without a tracer.

    Args:
        graph: a graph whose ``get_attr`` nodes name tensors. It is not copied.
        tensors: the parameters, buffers and other objects that the graph reads, by name.
        paths: paths of the modules of the network.
        shapes: the inputs for which the graph was exported.
        gates: the gates of the network, in the order in which they multiply.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: dict[str, Any],
        paths: Sequence[str],
        shapes: Shapes,
        gates: Sequence[Gate] = (),
    ) -> None:
        super().__init__()
        self.all_gates = tuple(gates)
        self.server: GateServer | None = None
        """Reads or edits the gates of each forward while it is set."""
        self.module_paths = tuple(paths)
        self.input_shapes = shapes
        self.exported_graph = graph
        for path in paths:
            self._part(path)
        for name, value in tensors.items():
            self.set_tensor(name, value)
        self.recompile()
        self.eval()

    @classmethod
    def of(
        cls,
        module: GraphModule,
        paths: Sequence[str],
        shapes: Shapes,
        aliases: dict[str, str],
        gates: Sequence[Gate],
    ) -> GraphNetwork:
        """Return the network of a module that `torch.export` made.

        Args:
            module: the module, which is left unchanged.
            paths: paths of the modules of the network.
            shapes: the inputs for which the graph was exported.
            aliases: every path of a module -> its first path.
            gates: its gates. Its nodes do not have their names yet.
        """
        graph, known = copy_graph(module.graph)
        for node in list(graph.nodes):
            is_unread = node.op == "get_attr" and not node.users
            if is_unread or (node.op == "call_module" and node.target == "_guards_fn"):
                graph.erase_node(node)
        for node in known.values():
            stack = (node.meta.get("nn_module_stack") or {}).items()
            calls = [(key, value[0].partition("@")[0]) for key, value in stack]
            if calls and all(path in aliases for _, path in calls):
                node.meta["calls"] = tuple((key, aliases[path]) for key, path in calls if path)
        return cls(
            graph, {name: _find(module, name) for name in _names(graph)}, paths, shapes, gates
        )

    @property
    def gates(self) -> list[Gate]:
        """The gates that are nodes of the graph, in the order in which they multiply."""
        sites = self.sites
        return [gate for gate in self.all_gates if gate.name in sites]

    @property
    def sites(self) -> dict[str, list[tuple[Node, Meeting]]]:
        """Name of a gate -> the nodes that multiply by it."""
        found: dict[str, list[tuple[Node, Meeting]]] = {}
        for node in self.exported_graph.nodes:
            for meeting in meetings_of(node):
                found.setdefault(meeting.gate, []).append((node, meeting))
        return found

    def expect_gate(self, name: str) -> None:
        """Refuse a name that is not that of a gate.

        Raises:
            InputError: AS401, there is no such gate.
        """
        names = [gate.name for gate in self.gates]
        if name not in names:
            raise InputError(
                "AS401",
                f"the network has no gate '{name}'; its gates are {', '.join(names) or 'none'}",
            )

    def with_graph(self, graph: Graph | None = None) -> GraphNetwork:
        """Return a network that shares the tensors.

        Args:
            graph: the graph that it runs. Default: a copy of the graph.
        """
        graph = copy_graph(self.exported_graph)[0] if graph is None else graph
        return self._with(graph, lambda value: value)

    def with_only(self, gates: Sequence[Gate] | None, args: tuple[Any, ...]) -> GraphNetwork:
        """Return a network that shares the tensors, with some of the gates.

        Args:
            gates: gates of this network. Default: all.
            args: inputs that it must take.

        Raises:
            InputError: AS417, it has no such gate; AS418, the inputs have other shapes.
        """
        self._check(args, {})
        copied = self.with_graph()
        if gates is not None:
            sites = copied.sites
            missing = [gate.name for gate in gates if gate.name not in sites]
            if missing:
                raise no_node(missing[0])
            copied.all_gates = tuple(gates)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphNetwork:
        graph = copy_graph(self.exported_graph)[0]
        return self._with(graph, lambda value: copy.deepcopy(value, memo))

    def _with(self, graph: Graph, take: Callable[[Any], Any]) -> GraphNetwork:
        tensors = {name: take(self.tensor(name)) for name in _names(graph)}
        return GraphNetwork(graph, tensors, self.module_paths, self.input_shapes, self.all_gates)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network.

        Raises:
            InputError: AS418, the inputs have other shapes than those for which it was exported.
        """
        self._check(args, kwargs)
        if self.server is not None or self._is_hooked():
            return _Runner(self, self._plan).run_calls(args, kwargs)
        return self._code(self, *args, **kwargs)

    def set_tensor(self, name: str, value: Any) -> None:
        """Set a parameter, a buffer or another object that the graph reads."""
        path, _, attribute = name.rpartition(".")
        part = self._part(path)
        for table in (part._parameters, part._buffers, part._modules):
            table.pop(attribute, None)
        if isinstance(value, (nn.Parameter, nn.Module)):
            setattr(part, attribute, value)
        elif isinstance(value, Tensor):
            part.register_buffer(attribute, value)
        else:
            setattr(part, attribute, value)

    def tensor(self, name: str) -> Any:
        """Return a parameter, a buffer or another object that the graph reads."""
        return _find(self, name)

    def drop_unread(self) -> None:
        """Remove the parameters and buffers that no operation reads."""
        read = {node.target for node in self.exported_graph.nodes if node.op == "get_attr"}
        for path, part in self.named_modules():
            for table in (part._parameters, part._buffers):
                for name in list(table):
                    if (f"{path}.{name}" if path else name) not in read:
                        del table[name]

    def recompile(self) -> None:
        """Follow a change of the graph."""
        self.exported_graph.lint()
        info = structure_of(self.exported_graph)
        self._in_spec, self._out_spec = info.in_spec, info.out_spec  # the code reads them
        # A module of torch.fx compiles the code. It is not kept, since it holds the tensors, too.
        module = GraphModule(self, copy_graph(self.exported_graph)[0])
        self._code: Callable[..., Any] = type(module).forward
        self._plan = plan_calls(self.exported_graph)

    def as_graph_module(self) -> GraphModule:
        """Return a module of `torch.fx` that shares graph and tensors."""
        module = GraphModule(self, self.exported_graph)
        return module.eval()

    def _part(self, path: str) -> nn.Module:
        part: nn.Module = self
        for name in path.split(".") if path else ():
            child = part._modules.get(name)
            if child is None:
                child = Part().eval()
                part.add_module(name, child)
            part = child
        return part

    def _is_hooked(self) -> bool:
        if torch_modules._has_any_global_hook():  # type: ignore[no-untyped-call]
            return True
        return any(
            each._forward_hooks or each._forward_pre_hooks
            for each in self.modules()
            if each is not self
        )

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse inputs for which the graph may compute something else than the network."""
        given = Inputs(args, kwargs).tensors
        if len(given) == len(self.input_shapes) and all(
            tensor.dtype == dtype
            and len(shape) == tensor.ndim
            and all(size in (None, own) for size, own in zip(shape, tensor.shape, strict=True))
            for tensor, (shape, dtype) in zip(given, self.input_shapes, strict=True)
        ):
            return
        got = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in given)
        raise InputError(
            "AS418",
            f"the graph takes {describe_shapes(self.input_shapes)}, but the input is {got}; "
            "use images of that size and precision, or export the network on such images",
        )


def _names(graph: Graph) -> list[str]:
    """Return the names of what a graph reads."""
    return [str(node.target) for node in graph.nodes if node.op in ("get_attr", "call_module")]


def _find(module: nn.Module, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


class GateServer(Protocol):
    """Reads or edits the gates of a graph while it runs."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before each forward."""

    def meet_node(self, meeting: Meeting, operand: Tensor, features: Tensor | None) -> Tensor:
        """Called before a gate multiplies. Returns the operand that is used instead."""

    def finish(self, output: Any) -> None:
        """Called after each forward."""


class _Runner(Interpreter):
    """Runs a graph through the modules in whose place its operations are."""

    def __init__(self, network: GraphNetwork, plan: Call) -> None:
        super().__init__(network, graph=network.exported_graph)
        self._network = network
        self._graph = network.exported_graph
        self._root = plan

    def run_calls(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the graph, and return what the network returns."""
        server = self._network.server
        if server is not None:
            server.begin(args, kwargs)
        self.args_iter = iter(torch.utils._pytree.tree_leaves((args, kwargs)))
        for node in self._graph.nodes:
            if node.op in ("placeholder", "get_attr"):
                self.env[node] = self.run_node(node)
        self._run(self._root)
        output = next(node for node in self._graph.nodes if node.op == "output")
        result = self._graph.process_outputs(self.run_node(output))
        if server is not None:
            server.finish(result)
        return result

    def run_node(self, n: Node) -> Any:
        server = self._network.server
        if server is None or not meetings_of(n):
            return super().run_node(n)
        before: dict[Node, Any] = {}
        try:
            for meeting in meetings_of(n):
                operand = meeting.operand(n)
                before.setdefault(operand, self.env[operand])
                place = meeting.features_of(n)
                features = None if place is None else self.env[place]
                self.env[operand] = server.meet_node(meeting, self.env[operand], features)
            return super().run_node(n)
        finally:  # other operations read the gate as it is
            self.env.update(before)

    def _run(self, call: Call) -> Any:
        for item in call.items:
            if isinstance(item, Call):
                part = self._network.get_submodule(item.path)
                returned = part(lambda item=item: self._run(item))
                # A hook may have put another value in the place of that of the module.
                values = (returned,) if len(item.outputs) == 1 else returned
                self.env.update(zip(item.outputs, values, strict=False))
            else:
                self.env[item] = self.run_node(item)
                for node in self.user_to_last_uses.get(item, ()):
                    self.env.pop(node, None)
        values = tuple(self.env.get(node) for node in call.outputs)
        return values[0] if len(values) == 1 else values
