"""Nodes of an exported graph: the gates they multiply by, and the calls of modules they make up."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from attnscope.errors import InputError
from attnscope.gates.ops.operation import Aligned

Shapes = tuple[tuple[tuple[int | None, ...], torch.dtype], ...]
"""Shape and precision of each tensor of the inputs; None stands for the number of images."""


@dataclass(frozen=True)
class Meeting:
    """A gate that a node multiplies by. ``node.meta["gates"]`` holds those of a node."""

    gate: str
    """Name of the gate."""
    position: int
    """Position of the operand among ``node.all_input_nodes``: the gate, or what it is read from."""
    features: int | None = None
    """Position of the features there; None if they are another gate."""
    divides: bool = False
    """Whether the features are divided by the operand, so that the gate is one over it."""
    aligned: Aligned | None = None
    """How the operation makes the gate from the operand, if the operand is not the gate itself."""

    def operand(self, node: Node) -> Node:
        """Return the node of the operand."""
        return node.all_input_nodes[self.position]

    def features_of(self, node: Node) -> Node | None:
        """Return the node of the features; None if they are another gate."""
        return None if self.features is None else node.all_input_nodes[self.features]

    def value(self, operand: Tensor) -> Tensor:
        """Return the gate in the shape in which it multiplies."""
        value = operand if self.aligned is None else self.aligned.read(operand)
        return 1 / value if self.divides else value

    def restore(self, gate: Tensor) -> Tensor:
        """Return the operand for a gate."""
        value = 1 / gate if self.divides else gate
        return value if self.aligned is None else self.aligned.restore(value)


def meetings_of(node: Node) -> tuple[Meeting, ...]:
    """Return the gates that a node multiplies by."""
    found: tuple[Meeting, ...] = node.meta.get("gates", ())
    return found


@dataclass
class Call:
    """The operations of one call of a module."""

    path: str
    key: str
    items: list[Node | Call] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    """The nodes whose values other modules use."""

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes, also those of modules that it calls."""
        for item in self.items:
            yield from item.nodes() if isinstance(item, Call) else (item,)


def no_node(gate: str) -> InputError:
    """Return the refusal of a graph that has no node for a gate."""
    return InputError(
        "AS417",
        f"the gate {gate} is no operation of the exported graph; use the network itself",
    )


def free_shapes(tensors: Sequence[Tensor], batch: int) -> Shapes:
    """Return the shapes of inputs for any number of images.

    Args:
        tensors: the inputs.
        batch: their number of images.
    """
    return tuple(
        (tuple(None if i == 0 and n == batch else n for i, n in enumerate(t.shape)), t.dtype)
        for t in tensors
    )


def describe_shapes(shapes: Shapes) -> str:
    """Return shapes as text, such as ``(N, 3, 32, 32) torch.float32``."""
    texts = []
    for shape, dtype in shapes:
        sizes = ", ".join("N" if size is None else str(size) for size in shape)
        texts.append(f"({sizes}) {dtype}")
    return ", ".join(texts)


def structure_of(graph: Graph) -> Any:
    """Return the structure of the inputs and outputs of an exported graph."""
    return graph._codegen.pytree_info  # type: ignore[attr-defined]


def copy_graph(graph: Graph) -> tuple[Graph, dict[Node, Node]]:
    """Return a copy of a graph, and for each of its nodes that of the copy."""
    new = Graph()
    known: dict[Node, Node] = {}
    result = new.graph_copy(graph, known)
    old = next(node for node in graph.nodes if node.op == "output")
    output = new.output(result)
    output.meta = dict(old.meta)
    known[old] = output
    for before, after in known.items():
        after.meta = dict(before.meta)
    with warnings.catch_warnings():  # torch 2.11 warns about its own class when it is copied
        warnings.simplefilter("ignore", FutureWarning)
        new._codegen = copy.deepcopy(graph._codegen)
    return new, known


def plan_calls(graph: Graph) -> Call:
    """Return the operations of a graph as calls of modules that call each other."""
    root = Call("", "")
    running = [root]
    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr", "output"):
            continue
        calls = node.meta.get("calls")
        if calls is None:  # sizes, which torch computes wherever it likes
            running[-1].items.append(node)
            continue
        depth = 0
        while depth < len(calls) and depth + 1 < len(running):
            if running[depth + 1].key != calls[depth][0]:
                break
            depth += 1
        del running[depth + 1 :]
        for key, path in calls[depth:]:
            call = Call(path, key)
            running[-1].items.append(call)
            running.append(call)
        running[-1].items.append(node)
    _set_outputs(root)
    return root


def _set_outputs(call: Call) -> None:
    own = list(call.nodes())
    inside = set(own)
    used = [node for node in own if any(user not in inside for user in node.users)]
    call.outputs = used or own[-1:]
    for item in call.items:
        if isinstance(item, Call):
            _set_outputs(item)
