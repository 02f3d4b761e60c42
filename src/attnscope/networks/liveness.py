"""Which channels of a graph are needed, if some gates are constants with zeros.

A channel that a constant multiplies by 0 is 0 for every image. Whatever reads it may leave it out,
if the algebra allows this exactly, and so may whatever computed it, if nothing else reads that.

Each operation has at most one axis of channels. Two passes follow it: forward, which channels have
one known value for all images and positions; backward, which channels are read. A convolution or a
linear layer needs no channel that is known to be 0, and no other known channel either if it does
not pad, since its bias can take what the channel adds. Operations that work on each channel alone
need those channels that are read from their result. A sum needs no channel of a summand that is
known to be 0, if the layer that computes the summand can do without it: zeros take its place. All
others need every channel.

More than 400 lines because both passes know the same of each operation.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.graph_nodes import meetings_of
from attnscope.networks.absorption import BATCH_NORMS, CONVOLUTIONS
from attnscope.networks.graph_tensors import is_constant, value_of
from attnscope.networks.scales import kept_axes, rank_of, shape_of

aten = torch.ops.aten

_POINTWISE = {
    getattr(aten, name).default
    for name in (
        *("relu", "relu6", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "mish"),
        *("hardtanh", "elu", "leaky_relu", "softplus", "clamp", "clamp_min", "clamp_max", "abs"),
        *("exp", "neg", "square", "selu", "celu", "log_sigmoid"),
    )
    if hasattr(aten, name)
}
BINARY = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def group_count(layer: Node) -> int:
    """Return the number of groups of a convolution."""
    return int(layer.args[6]) if len(layer.args) > 6 else 1  # type: ignore[arg-type]


def pads(layer: Node) -> bool:
    """Return whether a convolution adds zeros at the borders."""
    given = layer.args[4] if len(layer.args) > 4 else 0
    if isinstance(given, str):
        return given != "valid"
    sizes = given if isinstance(given, (list, tuple)) else [given]
    return any(size != 0 for size in sizes)


class Liveness:
    """Which channels of each operation are known, and which are needed.

    Args:
        network: The network. It is not changed.
        zeros: An operation -> the channels of its result that are 0 for every image: ``(axis,
            mask)``.
        keeps_one: Whether at least one channel of each operation stays.

    Attributes:
        axis: An operation -> the axis of its channels.
        repeats: A view that merges the channels with the axes behind them -> the number of entries
            of each channel.
        known: An operation -> the value of each channel, float64, NaN where it is not known.
        wanted: An operation -> whether each channel is read.
        need: Whether each channel stays.
        filled: A summand, and the sum that gets zeros in place of channels that the summand lacks.
    """

    def __init__(
        self,
        network: GraphNetwork,
        zeros: Mapping[Node, tuple[int, Tensor]],
        *,
        keeps_one: bool = True,
    ) -> None:
        self._network, self._zeros = network, zeros
        self.axis: dict[Node, int] = {}
        self.repeats: dict[Node, int] = {}
        self.known: dict[Node, Tensor] = {}
        self.wanted: dict[Node, Tensor] = {}
        self.need: dict[Node, Tensor] = {}
        nodes = [node for node in network.exported_graph.nodes if node.op == "call_function"]
        for node in nodes:
            axis = self._axis_of(node)
            if axis is not None and isinstance(_shape(node)[axis], int):
                self.axis[node] = axis
                self.known[node] = self._known_of(node)
        self.filled = {
            (each, node)
            for node in nodes
            if node in self.axis and self._is_sum(node)
            for each in node.all_input_nodes
            if self.has_channels(each, node) and self._has_own_layer(each)
        }
        for node in reversed(nodes):
            if node in self.axis:
                need = self._need_of(node)
                self.wanted[node] = need
                if keeps_one and not bool(need.any()):  # no operation can have no channel
                    need = need.clone()
                    need[: self.repeats.get(node, 1)] = True
                self.need[node] = need
        for node in nodes:
            # Selecting channels would cost more than an operation like these on all of them.
            first = node.args[0] if node.args else None
            if node in self.need and first in self.need and self._keeps_all(node):
                mapped = self.need[first]
                self.need[node] = self.need[node] | mapped.repeat_interleave(
                    self.repeats.get(node, 1)
                )

    def _keeps_all(self, node: Node) -> bool:
        """Return whether an operation works on each channel of its first argument alone."""
        is_layer = node.target in CONVOLUTIONS or node.target is aten.linear.default
        return not is_layer and node.target not in BINARY and node.target is not aten.cat.default

    def channels(self, node: Node) -> int:
        """Return the number of channels of an operation with an axis of channels."""
        return int(_shape(node)[self.axis[node]])

    def is_depthwise(self, layer: Node) -> bool:
        """Return whether each channel of a convolution is computed from that channel alone."""
        count = shape_of(layer)[1]
        return group_count(layer) == count == shape_of(layer.args[0])[1]  # type: ignore[arg-type]

    def _is_grouped(self, layer: Node) -> bool:
        """Return whether several channels of a convolution are computed from several others."""
        is_convolution = layer.target in CONVOLUTIONS
        return is_convolution and group_count(layer) != 1 and not self.is_depthwise(layer)

    def has_channels(self, given: Any, node: Node) -> bool:
        """Return whether the channels of an argument are those of the operation."""
        if not isinstance(given, Node) or given not in self.axis:
            return False
        return (
            rank_of(given) == rank_of(node)
            and self.axis[given] == self.axis[node]
            and self.channels(given) == self.channels(node)
        )

    def covers(self, given: Any, node: Node) -> bool:
        """Return whether an argument of an operation differs between the operation's channels."""
        if not isinstance(given, Node):
            return False
        place = self.axis[node] - rank_of(node) + rank_of(given)
        return place >= 0 and shape_of(given)[place] != 1

    def demand(self, user: Node, node: Node) -> Tensor:
        """Return which channels of an operation another one reads, as a mask."""
        every = torch.ones(self.channels(node), dtype=torch.bool)
        if user not in self.axis or any(m.operand(user) is node for m in meetings_of(user)):
            return every
        if user.target in CONVOLUTIONS or user.target is aten.linear.default:
            if user.args[0] is not node or list(user.args).count(node) > 1:
                return every
            if user.target in CONVOLUTIONS and self.is_depthwise(user):
                return self.need[user] if self.axis[node] == 1 else every
            wanted = 1 if user.target in CONVOLUTIONS else rank_of(node) - 1
            is_grouped = user.target in CONVOLUTIONS and group_count(user) != 1
            if self.axis[node] != wanted or is_grouped:
                return every
            known = self.known[node]
            is_padded = user.target in CONVOLUTIONS and pads(user)
            return known.isnan() | (known != 0) if is_padded else known.isnan()
        if user.target is aten.cat.default:
            found = ~every
            start = 0
            for part in user.args[0]:  # type: ignore[union-attr]
                stop = start + self.channels(part)  # type: ignore[arg-type]
                if part is node:
                    found = found | self.need[user][start:stop]
                start = stop
            return found
        if user in self.repeats:
            return self.need[user].reshape(len(every), -1).any(1)
        if user.target in BINARY and not self.has_channels(node, user):
            return every
        if (node, user) in self.filled:
            return self.need[user] & (self.known[node] != 0)
        return self.need[user]

    def why(self, node: Node, channel: int) -> str:
        """Return in words what reads a channel; empty if it is not known."""
        for user in node.users:
            if user.op == "output":
                return "the network returns it"
            if not bool(self.demand(user, node)[channel]):
                continue
            gate = next((m.gate for m in meetings_of(user)), None)
            if user not in self.axis and gate is not None:
                return f"it meets the gate {gate}, which is not constant"
            if user in self.axis and self._is_sum(user):
                return f"it is added to other features{_place(user)}"
            is_layer = user.target in CONVOLUTIONS or user.target is aten.linear.default
            is_alone = not is_layer or self.is_depthwise(user)
            if user not in self.axis or user.target is aten.cat.default or not is_alone:
                return f"{_name(user)} reads it{_place(user)}"
            reason = self.why(user, channel * self.repeats.get(user, 1))
            if reason:
                return reason
        return ""

    def _is_sum(self, node: Node) -> bool:
        return node.target in (aten.add.Tensor, aten.sub.Tensor) and (
            sum(isinstance(each, Node) for each in node.args) == 2
        )

    def _has_own_layer(self, node: Node) -> bool:
        """Return whether a layer has filters that only this result needs.

        Otherwise filling a sum with zeros costs time, and removes nothing.
        """
        while node in self.axis and len(node.users) == 1:
            if node.target is aten.cat.default:
                return False
            is_layer = node.target in CONVOLUTIONS or node.target is aten.linear.default
            if is_layer and not self.is_depthwise(node):
                return not self._is_grouped(node)
            before: Any = node.args[0]
            if node.target in BINARY:
                alike = [each for each in node.args[:2] if self.has_channels(each, node)]
                if len(alike) != 1:
                    return False
                before = alike[0]
            node = before
        return False

    def _axis_of(self, node: Node) -> int | None:
        """Return the axis of the channels of an operation, or None if they must stay."""
        is_tensor = bool(node.args) and bool(_shape(node))
        if not is_tensor or (node.kwargs and node.target not in _POINTWISE):
            return None
        if any(self._varies(m.operand(node), node) or m.aligned for m in meetings_of(node)):
            return None
        first = node.args[0]
        if node.target in CONVOLUTIONS or node.target is aten.linear.default:
            if not all(is_constant(self._network, each) for each in node.args[1:3] if each):
                return None
            return 1 if node.target in CONVOLUTIONS else rank_of(node) - 1
        if node.target is aten.cat.default:
            return self._axis_of_parts(node)
        if node.target is operator.getitem:
            is_norm = isinstance(first, Node) and first.target in BATCH_NORMS
            return 1 if is_norm and node.args[1] == 0 else None
        if node.target in BATCH_NORMS:
            return self._axis_of_norm(node)
        if node.target in BINARY:
            same = [
                each
                for each in node.args
                if isinstance(each, Node) and each in self.axis and shape_of(each) == shape_of(node)
            ]
            axes = {self.axis[each] for each in same}
            return axes.pop() if len(axes) == 1 else None
        if not isinstance(first, Node) or first not in self.axis:
            return None
        if node.target in _POINTWISE:
            return self.axis[first]
        kept = kept_axes(node)
        if kept is None:
            return None
        found = kept.get(self.axis[first])
        return self._merged_axis(node, first) if found is None else found

    def _varies(self, operand: Node, node: Node) -> bool:
        """Return whether a gate has several values along any axis that may be that of channels."""
        axes = {self.axis[each] for each in node.all_input_nodes if each in self.axis}
        for axis in axes:
            place = axis - rank_of(node) + rank_of(operand)
            if place >= 0 and shape_of(operand)[place] != 1:
                return True
        return False

    def _axis_of_parts(self, node: Node) -> int | None:
        parts: Any = node.args[0]
        axis = int(node.args[1]) % rank_of(node) if len(node.args) > 1 else 0  # type: ignore[arg-type]
        return axis if all(self.axis.get(each) == axis for each in parts) else None

    def _axis_of_norm(self, node: Node) -> int | None:
        first = node.args[0]
        if not isinstance(first, Node) or self.axis.get(first) != 1:
            return None
        if node.target is not aten._native_batch_norm_legit_no_training.default and node.args[5]:
            return None
        stored = [each for each in node.args[1:5] if each is not None]
        return 1 if all(is_constant(self._network, each) for each in stored) else None

    def _merged_axis(self, node: Node, first: Node) -> int | None:
        """Return the axis into which a view merges the channels with the axes behind them."""
        before, after = shape_of(first), shape_of(node)
        axis = self.axis[first]
        if len(after) <= axis or before[:axis] != after[:axis]:
            return None
        for stop in range(axis + 1, len(before) + 1):
            merged = before[axis:stop]
            if not all(isinstance(size, int) for size in merged):
                return None
            if prod(merged) == after[axis] and before[stop:] == after[axis + 1 :]:
                self.repeats[node] = prod(merged[1:])  # type: ignore[arg-type]
                return axis
        return None

    def _known_of(self, node: Node) -> Tensor:
        """Return the value of each channel that has only one, and NaN for the others."""
        known = torch.full((self.channels(node),), torch.nan, dtype=torch.float64)
        found = self._computed(node)
        if found is not None:
            known = found.double()
        if node in self._zeros:
            axis, mask = self._zeros[node]
            if axis == self.axis[node]:
                known = torch.where(mask, 0.0, known)
        return known

    def _computed(self, node: Node) -> Tensor | None:
        first: Any = node.args[0]
        if node.target is aten.cat.default:
            return torch.cat([self.known[each] for each in first])
        if node.target in BINARY:
            return self._combined(node)
        if first not in self.known:
            return None
        known = self.known[first]
        if bool(known.isnan().all()):
            return None
        if node.target is operator.getitem:
            return known
        if node.target in CONVOLUTIONS:
            if not self.is_depthwise(node) or self.axis[first] != 1:
                return None
            weight = value_of(self._network, node.args[1]).double().flatten(1).sum(1)  # type: ignore[arg-type]
            bias = _value(self._network, node.args[2] if len(node.args) > 2 else None)
            # At the borders, zeros take the place of the channel.
            known = torch.where(known == 0, known, torch.nan) if pads(node) else known
            return known * weight + (0 if bias is None else bias.double())
        if node.target is aten.linear.default:
            return None
        if node.target in BATCH_NORMS or node.target in _POINTWISE:
            args = [_value(self._network, each) for each in node.args[1:]]
            value = known.to(_dtype(first))[None]
            result = node.target(value, *args, **node.kwargs)  # type: ignore[operator]
            result = result[0] if isinstance(result, tuple) else result
            return torch.where(known.isnan(), torch.nan, result[0].double())
        zero = torch.where(known == 0, known, torch.nan)
        return zero.repeat_interleave(self.repeats[node]) if node in self.repeats else zero

    def _combined(self, node: Node) -> Tensor | None:
        """Return the known values of a sum or of a product."""
        given = [
            self.known[each] if isinstance(each, Node) and self.has_channels(each, node) else each
            for each in node.args[:2]
        ]
        is_product = node.target in (aten.mul.Tensor, aten.div.Tensor)
        if node.target is aten.mul.Tensor:
            zero = [each == 0 for each in given if isinstance(each, Tensor)]
            masks = torch.stack(zero).any(0)
            return torch.where(masks, 0.0, torch.nan)
        left, right = given
        if not isinstance(left, Tensor) or isinstance(right, Node) or node.kwargs:
            return None
        if is_product and isinstance(right, Tensor):
            return None
        found: Tensor = node.target(left, right)  # type: ignore[operator]
        return found

    def _need_of(self, node: Node) -> Tensor:
        need = torch.zeros(self.channels(node), dtype=torch.bool)
        if self._is_grouped(node):  # each group has as many filters
            return ~need
        for user in node.users:
            need |= self.demand(user, node)
        if node in self.repeats:
            need = need.reshape(-1, self.repeats[node]).any(1).repeat_interleave(self.repeats[node])
        return need


def _shape(node: Node) -> tuple[int | str, ...]:
    """Return the sizes of a result; of a norm with several results, those of the first."""
    first = node.args[0] if node.args else None
    is_norm = node.target in BATCH_NORMS and isinstance(first, Node)
    return shape_of(first if is_norm else node)  # type: ignore[arg-type]


def _value(network: GraphNetwork, given: Any) -> Any:
    return value_of(network, given).detach() if isinstance(given, Node) else given


def _dtype(node: Node) -> torch.dtype:
    found: torch.dtype = node.meta["val"].dtype
    return found


def _place(node: Node) -> str:
    calls: Sequence[tuple[str, str]] = node.meta.get("calls") or ()
    return f" in {calls[-1][1]}" if calls else ""


def _name(node: Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]
