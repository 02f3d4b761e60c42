"""Multiply a constant scale of channels into the layers around it, where that is exact.

``c * (w * x + b) = (c * w) * x + c * b``, so a layer whose result only the multiplication reads can
take the scale. So can all layers together that read the product, if each of them is linear in it:
``w * (c * x) = (w * c) * x``, per group for grouped and depthwise convolutions, and also where a
convolution pads with zeros. Between the layer and the multiplication may be operations that a scale
passes (`attnscope.networks.scales`). Everything else is left as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.graph_nodes import Meeting, meetings_of
from attnscope.networks.graph_tensors import is_own, put, value_of
from attnscope.networks.scales import Scale, passes, rank_of, shape_of

aten = torch.ops.aten
Change = Callable[[], None]
"""Writes the weights of one layer."""

CONVOLUTIONS = {
    *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
    *(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding),
}
BATCH_NORMS = {
    aten.batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.native_batch_norm.default,
}


class Absorber:
    """Multiplies scales into the layers of one network.

    Args:
        network: The network, whose graph and tensors are changed.
    """

    def __init__(self, network: GraphNetwork) -> None:
        self.network = network
        self.written: list[str] = []
        """Names of the tensors that were replaced."""

    def absorb(self, product: Node, features: Node, scale: Scale) -> str | None:
        """Remove a multiplication of features by a scale.

        Args:
            product: The multiplication.
            features: Its argument that is scaled.
            scale: The scale, with the axes of the product.

        Returns:
            ``before`` or ``after``: where the layers are that took the scale. None if there are
            none; nothing is changed then.
        """
        if shape_of(features) != shape_of(product):
            return None
        for side in ("before", "after"):
            if side == "before":
                changes = self._before(features, product, scale)
            else:
                changes = self._after(product, scale)
            if changes is None:
                continue
            for change in changes:
                change()
            replace_uses(product, features)
            self.network.exported_graph.erase_node(product)
            return side
        return None

    def _before(self, node: Node, user: Node, scale: Scale) -> list[Change] | None:
        """Return the changes that scale what one operation reads of a node."""
        if list(node.users) != [user] or _is_gate_of(node, user):
            return None
        layer = self._scaled_result(node, scale)
        if layer is not None:
            return layer
        if node.op != "call_function":
            return None
        if node.target is aten.add.Tensor:
            return self._all_before(node, scale, [(each, scale) for each in node.args])
        if node.target is aten.cat.default:
            return self._all_before(node, scale, _split(node, scale))
        if node.target in (aten.mul.Tensor, aten.div.Tensor):
            if len(node.all_input_nodes) < sum(isinstance(each, Node) for each in node.args):
                return None  # a square, or a quotient that is one
            for each in node.args[:1] if node.target is aten.div.Tensor else node.args:
                if isinstance(each, Node) and shape_of(each) == shape_of(node):
                    found = self._before(each, node, scale)
                    if found is not None:
                        return found
            return None
        passed = passes(node, scale, backward=True)
        first = node.args[0] if node.args else None
        if passed is None or not isinstance(first, Node):
            return None
        return self._before(first, node, passed)

    def _all_before(
        self, node: Node, scale: Scale, parts: list[tuple[Any, Scale]] | None
    ) -> list[Change] | None:
        """Return the changes that scale all arguments of a sum or of a concatenation."""
        changes: list[Change] = []
        if parts is None or len({id(each) for each, _ in parts}) < len(parts):
            return None
        for each, own in parts:
            if not isinstance(each, Node) or rank_of(each) != rank_of(node) or node.kwargs:
                return None
            if node.target is aten.add.Tensor and shape_of(each) != shape_of(node):
                return None
            found = self._before(each, node, own)
            if found is None:
                return None
            changes += found
        return changes

    def _scaled_result(self, node: Node, scale: Scale) -> list[Change] | None:
        """Return the changes that scale the result of a layer; None if it is no such layer."""
        layer = node
        if node.target is operator.getitem and node.args[1] == 0:
            layer = node.args[0]  # type: ignore[assignment]
            if list(layer.users) != [node]:
                return None
        if layer.target in CONVOLUTIONS:
            axis, places = 1, (1, 2)
        elif layer.target is aten.linear.default:
            axis, places = rank_of(node) - 1, (1, 2)
        elif layer.target in BATCH_NORMS:
            axis, places = 1, (1, 2)
        elif layer.target is aten.group_norm.default:
            axis, places = 1, (2, 3)
        elif layer.target is aten.layer_norm.default and len(layer.args[1]) == 1:  # type: ignore[arg-type]
            axis, places = rank_of(node) - 1, (2, 3)
        else:
            return None
        is_norm = layer.target not in CONVOLUTIONS and layer.target is not aten.linear.default
        factors = scale.along(axis, shape_of(node)[axis])
        changes: list[Change] = []
        for place in places:
            given = layer.args[place] if len(layer.args) > place else None
            if given is None and (is_norm or place == places[0]):
                return None  # a norm without a weight cannot take a scale
            if given is None:
                continue
            if factors is None or not is_own(self.network, given):
                return None
            changes.append(self._writes(layer, place, factors, 0))
        return changes

    def _after(self, node: Node, scale: Scale) -> list[Change] | None:
        """Return the changes by which all that read a node scale it themselves."""
        changes: list[Change] = []
        for user in node.users:
            found = self._scaled_argument(user, node, scale)
            if found is None:
                return None
            changes += found
        return changes if node.users else None

    def _scaled_argument(self, user: Node, node: Node, scale: Scale) -> list[Change] | None:
        if user.op != "call_function" or _is_gate_of(node, user):
            return None
        if user.args[0] is node and list(user.args).count(node) == 1:
            if user.target in CONVOLUTIONS:
                return self._scaled_input(user, scale, 1)
            if user.target is aten.linear.default:
                return self._scaled_input(user, scale, rank_of(node) - 1)
            passed = passes(user, scale)
            if passed is not None:
                return self._after(user, passed)
        places = [place for place, each in enumerate(user.args) if each is node]
        is_factor = user.target is aten.mul.Tensor or (
            user.target is aten.div.Tensor and places == [0]
        )
        if is_factor and len(places) == 1 and shape_of(node) == shape_of(user):
            return self._after(user, scale)  # (s * x) * y = s * (x * y)
        return None

    def _scaled_input(self, layer: Node, scale: Scale, axis: int) -> list[Change] | None:
        """Return the change that scales the input of a convolution or of a linear layer."""
        weight, given = layer.args[1], layer.args[0]
        assert isinstance(given, Node)
        factors = scale.along(axis, shape_of(given)[axis])
        if factors is None or not is_own(self.network, weight):
            return None
        groups = 1
        if layer.target in CONVOLUTIONS:
            groups = int(layer.args[6]) if len(layer.args) > 6 else 1  # type: ignore[arg-type]
        # A weight is (out, in / groups, ...): the group of a row says which inputs it reads.
        assert isinstance(weight, Node)
        rows = value_of(self.network, weight).shape[0] // groups
        table = factors.reshape(groups, -1).repeat_interleave(rows, 0)
        return [self._writes(layer, 1, table if groups > 1 else factors, 0 if groups > 1 else 1)]

    def _writes(self, layer: Node, place: int, factors: Tensor, axis: int) -> Change:
        """Return the change that multiplies an argument of a layer by factors.

        Args:
            layer: The layer.
            place: Position of the argument.
            factors: float64; its axes are those of the argument from ``axis`` on.
            axis: The first axis of the argument along which the factors vary.
        """

        def write() -> None:
            node = layer.args[place]
            assert isinstance(node, Node)
            value = value_of(self.network, node)
            shape = [1] * axis + list(factors.shape)
            shape += [1] * (value.ndim - len(shape))
            scaled = (value.detach().double() * factors.to(value.device).reshape(shape)).to(value)
            parameter = nn.Parameter(scaled, requires_grad=False)
            self.written.append(put(self.network, layer, place, parameter, "folded"))

        return write


def _is_gate_of(node: Node, user: Node) -> bool:
    """Return whether an operation multiplies by a node as a gate, which keeps its values."""
    return any(meeting.operand(user) is node for meeting in meetings_of(user))


def _split(node: Node, scale: Scale) -> list[tuple[Any, Scale]] | None:
    """Return the scale of each part of a concatenation."""
    parts: Any = node.args[0]
    rank = rank_of(node)
    axis = int(node.args[1]) % rank if len(node.args) > 1 else 0  # type: ignore[arg-type]
    if scale.axis != axis:
        return [(each, scale) for each in parts]
    given = [shape_of(each)[axis] for each in parts]
    sizes = [size for size in given if isinstance(size, int)]
    if len(sizes) < len(given):
        return None
    values = torch.split(scale.values, sizes)
    return [(each, Scale(own, axis)) for each, own in zip(parts, values, strict=True)]


def replace_uses(old: Node, new: Node) -> None:
    """Let all that read one node read another, and keep the gates of their multiplications."""
    before = {user: _resolved(user) for user in old.users}
    old.replace_all_uses_with(new)
    for user, meetings in before.items():
        _set_meetings(user, meetings, old, new)


def replace_gate(node: Node, gate: str, new: Node) -> None:
    """Let a node multiply by another one in place of a gate, which then is no gate of it."""
    old = next(each.operand(node) for each in meetings_of(node) if each.gate == gate)
    meetings = [each for each in _resolved(node) if each[0].gate != gate]
    node.replace_input_with(old, new)
    _set_meetings(node, meetings, old, new)


_Resolved = list[tuple[Meeting, Node, Node | None]]


def _resolved(node: Node) -> _Resolved:
    """Return the gates of a node with the nodes of their operands and features."""
    return [(each, each.operand(node), each.features_of(node)) for each in meetings_of(node)]


def _set_meetings(node: Node, meetings: _Resolved, old: Node, new: Node) -> None:
    """Set the gates of a node in which one argument was replaced."""
    places = {each: place for place, each in enumerate(node.all_input_nodes)}
    places[old] = places.get(old, places[new])
    node.meta["gates"] = tuple(
        replace(
            meeting,
            position=places[operand],
            features=None if features is None else places[features],
        )
        for meeting, operand, features in meetings
    )
