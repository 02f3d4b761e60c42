"""Tensors of a graph that do not depend on the input: read, computed, and replaced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from attnscope.gates.graph_network import GraphNetwork


def is_constant(network: GraphNetwork, node: Any) -> bool:
    """Return whether a node is a stored tensor, or is computed from stored tensors only."""
    if not isinstance(node, Node):
        return False
    if node.op == "get_attr":
        return isinstance(network.tensor(str(node.target)), Tensor)
    inputs = node.all_input_nodes  # without inputs it may be a random number
    return (
        node.op == "call_function"
        and bool(inputs)
        and all(is_constant(network, each) for each in inputs)
    )


def is_own(network: GraphNetwork, node: Any) -> bool:
    """Return whether a tensor does not depend on the input, and only one operation reads it."""
    if not isinstance(node, Node) or len(node.users) != 1:
        return False
    if node.op == "get_attr":
        tensor = network.tensor(str(node.target))
        same = [
            each
            for each in network.exported_graph.nodes
            if each.op == "get_attr" and network.tensor(str(each.target)) is tensor
        ]
        return isinstance(tensor, Tensor) and same == [node]
    return is_constant(network, node)


def value_of(network: GraphNetwork, node: Node) -> Tensor:
    """Compute a node that does not depend on the input."""
    if node.op == "get_attr":
        value = network.tensor(str(node.target))
        assert isinstance(value, Tensor)
        return value

    def computed(each: Node) -> Tensor:
        return value_of(network, each)

    args = map_arg(node.args, computed)
    kwargs = map_arg(node.kwargs, computed)
    with torch.no_grad():
        result: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return result


def put(network: GraphNetwork, layer: Node, place: int, value: Tensor, kind: str) -> str:
    """Replace a tensor that an operation reads, and return its name.

    A tensor that other operations read, too, and one that is computed, as by weight
    standardization, are left as they are. The new one is stored beside the operation.

    Args:
        network: The network.
        layer: The operation.
        place: The position of the argument.
        value: The new tensor; an `nn.Parameter` becomes a parameter, and else it is a buffer.
        kind: The first part of a new name.
    """
    node = layer.args[place] if len(layer.args) > place else None
    if isinstance(node, Node) and node.op == "get_attr" and is_own(network, node):
        name = str(node.target)
        node.meta["val"] = value
    else:
        calls = layer.meta.get("calls") or ()
        name = ".".join([*(path for _, path in calls[-1:]), f"{kind}_{layer.name}_{place}"])
        with network.exported_graph.inserting_before(layer):
            stored = network.exported_graph.get_attr(name)
        stored.meta = {"val": value, "calls": layer.meta.get("calls")}
        layer.args = (*layer.args, *[None] * (place + 1 - len(layer.args)))
        layer.update_arg(place, stored)
    network.set_tensor(name, value)
    return name
