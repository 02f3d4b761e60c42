"""Runs the end of a forward again: only what follows the gates that are edited.

A `Tape` keeps what the modules of a network returned in one forward. When the network runs again
with other gates, each call of a module that had ended before the first of these gates was made
returns what it returned then; everything else runs as it is. No order of modules is assumed: which
calls had ended is seen on the first batch, and that the unedited network gives the same logits so,
bit for bit, is tried before anything relies on it.
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
from attnscope.gates.tracer import Product, Tracer
from attnscope.kinds import Gate

_Call = tuple[str, int]
"""Path of a module, and which of its calls in one forward, from 0."""


@dataclass
class _Ended:
    """A call of a module that has ended."""

    call: _Call
    within: tuple[_Call, ...]
    """The calls that it is part of, the outermost first."""
    inner: Counter[str]
    """How often each module was called within it, itself included."""
    makes: frozenset[str]
    """Paths of the modules in which bounded activations ran within it."""
    keepable: bool
    """Whether what it returned is made of tensors, and none of them is a gate."""


@dataclass
class _Open:
    call: _Call
    inner: Counter[str] = field(default_factory=Counter)
    makes: set[str] = field(default_factory=set)


class Tape:
    """The last whole forward of a network, of which any end can be run again.

    Args:
        model: any network, in eval mode; it is left as it was.
        gates: of `attnscope.find_gates`; all of them are read.
        targets: names of gates that will be edited together, one group after the other.
    """

    def __init__(
        self, model: nn.Module, gates: Sequence[Gate], targets: Sequence[Sequence[str]]
    ) -> None:
        self.model, self.gates = model, list(gates)
        self._targets = [frozenset(target) for target in targets]
        self.seen: dict[str, Tensor] = {}
        """The gates of the last forward, as `attnscope.watch_gates` reads them."""
        self.logits: Tensor = torch.empty(0)
        """``(N, K)``, of the last forward."""
        self._x: Tensor = torch.empty(0)
        self._plan: Plan | None = None
        self._kept: dict[_Call, Any] = {}
        self._skips: dict[frozenset[str], frozenset[_Call]] = {}
        """What is left out for a group of gates, once it was tried."""

    def forward(self, x: Tensor) -> Tensor:
        """Runs the whole network, unedited.

        Args:
            x: as the network gets it, ``(N, 3, H, W)``.

        Returns:
            The logits, ``(N, K)``.
        """
        if self._plan is None:
            self._plan = plan_of(self.model, x)
        self._x = x
        self._kept.clear()
        with torch.no_grad(), watch_gates(self.model, self.gates) as seen, self._keep():
            self.logits = self.model(x)
        self.seen = dict(seen)
        return self.logits

    def again(self, edits: Mapping[str, Edit]) -> Tensor:
        """Runs the network on the images of the last forward with edited gates.

        Args:
            edits: name -> ``fn(gate, features) -> gate``, as for `attnscope.edit_gates`; of the
                gates of one of the targets.

        Returns:
            The logits, ``(N, K)``.

        Raises:
            InputError: the network does not give the same logits twice, or an edit cannot be used.
            ValueError: these gates are no target, so that what they need was not kept.
        """
        names = frozenset(edits)
        if names not in self._targets:
            raise ValueError(f"{sorted(names)} is no target of this tape")
        if names not in self._skips:
            self._skips[names] = self._try(names)
        return self._run(edits, self._skips[names])

    def _before(self, names: frozenset[str]) -> frozenset[_Call]:
        assert self._plan is not None  # there was a forward
        return self._plan.before([gate for gate in self.gates if gate.name in names])

    def _try(self, names: frozenset[str]) -> frozenset[_Call]:
        """The calls that may be left out, which is none where that would change the logits."""
        same: dict[str, Edit] = {name: lambda gate, features: gate for name in names}
        for skip in (self._before(names), frozenset[_Call]()):
            try:
                logits = self._run(same, skip)
            except InputError:  # a gate that no longer acts
                if not skip:
                    raise
                continue
            if torch.equal(logits, self.logits):
                return skip
        raise InputError(
            "the network does not give the same logits twice for the same images; "
            "leave out what is random in it"
        )

    def _run(self, edits: Mapping[str, Edit], skip: frozenset[_Call]) -> Tensor:
        with torch.no_grad(), self._leave_out(skip), edit_gates(self.model, edits, self.gates):
            logits: Tensor = self.model(self._x)
        return logits

    @contextmanager
    def _keep(self) -> Iterator[None]:
        """Keeps what the calls return that may be left out later."""
        wanted = frozenset[_Call]().union(*map(self._before, self._targets))
        counts: Counter[str] = Counter()
        handles: list[RemovableHandle] = []
        modules = dict(self.model.named_modules())

        def keep(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                call = path, counts[path]
                counts[path] += 1
                if call in wanted:
                    # A copy: what follows may write into it.
                    self._kept[call] = _copy(output)

            return hook

        try:
            for path in {path for path, _ in wanted}:
                handles.append(modules[path].register_forward_hook(keep(path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _leave_out(self, skip: frozenset[_Call]) -> Iterator[None]:
        """For the block, these calls return what they returned in the last forward.

        A hook cannot keep a module from running; so its ``forward`` is another for the block, on
        the instance, where no other module sees it.
        """
        assert self._plan is not None
        inner = self._plan.inner
        counts: Counter[str] = Counter()
        modules = dict(self.model.named_modules())

        def instead(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                call = path, counts[path]
                if call in skip:
                    counts.update(inner[call])
                    return _copy(self._kept[call])
                counts[path] += 1
                return forward(*args, **kwargs)

            return run

        with ExitStack() as stack:
            if skip:
                # Modules whose calls are counted: those left out, and those within them.
                for path in {path for call in skip for path in inner[call]}:
                    module = modules[path]
                    own = module.__dict__.get("forward")
                    stack.callback(_restore, module, own)
                    module.__dict__["forward"] = instead(path, module.forward)
            yield


class Plan:
    """What ended when, in a forward."""

    def __init__(self, ended: list[_Ended], made: dict[tuple[str, int], int]) -> None:
        self._ended = ended
        self._made = made
        """Of each bounded activation, how many calls had ended when it ran."""
        self.inner = {each.call: each.inner for each in ended}

    def ran_before(self, gate: Gate) -> set[str]:
        """Paths of the modules of which some call had ended before the gate was made."""
        return {each.call[0] for each in self._ended[: self._made[gate.made_in, gate.call]]}

    def before(self, gates: Sequence[Gate]) -> frozenset[_Call]:
        """The outermost calls that had ended before the first of these gates was made."""
        until = min((self._made[gate.made_in, gate.call] for gate in gates), default=0)
        # A gate is known by how many activations its module ran before: no call of that module is
        # left out.
        makers = {gate.made_in for gate in gates}
        free = {
            each.call: each
            for each in self._ended[:until]
            if each.keepable and not makers & each.makes
        }
        return frozenset(
            call for call, each in free.items() if not any(outer in free for outer in each.within)
        )


class Planner(Tracer):
    """Sees in which order calls of modules end and bounded activations run."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.ended: list[_Ended] = []
        self.made: dict[tuple[str, int], int] = {}
        self._open: list[_Open] = []
        self._counts: Counter[str] = Counter()

    def meet(self, product: Product) -> Tensor:
        """Leaves every gate as it is."""
        return product.gate

    def note(
        self,
        known: Known,
        arguments: Sequence[Any],
        marks: Sequence[Mark | None],
        outputs: Sequence[Tensor],
        products: Sequence[Product],
    ) -> None:
        """Sees whether a bounded activation has run."""
        for output in outputs:
            mark = self.mark_of(output)
            if mark is not None and (mark.made_in, mark.call) not in self.made:
                self.made[mark.made_in, mark.call] = len(self.ended)
                for each in self._open:
                    each.makes.add(mark.made_in)

    def open(self, path: str) -> None:
        """A call of a module begins."""
        self._open.append(_Open((path, self._counts[path])))
        self._counts[path] += 1

    def close(self, output: Any) -> None:
        """The innermost call ends."""
        call = self._open.pop()
        call.inner[call.call[0]] += 1
        outer = tuple(each.call for each in self._open)
        # A gate that is given back would come without its mark, and with it whatever it becomes a
        # part of, as in x * (gc * gs).
        keepable = _is_of_tensors(output) and not any(map(self.mark_of, _tensors(output)))
        self.ended.append(_Ended(call.call, outer, call.inner, frozenset(call.makes), keepable))
        if self._open:
            self._open[-1].inner.update(call.inner)


def plan_of(model: nn.Module, x: Tensor) -> Plan:
    """Runs a network once, without gradients, and says what ended when.

    Args:
        model: any network, in eval mode.
        x: as the network gets it, ``(N, 3, H, W)``.
    """
    planner = Planner(model)
    handles: list[RemovableHandle] = []
    try:
        for path, module in model.named_modules():
            handles.append(
                module.register_forward_pre_hook(lambda module, args, path=path: planner.open(path))
            )
            handles.append(
                module.register_forward_hook(lambda module, args, output: planner.close(output))
            )
        with torch.no_grad(), planner:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return Plan(planner.ended, planner.made)


def _is_of_tensors(output: Any) -> bool:
    if isinstance(output, (list, tuple)):
        return type(output) in (list, tuple) and all(map(_is_of_tensors, output))
    return isinstance(output, Tensor)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    else:
        for part in output:
            yield from _tensors(part)


def _copy(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    return type(output)(map(_copy, output))


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = own
