"""Remove channels that a constant gate multiplies by 0, with the filters that compute them.

Which channels nothing needs is told by `attnscope.networks.liveness`. Here they are removed: rows
of the weights of the layers that compute them, columns of the weights of the layers that read them,
and their entries in norms and constants. Where a result has more channels than an operation needs,
as that of a convolution before a skip connection, the operation gets those that it needs. Where a
sum has more channels than a summand, it gets zeros for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from attnscope.gates.graph_network import GraphNetwork
from attnscope.networks.absorption import BATCH_NORMS, CONVOLUTIONS
from attnscope.networks.graph_tensors import is_constant, put, value_of
from attnscope.networks.liveness import BINARY, Liveness
from attnscope.networks.scales import rank_of

aten = torch.ops.aten
Sites = Sequence[tuple[Node, Node]]
"""The multiplications by a constant gate, each with the constant."""
ONE_STAYS = "one channel must stay"
_INDICES = "pruned_channels"
"""The module in which the places of channels are stored."""
_VIEWS = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}


@dataclass(frozen=True)
class PrunedGate:
    """What became of the channels of a gate whose constant is 0."""

    removed: tuple[int, ...]
    """Channels that were removed."""
    filters: int
    """For how many of them the features are no longer computed, either."""
    kept: tuple[int, ...]
    """Channels that stay, because something needs them."""
    reason: str = ""
    """What needs the first of the channels that stay."""


def zero_channels(product: Node, constant: Node) -> tuple[int, Tensor] | None:
    """Return the axis of channels of a multiplication, and which of them a constant makes 0.

    Returns:
        ``(axis, mask)``; None if the constant is not one with one value for each channel.
    """
    if constant.op != "get_attr" or product.target is not aten.mul.Tensor:
        return None
    value: Tensor = constant.meta["val"]
    axes = [axis for axis, size in enumerate(value.shape) if size > 1]
    if len(axes) != 1 or list(product.args).count(constant) != 1:
        return None
    return axes[0] - value.ndim + rank_of(product), (value.flatten() == 0).cpu()


def prune_channels(
    network: GraphNetwork, sites: Mapping[str, Sites]
) -> tuple[dict[str, PrunedGate], dict[str, tuple[int, ...]]]:
    """Remove the channels that constants make 0 from a network, where that is exact.

    Args:
        network: The network, which is changed.
        sites: Name of a gate -> the multiplications by its constant.

    Returns:
        What became of the channels of each gate that has any, and the shape of each parameter and
        buffer that was narrowed.
    """
    zeros = {}
    for found in sites.values():
        for product, constant in found:
            zero = zero_channels(product, constant)
            if zero is not None and bool(zero[1].any()):
                zeros[product] = zero
    if not zeros:
        return {}, {}
    live = Liveness(network, zeros)
    pruned = {
        name: _pruned(live, found, zeros)
        for name, found in sites.items()
        if any(each in zeros for each, _ in found)
    }
    return pruned, _Narrower(network, live).run()


def prunable_channels(network: GraphNetwork, sites: Mapping[str, Sites]) -> dict[str, PrunedGate]:
    """Return which channels of each gate could be removed if its constant were 0 there.

    The other gates are taken to have no zeros.

    Args:
        network: The network, which is left unchanged.
        sites: As for `prune_channels`.

    Returns:
        Name of a gate -> what would become of its channels. Gates without one value for each
        channel are left out.
    """
    found = {}
    for name, own in sites.items():
        zeros = {}
        for product, constant in own:
            zero = zero_channels(product, constant)
            if zero is not None:
                zeros[product] = zero[0], torch.ones_like(zero[1])
        if len(zeros) == len(own) and own:
            found[name] = _pruned(Liveness(network, zeros, keeps_one=False), own, zeros)
    return found


def _pruned(live: Liveness, sites: Sites, zeros: Mapping[Node, tuple[int, Tensor]]) -> PrunedGate:
    """Return which of the channels that are 0 are not needed, at all multiplications.

    Args:
        live: Which channels are needed.
        sites: The multiplications by one gate.
        zeros: Each of them with its axis of channels, and which are 0.
    """
    constants = {product: constant for product, constant in sites if product in zeros}
    places = [(product, *zeros[product]) for product in constants]
    zero = torch.stack([mask for _, _, mask in places]).any(0)
    needed = torch.zeros_like(zero)
    blocked: tuple[Node, int] | None = None
    for product, axis, mask in places:
        need = torch.ones_like(mask)
        if live.axis.get(product) == axis:
            need = live.need[product]
        if blocked is None and bool((need & mask).any()):
            blocked = product, int((need & mask).nonzero()[0])
        needed |= need
    kept = (zero & needed).nonzero().flatten().tolist()
    removed = zero & ~needed
    computed = torch.zeros_like(zero)
    for product, axis, _ in places:
        features: Any = next(each for each in product.args if each is not constants[product])
        if live.axis.get(features) == axis:
            computed |= live.need[features]
        else:
            computed |= True
    filters = int((removed & ~computed).sum())
    reason = "" if blocked is None else _reason(live, *blocked)
    return PrunedGate(tuple(removed.nonzero().flatten().tolist()), filters, tuple(kept), reason)


def _reason(live: Liveness, product: Node, channel: int) -> str:
    """Return in words why a channel stays."""
    not_followed = "its channels are not followed"
    if product not in live.axis:
        return not_followed
    if not bool(live.wanted[product][channel]):
        return ONE_STAYS
    return live.why(product, channel) or not_followed


class _Narrower:
    """Removes the channels that nothing needs from the operations of a graph."""

    def __init__(self, network: GraphNetwork, live: Liveness) -> None:
        self._network, self._live = network, live
        self._nodes = [node for node in network.exported_graph.nodes if node in live.need]
        # Shapes change while channels are removed; what follows from them is told before.
        self._is_alone = {
            node for node in self._nodes if node.target in CONVOLUTIONS and live.is_depthwise(node)
        }
        self._operands = {
            node: [
                (place, live.has_channels(each, node), live.covers(each, node))
                for place, each in enumerate(node.args)
            ]
            for node in self._nodes
            if node.target not in BATCH_NORMS
        }
        self._changed: dict[str, tuple[int, ...]] = {}
        self._selected: dict[tuple[Node, tuple[int, ...]], Node] = {}
        self._shapes: list[tuple[Node, Any, int, int]] = []

    def run(self) -> dict[str, tuple[int, ...]]:
        """Remove the channels, and return the shapes of the tensors that were narrowed."""
        for node in self._nodes:
            need = self._live.need[node]
            if not bool(need.all()):
                axis = self._live.axis[node]
                self._shapes.append((node, node.meta["val"], axis, int(need.sum())))
            self._narrow(node, need)
        for node, value, axis, count in self._shapes:
            node.meta["val"] = _narrowed(value, axis, count)
        self._network.exported_graph.eliminate_dead_code()
        return self._changed

    def _kept(self, node: Any) -> Tensor | None:
        """Return which channels a node has now; None if it has all."""
        need = self._live.need.get(node) if isinstance(node, Node) else None
        return None if need is None or bool(need.all()) else need

    def _narrow(self, node: Node, need: Tensor) -> None:
        given: Any = node.args[0]
        if node.target in CONVOLUTIONS or node.target is aten.linear.default:
            if node in self._is_alone:
                self._narrow_depthwise(node, need)
            else:
                self._narrow_layer(node, need)
        elif node.target is aten.cat.default:
            parts = list(given)
            stop = 0
            for place, part in enumerate(given):
                start, stop = stop, stop + len(self._live.need[part])
                parts[place] = self._edge(node, part, need[start:stop])
            node.update_arg(0, parts)
        elif node.target in BATCH_NORMS:
            self._give(node, given, need)
            for place in range(1, 5):
                if len(node.args) > place and node.args[place] is not None:
                    self._select(node, place, need, 0)
        elif node in self._live.repeats:
            self._give(node, given, need.reshape(-1, self._live.repeats[node])[:, 0])
            self._resize(node, need)
        else:
            for place, is_like, covers in self._operands[node]:
                each = node.args[place]
                is_first = place == 0 and node.target not in BINARY and each in self._live.need
                if is_like or is_first:
                    self._give(node, each, need)
                elif covers and not bool(need.all()):
                    self._narrow_operand(node, place, need)
            self._resize(node, need)

    def _narrow_layer(self, node: Node, need: Tensor) -> None:
        """Remove rows and columns of the weight of a convolution or of a linear layer."""
        kept = self._kept(node.args[0])
        if kept is None and bool(need.all()):
            return
        weight, bias = self._value(node, 1), self._value(node, 2)
        assert weight is not None
        if kept is not None:
            known = self._live.known[node.args[0]]  # type: ignore[index]
            gone = ~kept & (known != 0)
            if bool(gone.any()):
                # What a removed channel adds is the same for all images and positions.
                taps = weight.double().flatten(2).sum(2) if weight.ndim > 2 else weight.double()
                gone_on = gone.to(weight.device)
                added = taps[:, gone_on] @ known[gone].to(weight.device)
                bias = (added if bias is None else bias.double() + added).to(weight)
            weight = weight[:, kept.to(weight.device)]
        rows = need.to(weight.device)
        self._put(node, 1, weight[rows])
        if bias is not None:
            self._put(node, 2, bias[rows])

    def _narrow_depthwise(self, node: Node, need: Tensor) -> None:
        self._give(node, node.args[0], need)
        if bool(need.all()):
            return
        for place in (1, 2):
            if self._value(node, place) is not None:
                self._select(node, place, need, 0)
        node.update_arg(6, int(need.sum()))

    def _narrow_operand(self, node: Node, place: int, need: Tensor) -> None:
        """Narrow an operand whose channels are not followed, such as a constant."""
        given = node.args[place]
        assert isinstance(given, Node)
        axis = self._live.axis[node] - rank_of(node) + rank_of(given)
        if is_constant(self._network, given):
            self._select(node, place, need, axis)
        else:
            self._replace(node, given, self._selection(node, given, need, axis))

    def _select(self, node: Node, place: int, need: Tensor, axis: int) -> None:
        """Narrow a tensor that an operation reads."""
        value = self._value(node, place)
        if value is not None and not bool(need.all()):
            self._put(node, place, value.index_select(axis, _places(need).to(value.device)))

    def _value(self, node: Node, place: int) -> Tensor | None:
        given = node.args[place] if len(node.args) > place else None
        return value_of(self._network, given).detach() if isinstance(given, Node) else None

    def _put(self, node: Node, place: int, value: Tensor) -> None:
        given = node.args[place] if len(node.args) > place else None
        is_buffer = False
        if isinstance(given, Node) and given.op == "get_attr":
            is_buffer = not isinstance(self._network.tensor(str(given.target)), nn.Parameter)
        value = value.contiguous()
        if not is_buffer and value.is_floating_point():
            value = nn.Parameter(value, requires_grad=False)
        name = put(self._network, node, place, value, "pruned")
        self._changed[name] = tuple(value.shape)

    def _give(self, user: Node, given: Any, wanted: Tensor) -> None:
        """Let an operation read some channels of a result."""
        new = self._edge(user, given, wanted)
        if new is not given:
            self._replace(user, given, new)

    def _replace(self, user: Node, given: Node, new: Node) -> None:
        # The place among the arguments stays, by which gates know their operands.
        user.replace_input_with(given, new)

    def _edge(self, user: Node, given: Node, wanted: Tensor) -> Node:
        """Return a node with the wanted channels of a result, which may have more or fewer."""
        kept = self._live.need[given]
        if torch.equal(kept, wanted):
            return given
        if bool((wanted & ~kept).any()):
            return self._filled(user, given, kept, wanted)
        return self._selection(user, given, wanted[kept], self._live.axis[given])

    def _filled(self, user: Node, given: Node, kept: Tensor, wanted: Tensor) -> Node:
        """Return a node with the wanted channels of a summand, and zeros where it has none."""
        graph, axis, count = self._network.exported_graph, self._live.axis[given], int(kept.sum())
        widths = [0, 0] * (rank_of(given) - axis - 1) + [0, 1]
        with graph.inserting_before(user):
            padded = graph.call_function(aten.constant_pad_nd.default, (given, widths))
        padded.meta = {"calls": user.meta.get("calls"), "val": given.meta["val"]}
        self._shapes.append((padded, given.meta["val"], axis, count + 1))
        places = torch.where(kept, kept.cumsum(0) - 1, count)[wanted]
        return self._chosen(user, padded, places, axis)

    def _selection(self, user: Node, given: Node, wanted: Tensor, axis: int) -> Node:
        """Return a node that selects entries along an axis."""
        return self._chosen(user, given, _places(wanted), axis)

    def _chosen(self, user: Node, given: Node, places: Tensor, axis: int) -> Node:
        """Return a node with the entries at some places of an axis."""
        key = given, tuple(places.tolist())
        if key in self._selected:
            return self._selected[key]
        graph = self._network.exported_graph
        meta = {"calls": user.meta.get("calls")}
        first, last = int(places[0]), int(places[-1])
        with graph.inserting_before(user):
            if places.tolist() == list(range(first, last + 1)):
                new = graph.call_function(aten.slice.Tensor, (given, axis, first, last + 1))
            else:
                device = given.meta["val"].device
                name = f"{_INDICES}.index{len(self._selected)}"
                self._network.set_tensor(name, places.to(device))
                index = graph.get_attr(name)
                index.meta = {**meta, "val": places.to(device)}
                new = graph.call_function(aten.index_select.default, (given, axis, index))
        new.meta = dict(meta)
        self._shapes.append((new, given.meta["val"], axis, len(places)))
        self._selected[key] = new
        return new

    def _resize(self, node: Node, need: Tensor) -> None:
        """Set the number of channels in the sizes of a view."""
        if node.target not in _VIEWS or bool(need.all()):
            return
        given: Any = node.args[1]
        sizes = list(given)
        axis = self._live.axis[node]
        if sizes[axis] != -1:
            sizes[axis] = int(need.sum())
        node.update_arg(1, sizes)


def _places(mask: Tensor) -> Tensor:
    return mask.nonzero().flatten()


def _narrowed(value: Any, axis: int, count: int) -> Any:
    """Return the value of a node with fewer channels, which only has a shape."""
    if isinstance(value, (tuple, list)):  # of a norm with several results
        return (value[0].narrow(axis, 0, count), *value[1:])
    return value.narrow(axis, 0, count)
