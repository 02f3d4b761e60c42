"""Fold gates of any network: constants in place of nodes of its exported graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from attnscope.errors import InputError
from attnscope.gates.axes import parse_layout
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.graph_nodes import Meeting, meetings_of
from attnscope.gates.values import as_factor
from attnscope.kinds import MAP, Gate
from attnscope.networks.absorption import Absorber, replace_gate
from attnscope.networks.pruning import PrunedGate, prunable_channels, prune_channels
from attnscope.networks.scales import Scale, rank_of

aten = torch.ops.aten
CONSTANTS = "folded_gates"
"""The module in which constants are stored."""


@dataclass(frozen=True)
class GraphFold:
    """A network in which some gates are constant."""

    network: GraphNetwork
    """The folded network. It shares the tensors that did not change."""
    forms: dict[str, str]
    """Name of a folded gate -> what became of it.

    ``before`` or ``after``: it is multiplied into the layers before or after it; ``stored``: it is
    stored and multiplies as before; ``unused``: it acted on another folded gate only."""
    unused: list[str]
    """Names of other gates that acted on folded gates only."""
    written: dict[str, Tensor]
    """The weights that took constants, by name."""
    pruned: dict[str, PrunedGate] = field(default_factory=dict)
    """Name of a folded gate with zeros -> which of these channels were removed."""
    narrowed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Name of a tensor from which channels were removed -> its shape."""


def fold_graph(
    network: GraphNetwork, constants: Mapping[str, Tensor], *, prune: bool = False
) -> GraphFold:
    """Return a copy of a network in which some gates are constant.

    Its output is that of the network under an `attnscope.edit_gates` that replaces these gates by
    the constants, except for rounding. What computed them is removed. A constant with one value per
    channel is multiplied into the layers around it where that is exact
    (`attnscope.networks.absorption`); other constants are stored.

    Args:
        network: A network of `attnscope.gates.graph.export_gates`. It is left unchanged.
        constants: Name of a gate -> its values without the axis of images, such as ``(C,)`` for a
            channel gate and ``(H, W)`` for a spatial gate.
        prune: Whether to remove channels whose constant is 0, with the filters that compute them,
            where that is exact (`attnscope.networks.pruning`).

    Raises:
        InputError: The network has no gate of a name (AS401), a constant has another shape than the
            gate (AS370) or is not finite (AS371), or the gate cannot be constant for any number of
            images (AS372).
    """
    folded = network.with_graph()
    graph = folded.exported_graph
    gates = {gate.name: gate for gate in folded.gates}
    order = [name for name in gates if name in constants]
    inserted = _insert_constants(folded, constants)
    pruned, narrowed = prune_channels(folded, inserted) if prune else ({}, {})
    absorber = Absorber(folded)
    forms: dict[str, str] = {}
    for name in order:
        found = set()
        for node, constant in inserted[name]:
            found.add(_absorb(absorber, node, constant))
        forms[name] = "unused" if not found else found.pop() if len(found) == 1 else "stored"
    graph.eliminate_dead_code()
    folded.drop_unread()
    folded.recompile()
    remaining = {gate.name for gate in folded.gates}
    unused = [name for name in gates if name not in constants and name not in remaining]
    written = {name: folded.tensor(name) for name in dict.fromkeys(absorber.written)}
    # A tensor that took a constant after it was narrowed has the same shape.
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    narrowed = {name: shape for name, shape in narrowed.items() if name in read}
    return GraphFold(folded, forms, unused, written, pruned, narrowed)


def removable_channels(
    network: GraphNetwork, constants: Mapping[str, Tensor]
) -> dict[str, PrunedGate]:
    """Return which channels of gates could be removed if their constants were 0 there.

    Args:
        network: As for `fold_graph`.
        constants: As for `fold_graph`; these gates are folded together.

    Returns:
        Name of a gate -> what would become of its channels. Gates without one value for each
        channel are left out.

    Raises:
        InputError: As for `fold_graph`.
    """
    folded = network.with_graph()
    return prunable_channels(folded, _insert_constants(folded, constants))


def _insert_constants(
    folded: GraphNetwork, constants: Mapping[str, Tensor]
) -> dict[str, list[tuple[Node, Node]]]:
    """Let nodes multiply by constants in place of gates, and remove what computed the gates.

    Returns:
        Name of a gate -> its multiplications that are left, each with the constant.
    """
    graph = folded.exported_graph
    gates = {gate.name: gate for gate in folded.gates}
    sites = folded.sites
    for name in constants:
        folded.expect_gate(name)
    order = [name for name in gates if name in constants]
    inserted: dict[str, list[tuple[Node, Node]]] = {}
    for number, name in enumerate(order):
        for site, (node, _) in enumerate(sites[name]):
            meeting = next(each for each in meetings_of(node) if each.gate == name)
            values = constants[name].detach()
            operand = _operand(gates[name], values, node, meeting)
            stored = f"{CONSTANTS}.gate{number}" + (f"_{site}" if site else "")
            folded.set_tensor(stored, operand)
            constant = _insert(folded, node, meeting, gates[name], stored, operand)
            replace_gate(node, name, constant)
            inserted.setdefault(name, []).append((node, constant))
    graph.eliminate_dead_code()
    alive = set(graph.nodes)
    return {name: [pair for pair in inserted[name] if alive.issuperset(pair)] for name in order}


def _operand(gate: Gate, values: Tensor, node: Node, meeting: Meeting) -> Tensor:
    """Return a constant as the operation takes it, for one image."""
    shape = tuple(values.shape)
    sample: Tensor = meeting.operand(node).meta["val"]
    try:
        factor = as_factor(values[None], gate)
        operand = meeting.restore(factor)
        fits = operand.ndim <= sample.ndim and values.ndim == _letters(gate)
    except (RuntimeError, IndexError, ValueError):
        fits = False
    if fits:
        sizes = zip(reversed(operand.shape), reversed(sample.shape), strict=False)
        # Only the axis of images may be shorter: there, sizes are symbols.
        fits = all(own == 1 or not isinstance(size, int) or own == size for own, size in sizes)
    if not fits:
        raise InputError(
            "AS370",
            f"the constant for the gate {gate.name} has shape {shape}; it must have the axes "
            f"{gate.axes.replace('N', '') or 'of one number'} of the gate",
        )
    if not bool(torch.isfinite(operand).all()):
        raise InputError(
            "AS371",
            f"the constant for the gate {gate.name} has values that are not finite, or 0 where the "
            "network divides by it; pass other values",
        )
    return operand.to(sample.device, sample.dtype).contiguous()


def _letters(gate: Gate) -> int:
    axes = gate.axes.replace("N", "")
    # Maps of tokens are recorded with rows and columns.
    return len(axes) + (1 if "L" in axes and gate.has(MAP) else 0)


def _rows(operand: Tensor, axis: int, rank: int) -> int:
    """Return the length of an axis of the features in a constant."""
    place = axis - rank + operand.ndim
    return operand.shape[place] if place >= 0 else 1


def _insert(
    network: GraphNetwork, node: Node, meeting: Meeting, gate: Gate, name: str, operand: Tensor
) -> Node:
    """Return a node with the constant for as many images as there are."""
    graph = network.exported_graph
    before = meeting.operand(node)
    features = meeting.features_of(node) or before

    def call(target: Any, *args: Any, value: Any = None) -> Node:
        new = graph.call_function(target, args)
        new.meta = {"calls": node.meta.get("calls"), "val": value}
        return new

    with graph.inserting_before(node):
        constant = graph.get_attr(name)
        constant.meta = {"calls": node.meta.get("calls"), "val": operand}
        layout = parse_layout(gate.layout)
        axis = next((i for i, each in enumerate(layout) if len(each) > 1 and "N" in each), None)
        rows = 1 if axis is None or meeting.aligned else _rows(operand, axis, rank_of(features))
        if axis is not None and rows > 1:
            # Rows of images and groups: the constant holds those of one image.
            token = layout[axis]
            if axis > 0 or "N" not in (token[0], token[-1]):
                raise InputError(
                    "AS372",
                    f"the gate {gate.name} has rows of {token}, which cannot be constant; leave it "
                    "out",
                )
            images = call(aten.sym_size.int, features, 0)
            images = call(operator.floordiv, images, rows)
            if token[0] == "N":
                repeats = [images, *[1] * (operand.ndim - 1)]
                return call(aten.repeat.default, constant, repeats, value=before.meta["val"])
            one = call(aten.unsqueeze.default, constant, 1)
            sizes = [rows, images, *operand.shape[1:]]
            wide = call(aten.expand.default, one, sizes)
            return call(
                aten.reshape.default, wide, [-1, *operand.shape[1:]], value=before.meta["val"]
            )
        if node.target in (aten.bmm.default, aten.baddbmm.default):
            images = call(aten.sym_size.int, features, 0)
            sizes = [images, *operand.shape[1:]]
            return call(aten.expand.default, constant, sizes, value=before.meta["val"])
    return constant


def _absorb(absorber: Absorber, node: Node, constant: Node) -> str:
    """Multiply a constant into the layers around it, and return where it went."""
    value = constant.meta["val"]
    if constant.op != "get_attr" or node.target not in (aten.mul.Tensor, aten.div.Tensor):
        return "stored"
    divides = node.target is aten.div.Tensor
    places = [place for place, each in enumerate(node.args) if each is constant]
    if len(places) != 1 or (divides and places != [1]):
        return "stored"
    features = node.args[1 - places[0]]
    if not isinstance(features, Node) or any(
        m.operand(node) is features for m in meetings_of(node)
    ):
        return "stored"  # the other factor is a gate, whose values stay as they are
    axes = [axis for axis, size in enumerate(value.shape) if size > 1]
    if len(axes) > 1:
        return "stored"
    factors = value.detach().double().flatten()
    axis = axes[0] - value.ndim + rank_of(node) if axes else None
    scale = Scale(1 / factors if divides else factors, axis)
    return absorber.absorb(node, features, scale) or "stored"
