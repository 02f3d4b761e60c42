"""Rerun a forward with edited gates, and compute only what depends on them.

A `PrefixCache` keeps the outputs of a network's modules from one forward. When the network is
rerun with edited gates, each call of a module that had ended before the first edited gate was made
returns its cached output; everything else is computed. No order of modules is assumed: the order
of the calls is observed on the first batch. Before a cache is used for a group of gates, one rerun
without edits verifies that the logits are equal bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attnscope.errors import InputError
from attnscope.gates.hooks import Edit, edit_gates, watch_gates
from attnscope.gates.marks import Mark
from attnscope.gates.ops.operation import Known
from attnscope.gates.products import Product
from attnscope.gates.tracer import Tracer
from attnscope.kinds import Gate

_Call = tuple[str, int]
"""Path of a module, and the number of its call within one forward, from 0."""


@dataclass
class _EndedCall:
    """A call of a module that has ended."""

    call: _Call
    parents: tuple[_Call, ...]
    """The calls within which it ran, outermost first."""
    inner_calls: Counter[str]
    """Number of calls of each module within it, including itself."""
    activations_in: frozenset[str]
    """Paths of the modules in which bounded activations ran within it."""
    cacheable: bool
    """Whether its output consists of tensors, none of which is a gate."""


@dataclass
class _OpenCall:
    """A call of a module that has not ended."""

    call: _Call
    inner_calls: Counter[str] = field(default_factory=Counter)
    activations_in: set[str] = field(default_factory=set)


class PrefixCache:
    """The last complete forward of a network, which can be rerun with edited gates.

    Args:
        model: Any network, in eval mode. It is left unchanged.
        gates: Gates found by `attnscope.find_gates`. All of them are read.
        targets: Groups of names of gates. The gates of one group are edited together.

    Attributes:
        gate_values: The gates in the last forward by name, as `attnscope.watch_gates` reads them.
        logits: ``(N, K)``, the logits of the last forward.
    """

    def __init__(
        self, model: nn.Module, gates: Sequence[Gate], targets: Sequence[Sequence[str]]
    ) -> None:
        self.model, self.gates = model, list(gates)
        self._targets = [frozenset(target) for target in targets]
        self.gate_values: dict[str, Tensor] = {}
        self.logits: Tensor = torch.empty(0)
        self._x: Tensor = torch.empty(0)
        self._order: CallOrder | None = None
        self._outputs: dict[_Call, Any] = {}
        self._verified: dict[frozenset[str], frozenset[_Call]] = {}
        """Calls that are skipped for a group of gates, once verified."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the complete network without edits, and fill the cache.

        Args:
            x: Images as the network sees them, ``(N, 3, H, W)``.

        Returns:
            The logits, ``(N, K)``.
        """
        if self._order is None:
            self._order = observe_calls(self.model, x)
        self._x = x
        self._outputs.clear()
        with torch.no_grad(), watch_gates(self.model, self.gates) as values, self._record():
            self.logits = self.model(x)
        self.gate_values = dict(values)
        return self.logits

    @property
    def held_bytes(self) -> int:
        """The size of the outputs that are kept of the last forward."""
        tensors = (each for output in self._outputs.values() for each in _tensors(output))
        return sum(each.numel() * each.element_size() for each in tensors)

    def rerun(self, edits: Mapping[str, Edit]) -> Tensor:
        """Run the network on the images of the last forward with edited gates.

        Args:
            edits: Name of a gate -> ``fn(gate, features) -> gate``, as for
                `attnscope.edit_gates`. The names are those of one of the targets.

        Returns:
            The logits, ``(N, K)``.

        Raises:
            InputError: The network is not deterministic (AS814), or an edit cannot be used.
            ValueError: The names are not one of the targets, so that the cache lacks outputs.
        """
        names = frozenset(edits)
        if names not in self._targets:
            raise ValueError(f"{sorted(names)} is not one of the targets of this cache")
        if names not in self._verified:
            self._verified[names] = self._verify(names)
        return self._run(edits, self._verified[names])

    def _calls_before(self, names: frozenset[str]) -> frozenset[_Call]:
        assert self._order is not None  # forward has run
        return self._order.before([gate for gate in self.gates if gate.name in names])

    def _verify(self, names: frozenset[str]) -> frozenset[_Call]:
        """Return the calls that can be skipped: none if skipping them would change the logits."""
        no_edits: dict[str, Edit] = {name: lambda gate, features: gate for name in names}
        for skipped in (self._calls_before(names), frozenset[_Call]()):
            try:
                logits = self._run(no_edits, skipped)
            except InputError:  # a gate is no longer applied
                if not skipped:
                    raise
                continue
            if torch.equal(logits, self.logits):
                return skipped
        raise InputError(
            "AS814",
            "the network gives different logits for the same images in two forwards; make it "
            "deterministic in eval mode",
        )

    def _run(self, edits: Mapping[str, Edit], skipped: frozenset[_Call]) -> Tensor:
        with torch.no_grad(), self._skip(skipped), edit_gates(self.model, edits, self.gates):
            logits: Tensor = self.model(self._x)
        return logits

    @contextmanager
    def _record(self) -> Iterator[None]:
        """Cache the outputs of the calls that may be skipped later."""
        wanted = frozenset[_Call]().union(*map(self._calls_before, self._targets))
        counts: Counter[str] = Counter()
        handles: list[RemovableHandle] = []
        modules = dict(self.model.named_modules())

        def make_hook(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                call = path, counts[path]
                counts[path] += 1
                if call in wanted:
                    # A copy, because a later operation may write into the output.
                    self._outputs[call] = _copy(output)

            return hook

        try:
            for path in {path for path, _ in wanted}:
                handles.append(modules[path].register_forward_hook(make_hook(path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _skip(self, skipped: frozenset[_Call]) -> Iterator[None]:
        """Make these calls return their cached outputs within the block.

        A hook cannot keep a module from running. Therefore ``forward`` is replaced on the module
        instance for the block, so that no other module is affected.
        """
        assert self._order is not None
        inner_calls = self._order.inner_calls
        counts: Counter[str] = Counter()
        modules = dict(self.model.named_modules())

        def make_forward(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                call = path, counts[path]
                if call in skipped:
                    counts.update(inner_calls[call])
                    return _copy(self._outputs[call])
                counts[path] += 1
                return forward(*args, **kwargs)

            return run

        with ExitStack() as stack:
            if skipped:
                # Calls are counted for the modules that are skipped and for those within them.
                for path in {path for call in skipped for path in inner_calls[call]}:
                    module = modules[path]
                    own_forward = module.__dict__.get("forward")
                    stack.callback(_restore_forward, module, own_forward)
                    module.__dict__["forward"] = make_forward(path, module.forward)
            yield


class CallOrder:
    """The order in which calls of modules ended and bounded activations ran in a forward."""

    def __init__(self, ended: list[_EndedCall], activations: dict[tuple[str, int], int]) -> None:
        self._ended = ended
        self._activations = activations
        """Number of calls that had ended when a bounded activation ran."""
        self.inner_calls = {each.call: each.inner_calls for each in ended}

    def modules_before(self, gate: Gate) -> set[str]:
        """Return the paths of modules of which a call had ended before the gate was made."""
        return {each.call[0] for each in self._ended[: self._activations[gate.made_in, gate.call]]}

    def before(self, gates: Sequence[Gate]) -> frozenset[_Call]:
        """Return the outermost calls that had ended before the first of these gates was made.

        Calls whose outputs cannot be cached are left out.
        """
        until = min((self._activations[gate.made_in, gate.call] for gate in gates), default=0)
        # A gate is identified by the number of activations that its module ran before it.
        # Therefore no call of that module may be skipped.
        makers = {gate.made_in for gate in gates}
        cacheable = {
            each.call: each
            for each in self._ended[:until]
            if each.cacheable and not makers & each.activations_in
        }
        return frozenset(
            call
            for call, each in cacheable.items()
            if not any(parent in cacheable for parent in each.parents)
        )


class _CallObserver(Tracer):
    """Observe in which order calls of modules end and bounded activations run."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.ended: list[_EndedCall] = []
        self.activations: dict[tuple[str, int], int] = {}
        self._open: list[_OpenCall] = []
        self._counts: Counter[str] = Counter()

    def meet(self, product: Product) -> Tensor:
        """Return the gate unchanged."""
        return product.gate

    def note(
        self,
        known: Known,
        arguments: Sequence[Any],
        marks: Sequence[Mark | None],
        outputs: Sequence[Tensor],
        products: Sequence[Product],
    ) -> None:
        """Note each bounded activation when its output first appears."""
        for output in outputs:
            mark = self.mark_of(output)
            if mark is not None and (mark.made_in, mark.call) not in self.activations:
                self.activations[mark.made_in, mark.call] = len(self.ended)
                for each in self._open:
                    each.activations_in.add(mark.made_in)

    def open(self, path: str) -> None:
        """Begin a call of a module."""
        self._open.append(_OpenCall((path, self._counts[path])))
        self._counts[path] += 1

    def close(self, output: Any) -> None:
        """End the innermost call."""
        call = self._open.pop()
        call.inner_calls[call.call[0]] += 1
        parents = tuple(each.call for each in self._open)
        # A cached tensor has no mark. If a gate were returned from the cache, it would no longer
        # be recognized, nor would any gate computed from it, as in x * (gc * gs).
        cacheable = _is_of_tensors(output) and not any(map(self.mark_of, _tensors(output)))
        self.ended.append(
            _EndedCall(
                call.call, parents, call.inner_calls, frozenset(call.activations_in), cacheable
            )
        )
        if self._open:
            self._open[-1].inner_calls.update(call.inner_calls)


def observe_calls(model: nn.Module, x: Tensor) -> CallOrder:
    """Run a network once without gradients, and return the order of its calls.

    Args:
        model: Any network, in eval mode.
        x: Images as the network sees them, ``(N, 3, H, W)``.
    """
    observer = _CallObserver(model)
    handles: list[RemovableHandle] = []
    try:
        for path, module in model.named_modules():
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, args, path=path: observer.open(path)
                )
            )
            handles.append(
                module.register_forward_hook(lambda module, args, output: observer.close(output))
            )
        with torch.no_grad(), observer:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return CallOrder(observer.ended, observer.activations)


def _is_of_tensors(output: Any) -> bool:
    """Return whether an output is a tensor, or nested lists and tuples of tensors."""
    if isinstance(output, (list, tuple)):
        return type(output) in (list, tuple) and all(map(_is_of_tensors, output))
    return isinstance(output, Tensor)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    else:
        for item in output:
            yield from _tensors(item)


def _copy(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    return type(output)(map(_copy, output))


def _restore_forward(module: nn.Module, own_forward: Any) -> None:
    if own_forward is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = own_forward
