"""Find, read and edit the gates of any network, by what a gate does.

A gate is a bounded activation's output that multiplies a feature map by broadcasting. Four rules:

1. What a bounded activation returns is **marked**, with the module that made it.
2. The mark is **carried** by operations that keep a gate a gate, and dropped by every other one.
   Which do what is registered in `attnscope.gates.ops`, and can be added to from outside.
3. What no input has a part in is **static**: weights, masks and noise are neither gates nor
   features.
4. Where a marked tensor multiplies a tensor that is neither static nor marked, and broadcasts over
   it, **a gate acts**.

`attnscope.gates.tracer` follows the marks through a forward. `attnscope.gates.detect` looks at a
sample and learns which gates there are, and of which kind. Here they are known, by the place where
they are made, and are read and edited at the multiplication: no module is patched or swapped.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.gates.axes import grid_of_row
from attnscope.gates.detect import inspect_call
from attnscope.gates.finder import Place, refuse_checkpoint
from attnscope.gates.tracer import Product, Tracer
from attnscope.kinds import AXES, MAP, Gate

Edit = Callable[[Tensor, Tensor], Tensor]
"""``fn(gate, features) -> gate``, both in the shapes in which they multiply."""


@contextmanager
def watch_gates(
    model: nn.Module, gates: Sequence[Gate] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Reads the gates while the network runs.

    Yields a dict that each forward fills anew: name -> what multiplied the features, detached and
    copied at that moment, in the precision in which it multiplied. A channel gate is ``(N, C)``, a
    spatial gate ``(N, H, W)``, a strip ``(N, C, H)`` or ``(N, C, W)``, a branch ``(N, B, C)`` or,
    where each path has a multiplication of its own, ``(N, C)``: see the gate's ``axes``.

    Args:
        model: any network.
        gates: of `find_gates`. Without them they are found on what the first forward gets.

    Raises:
        InputError: in a forward, when a gate does not fire, or varies along an axis along which it
            did not on the sample.
    """
    values: dict[str, Tensor] = {}
    with _serve(model, _Listener(gates, values=values)):
        yield values


@contextmanager
def edit_gates(
    model: nn.Module, edits: Mapping[str, Edit], gates: Sequence[Gate] | None = None
) -> Iterator[None]:
    """Hands the multiplications other gates while the network runs.

    Args:
        model: any network; it is not changed, and afterwards runs exactly as before.
        edits: name -> ``fn(gate, features) -> gate``, called once a forward (again only where the
            same gate multiplies in another shape). The gate comes in the shape in which it
            multiplies, for example ``(N, C, 1, 1)``; what is returned must have that shape, or
            broadcast to it. Of a gate that multiplies another gate, as in ``x * (gc * gs)``,
            ``features`` is ``gate`` itself. Gradients flow through. Blocks nest: the inner one
            receives what the outer one returned.
        gates: of `find_gates`. Without them they are found on what the first forward gets.

    Raises:
        InputError: there is no such gate; in a forward, when a gate does not fire, an edit returns
            another shape, or the gate is within ``torch.utils.checkpoint``.
    """
    with _serve(model, _Listener(gates, edits)):
        yield


@dataclass
class _Listener:
    """One ``with`` block: what it edits, and what it has seen."""

    gates: Sequence[Gate] | None
    """Which must fire; None until they are found."""
    edits: Mapping[str, Edit] = field(default_factory=dict)
    values: dict[str, Tensor] | None = None
    fired: set[str] = field(default_factory=set)
    edited: dict[tuple[str, torch.Size], Tensor] = field(default_factory=dict)
    """What an edit returned in this forward, for the gate's second use."""

    def __post_init__(self) -> None:
        self.by_place: dict[Place, Gate] = {}
        if self.gates is not None:
            self.know(self.gates)

    def know(self, gates: Sequence[Gate]) -> None:
        """Takes the gates that are wanted."""
        names = [gate.name for gate in gates]
        for name in self.edits:
            if name not in names:
                raise InputError(
                    f"there is no gate '{name}'; there are {', '.join(names) or 'none'}"
                )
        self.gates = [g for g in gates if self.values is not None or g.name in self.edits]
        self.by_place = {(gate.made_in, gate.call, gate.form): gate for gate in self.gates}

    def begin(self) -> None:
        """Forgets the last forward."""
        self.fired.clear()
        self.edited.clear()
        if self.values is not None:
            self.values.clear()


class _Server(Tracer):
    """Serves every open ``with`` block on one network.

    One tracer serves nested blocks, since a tensor that an edit returned has to keep its mark.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.listeners: list[_Listener] = []

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        model = self._model()
        unknowing = [listener for listener in self.listeners if listener.gates is None]
        if unknowing and model is not None:
            gates = inspect_call(model, args, kwargs).gates
            for listener in unknowing:
                listener.know(gates)
        for listener in self.listeners:
            listener.begin()

    def meet(self, product: Product) -> Tensor:
        place, gate, other = product.mark.place, product.gate, product.features
        known = [(listener, listener.by_place.get(place)) for listener in self.listeners]
        edited = gate
        for listener, site in known:
            if site is None:
                continue
            if site.name in listener.edits:
                refuse_checkpoint(self.running)
                key = site.name, edited.shape
                if key not in listener.edited:
                    new = listener.edits[site.name](edited, edited if other is None else other)
                    listener.edited[key] = _checked(new, edited, site.name)
                edited = listener.edited[key]
            listener.fired.add(site.name)
        for listener, site in known:
            if site and listener.values is not None and site.name not in listener.values:
                listener.values[site.name] = _read(edited.detach(), site).clone()
        return edited

    def finish(self) -> None:
        for listener in self.listeners:
            silent = [g.name for g in listener.gates or () if g.name not in listener.fired]
            if silent:
                known = ", ".join(sorted(listener.fired)) or "none"
                raise InputError(
                    f"the gate {silent[0]} did not multiply anything in this forward; "
                    f"those that did: {known}"
                )


_servers: weakref.WeakKeyDictionary[nn.Module, _Server] = weakref.WeakKeyDictionary()


@contextmanager
def _serve(model: nn.Module, listener: _Listener) -> Iterator[None]:
    """Adds a listener to the network's tracer, which lives as long as the outermost block."""
    server = _servers.get(model)
    if server is not None:
        server.listeners.append(listener)
        try:
            yield
        finally:
            # By identity: two blocks that know the same are equal.
            server.listeners[:] = [each for each in server.listeners if each is not listener]
        return
    server = _Server(model)
    server.listeners.append(listener)
    _servers[model] = server
    try:
        with server:
            yield
    finally:
        del _servers[model]


def _read(values: Tensor, gate: Gate) -> Tensor:
    """A gate as it is handed out: its own axes, images first, then paths, channels and pixels."""
    layout = gate.layout
    values = values.reshape((1,) * (len(layout) - values.ndim) + tuple(values.shape))
    order = [letter for letter in AXES if letter in layout]
    values = values.permute([layout.index(letter) for letter in order])
    for axis in reversed(range(len(order))):
        if order[axis] in gate.axes:
            continue
        one = values.narrow(axis, 0, 1)
        # Written out by repeat and the like. (What expand makes has a stride of 0.)
        if (
            values.shape[axis] > 1
            and values.stride(axis)
            and not torch.equal(values, one.expand_as(values))
        ):
            raise InputError(
                f"the gate {gate.name} varies along {order[axis]} in this forward, and did not on "
                "the sample on which it was found; find the gates on a larger sample"
            )
        values = one.squeeze(axis)
    if "N" not in layout and gate.per_image:
        values = values[None]
    if "L" in gate.axes and gate.has(MAP):
        values = values.reshape(len(values), *grid_of_row(values.shape[1]))
    return values


def as_factor(values: Tensor, gate: Gate) -> Tensor:
    """Turns what `watch_gates` reads into the shape in which the gate multiplies.

    So ``edit_gates(model, {gate.name: lambda g, x: as_factor(other, gate)})`` puts the gates of
    other images, or any made by hand, in the place of its own.

    Args:
        values: of the gate's ``axes``, images first: ``(N, C)`` for a channel gate, ``(N, H, W)``
            for a spatial one. N may be 1: the same for all images.
        gate: which one.

    Returns:
        A tensor with one axis for each of the gate's ``layout``, of length 1 where the gate does
        not vary: ``(N, C, 1, 1)``, ``(N, 1, H, W)``.
    """
    order = [letter for letter in AXES if letter in gate.layout]
    if "L" in gate.axes and gate.has(MAP):
        values = values.flatten(1)
    if "N" not in gate.layout and gate.per_image:
        values = values[0]
    for axis, letter in enumerate(order):
        if letter not in gate.axes:
            values = values.unsqueeze(axis)
    return values.permute([order.index(letter) for letter in gate.layout])


def _checked(edited: Tensor, gate: Tensor, name: str) -> Tensor:
    try:
        if edited.shape == gate.shape:
            return edited
        while edited.ndim > gate.ndim and edited.shape[0] == 1:
            edited = edited[0]
        return edited.expand(gate.shape)
    except (AttributeError, RuntimeError):
        got = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
        raise InputError(
            f"the edit of {name} returned {got}; it must return a tensor of {tuple(gate.shape)}"
        ) from None
