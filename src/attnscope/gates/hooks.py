"""Read and edit the gates of any network while it runs.

A gate is the output of a bounded activation that multiplies a feature map by broadcasting. Four
rules find it:

1. The output of a bounded activation is **marked** with the module that computed it.
2. Operations that preserve a gate **carry** the mark. All others drop it. `attnscope.gates.ops` is
   the registry of operations, and other packages can add to it.
3. A tensor that does not depend on the input is **static**. Weights, masks and noise are neither
   gates nor features.
4. **A gate acts** where a marked tensor multiplies a tensor that is neither marked nor static, and
   broadcasts over it.

`attnscope.gates.tracer` follows the marks through a forward. `attnscope.gates.detect` finds the
gates and their kinds on a sample. This module identifies each gate by the place of its activation,
and reads or edits it at the multiplication. No module is patched or replaced.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.gates.detect import inspect_call
from attnscope.gates.finder import Place, refuse_checkpoint
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.graph_nodes import Meeting
from attnscope.gates.inputs import Inputs
from attnscope.gates.marks import Mark
from attnscope.gates.products import UNBOUNDED_FORM, Product
from attnscope.gates.tracer import Tracer
from attnscope.gates.values import Constancy, as_shape_of, read_values
from attnscope.gates.values import as_factor as as_factor
from attnscope.kinds import Gate

Edit = Callable[[Tensor, Tensor], Tensor]
"""``fn(gate, features) -> gate``, both in the shapes that are multiplied."""


@contextmanager
def watch_gates(
    model: nn.Module,
    gates: Sequence[Gate] | None = None,
    *,
    checks: list[Constancy] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Read the gates of a network while it runs.

    Args:
        model: any network.
        gates: gates from `find_gates`. By default they are found on the input of the first forward.
        checks: a list that each forward fills with what must hold of gates on a device other than
            the CPU (`attnscope.gates.values.Constancy`). Without it, AS404 is raised during the
            forward, for which the host waits for the device.

    Yields:
        A dict that each forward fills: gate name -> the values that multiplied the features, as a
        detached copy in their own precision. `Gate.axes` gives the shape: a channel gate is
        ``(N, C)``, a spatial gate ``(N, H, W)``, a strip gate ``(N, C, H)`` or ``(N, C, W)``, a
        branch gate ``(N, B, C)``, or ``(N, C)`` if each branch has its own multiplication.

    Raises:
        InputError: during a forward, if a gate does not multiply anything (AS402), varies along
            an axis along which it was constant on the sample (AS404), or multiplies more often than
            on the sample (AS419).
    """
    values: dict[str, Tensor] = {}
    with _serve(model, _Listener(gates, values=values, checks=checks)):
        yield values


@contextmanager
def edit_gates(
    model: nn.Module, edits: Mapping[str, Edit], gates: Sequence[Gate] | None = None
) -> Iterator[None]:
    """Replace gates while a network runs.

    After the block the network runs exactly as before. Blocks can be nested: the inner edit
    receives the value that the outer edit returned. Gradients flow through the edits.

    Args:
        model: any network. It is not modified.
        edits: gate name -> ``fn(gate, features) -> gate``. The function is called once per forward
            and shape. It receives the gate in the shape that is multiplied, for example
            ``(N, C, 1, 1)``, and must return a tensor of that shape, or one that broadcasts to it.
            If the gate multiplies another gate, as in ``x * (gc * gs)``, then ``features`` is
            ``gate`` itself.
        gates: gates from `find_gates`. By default they are found on the input of the first forward.

    Raises:
        InputError: a gate does not exist (AS401); or during a forward, if a gate does not multiply
            anything (AS402), an edit returns another shape (AS403), the gate runs inside
            ``torch.utils.checkpoint`` (AS405), or multiplies more often than on the sample (AS419).
    """
    with _serve(model, _Listener(gates, edits)):
        yield


@dataclass
class _Listener:
    """One ``with`` block: its edits, and the values that it has read."""

    gates: Sequence[Gate] | None
    """The gates that must multiply in each forward. None until they are found."""
    edits: Mapping[str, Edit] = field(default_factory=dict)
    values: dict[str, Tensor] | None = None
    checks: list[Constancy] | None = None
    """What must hold of the values, which the caller checks."""
    fired: set[str] = field(default_factory=set)
    edited: dict[tuple[object, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """The gate and the result of its edit in this forward, for a gate that is used twice."""

    def __post_init__(self) -> None:
        self.by_place: dict[Place, Gate] = {}
        self.by_name: dict[str, Gate] = {}
        self.by_series: dict[tuple[str, str], Gate] = {}
        self.meets_unbounded = False
        if self.gates is not None:
            self.set_gates(self.gates)

    def set_gates(self, gates: Sequence[Gate]) -> None:
        """Set the gates of the network, and select those that this block needs."""
        names = [gate.name for gate in gates]
        for name in self.edits:
            if name not in names:
                raise InputError(
                    "AS401",
                    f"the network has no gate '{name}'; its gates are {', '.join(names) or 'none'}",
                )
        self.gates = [g for g in gates if self.values is not None or g.name in self.edits]
        self.by_place = {place_of(gate): gate for gate in self.gates}
        self.by_name = {gate.name: gate for gate in self.gates}
        self.by_series = {
            (gate.made_in, f"{gate.source}|{gate.form}"): gate for gate in self.gates if gate.calls
        }
        self.meets_unbounded = any(gate.form == UNBOUNDED_FORM for gate in self.gates)

    def find(self, mark: Mark) -> Gate | None:
        """Return the gate with this mark."""
        return self.by_place.get(mark.place) or self.by_place.get(mark.old_place)

    def begin_part(self, path: str) -> None:
        """Reset the state before a part of the network is called without the network.

        The values of gates in other parts are kept, so that all of them can be read after the
        parts were called one by one.
        """
        self.edited.clear()
        for gate in self.gates or ():
            if self.values is not None and _is_within(gate.made_in, path):
                self.values.pop(gate.name, None)

    def begin(self) -> None:
        """Reset the state at the start of a forward."""
        self.fired.clear()
        self.edited.clear()
        if self.values is not None:
            self.values.clear()
        if self.checks is not None:
            self.checks.clear()


class _Blocks:
    """The open ``with`` blocks on one network.

    Nested blocks share one server, because a tensor that an edit returned must keep its mark.
    """

    listeners: list[_Listener]
    batch: int | None = None

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.batch = Inputs(args, kwargs).batch_size()
        waiting = [listener for listener in self.listeners if listener.gates is None]
        if waiting:
            gates = inspect_call(model, args, kwargs).gates
            for listener in waiting:
                listener.set_gates(gates)
        for listener in self.listeners:
            listener.begin()

    def _exchange(
        self,
        known: Sequence[tuple[_Listener, Gate | None]],
        gate: Tensor,
        other: Tensor | None,
        running: str | None,
    ) -> Tensor:
        """Return what the blocks make of a gate, and let them read it.

        Args:
            known: each block, and the gate if it has it.
            gate: the gate in the shape that is multiplied.
            other: the features; None if they are another gate.
            running: the module that runs; None for a graph.
        """
        edited = gate
        for listener, site in known:
            if site is None:
                continue
            if site.name in listener.edits:
                if running is not None:
                    refuse_checkpoint(running)
                # The gate is kept, so that no other tensor gets its memory.
                key = site.name, *_memory(edited)
                if key not in listener.edited:
                    new = listener.edits[site.name](edited, edited if other is None else other)
                    listener.edited[key] = edited, as_shape_of(new, edited, site)
                edited = listener.edited[key][1]
            listener.fired.add(site.name)
        for listener, site in known:
            if site and listener.values is not None and site.name not in listener.values:
                values = read_values(edited.detach(), site, self.batch, listener.checks)
                listener.values[site.name] = values.clone()
        return edited

    def _expect_fired(self) -> None:
        for listener in self.listeners:
            silent = [g.name for g in listener.gates or () if g.name not in listener.fired]
            if silent:
                fired = ", ".join(sorted(listener.fired)) or "none"
                raise InputError(
                    "AS402",
                    f"the gate {silent[0]} did not multiply anything in this forward pass (gates "
                    f"that did: {fired}); find the gates again on the input of this forward pass",
                )


class _GraphServer(_Blocks):
    """Meets gates at the nodes of a graph."""

    def __init__(self, model: GraphNetwork) -> None:
        self.listeners = []
        self._model = weakref.ref(model)

    def __enter__(self) -> _GraphServer:
        model = self._model()
        assert model is not None  # the caller's `with` holds it
        model.server = self
        return self

    def __exit__(self, *error: Any) -> None:
        model = self._model()
        if model is not None:
            model.server = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        model = self._model()
        assert model is not None
        self._begin(model, args, kwargs)

    def meet_node(self, meeting: Meeting, operand: Tensor, features: Tensor | None) -> Tensor:
        known = [(each, each.by_name.get(meeting.gate)) for each in self.listeners]
        if not any(site for _, site in known):
            return operand
        gate = meeting.value(operand)
        edited = self._exchange(known, gate, features, None)
        # What no edit changed must multiply as it is, or the last bit differs.
        if edited is gate or (meeting.divides and torch.equal(edited, gate)):
            return operand
        return meeting.restore(edited)

    def finish(self, output: Any) -> None:
        self._expect_fired()


class _Server(_Blocks, Tracer):
    """Meets gates under a tracer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.listeners = []
        self.skips_unknown = True

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        model = self._model()
        assert model is not None
        self._begin(model, args, kwargs)
        self._listen()

    def begin_part(self, path: str) -> None:
        self.batch = None
        self._listen()
        for listener in self.listeners:
            listener.begin_part(path)

    def _listen(self) -> None:
        self.meets_unbounded = any(listener.meets_unbounded for listener in self.listeners)

    def meet(self, product: Product) -> Tensor:
        is_unbounded = product.mark.form == UNBOUNDED_FORM
        mark = product.mark.inverted() if product.divides and not is_unbounded else product.mark
        gate = 1 / product.gate if product.divides else product.gate
        known = [(listener, listener.find(mark)) for listener in self.listeners]
        if any(site is not None for _, site in known) and (self.called or product.mark.outside):
            self._check_part(product.mark)
        for listener, site in known:
            if site is None and not mark.outside:
                _refuse_more(mark, listener)
        edited = self._exchange(known, gate, product.features, self.running)
        if not product.divides:
            return edited
        # A divisor that no edit changed must still divide, or the last bit differs.
        unchanged = edited is gate or torch.equal(edited, gate)
        return product.gate if unchanged else 1 / edited

    def _check_part(self, mark: Mark) -> None:
        """Refuse a gate that cannot be identified if only a part of the network is called."""
        repeated = any(
            gate.entry > 0 and _is_within(gate.made_in, self.called)
            for listener in self.listeners
            for gate in listener.gates or ()
        )
        if mark.outside or repeated or not _is_within(mark.made_in, self.called):
            what = "a method of the network" if mark.outside else f"the module {self.called}"
            raise InputError(
                "AS413",
                f"the gate in {mark.made_in or 'the network'} cannot be identified, because {what} "
                "was called, which bypasses the network's __call__; call the network itself",
            )

    def finish(self, output: Any) -> None:
        self._expect_fired()


def place_of(gate: Gate) -> Place:
    """Return the identity of a gate across forwards."""
    if gate.source is None:
        return gate.made_in, gate.call, gate.form
    return gate.made_in, gate.call, f"{gate.source}|{gate.form}"


def _refuse_more(mark: Mark, listener: _Listener) -> None:
    """Refuse a gate that was not there on the sample, because its module runs more often now."""
    gate = listener.by_series.get(mark.series)
    if gate is not None and mark.number >= gate.calls:
        raise InputError(
            "AS419",
            f"the gate {gate.name} multiplies more often in this forward pass than on the sample "
            f"({gate.calls}), and the further multiplications could be neither read nor edited; "
            "find the gates again on an input for which the network runs as often",
        )


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """Return what equals for two views of the same values only, while both are kept."""
    with torch._C.DisableTorchFunction():
        start = id(tensor)
        if type(tensor) is Tensor:  # others, such as tensors without values, may have no memory
            with suppress(RuntimeError):  # neither do those in torch.func
                start = tensor.data_ptr()
        return start, tensor.shape, tensor.stride(), tensor.dtype


def _is_within(path: str, module: str) -> bool:
    """Return whether a path is that of a module or of one inside it."""
    return not module or path == module or path.startswith(f"{module}.")


_servers: weakref.WeakKeyDictionary[nn.Module, _Server | _GraphServer] = weakref.WeakKeyDictionary()


@contextmanager
def _serve(model: nn.Module, listener: _Listener) -> Iterator[None]:
    """Add a listener to the network's tracer. The outermost block owns the tracer."""
    server = _servers.get(model)
    if server is not None:
        server.listeners.append(listener)
        try:
            yield
        finally:
            # Compare by identity: two blocks with the same gates are equal.
            server.listeners[:] = [each for each in server.listeners if each is not listener]
        return
    server = _GraphServer(model) if isinstance(model, GraphNetwork) else _Server(model)
    server.listeners.append(listener)
    _servers[model] = server
    try:
        with server:
            yield
    finally:
        del _servers[model]
