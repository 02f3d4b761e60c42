"""Find, read and edit the gates of any network, by what a gate does.

A gate is a bounded activation's output that multiplies a feature map by broadcasting. While a
network runs, a `TorchFunctionMode` sees every operation on tensors, and follows four rules:

1. What a bounded activation (`_ACTIVATIONS`) returns is **marked**, with the module that made it.
2. The mark is **carried** by operations that keep a gate a gate (`_CARRIERS`, arithmetic with
   numbers, a product of two gates), and dropped by every other one.
3. What is computed from parameters alone is **static**: weights and masks are neither gates nor
   features.
4. Where a marked tensor multiplies a tensor that is neither static nor marked, and broadcasts over
   it, **a gate is found**.

Reading and editing happen at that multiplication. No module is patched or swapped: hooks on the
modules say only which of them is running, so that a gate has a name.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from attnscope.errors import InputError
from attnscope.gate_info import Gate

Edit = Callable[[Tensor, Tensor], Tensor]
"""``fn(gate, features) -> gate``, all in the shapes in which they multiply."""

# What bounds a tensor: function name -> (name of the activation, lower and upper bound).
_ACTIVATIONS = {
    "sigmoid": ("sigmoid", 0.0, 1.0),
    "expit": ("sigmoid", 0.0, 1.0),
    "special_expit": ("sigmoid", 0.0, 1.0),
    "hardsigmoid": ("hardsigmoid", 0.0, 1.0),
    "softmax": ("softmax", 0.0, 1.0),
    "tanh": ("tanh", -1.0, 1.0),
    "relu6": ("relu6", 0.0, 6.0),
}
# What keeps a gate a gate: the values stay, at most in another shape, order or precision.
_CARRIERS = frozenset(
    """
    view reshape view_as reshape_as flatten unflatten squeeze unsqueeze expand expand_as
    broadcast_to repeat repeat_interleave permute transpose swapaxes movedim t contiguous clone
    to type type_as float half bfloat16 double __getitem__ narrow select chunk split tensor_split
    unbind cat concat stack
    """.split()  # noqa: SIM905
)
_MULTIPLICATIONS = frozenset({"mul", "multiply", "__mul__", "__rmul__", "__imul__"})
_ADDITIONS = frozenset({"add", "__add__", "__radd__", "__iadd__"})
_LARGE = 128  # pixels; what is 1×1 on an enlarged sample of this size is no feature map


@dataclass(frozen=True)
class _Mark:
    """What is known of a marked tensor."""

    made_in: str
    call: int
    activation: str
    lo: float
    hi: float
    version: int | None
    """Of the tensor when it was marked: a write to it, or to what it is a view of, counts up."""


@dataclass
class _Listener:
    """One ``with`` block: what it knows, what it edits, what it has seen."""

    gates: dict[tuple[str, int, str], Gate]
    """By place: made_in, call, applied_in."""
    fixed: bool
    """Whether the gates are known beforehand, and must all fire."""
    edits: Mapping[str, Edit] = field(default_factory=dict)
    values: dict[str, Tensor] | None = None
    ambiguous: list[str] = field(default_factory=list)
    """Why the kind of a gate cannot be told, one line each."""
    fired: set[str] = field(default_factory=set)
    edited: dict[str, Tensor] = field(default_factory=dict)
    """What an edit returned in this forward, for the gate's second use."""


class _Ambiguous(InputError):
    """The kind of a gate cannot be told from this sample."""


class _Tracer(TorchFunctionMode):
    """Follows the marks through one network; serves every open ``with`` block on it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.listeners: list[_Listener] = []
        self._model = weakref.ref(model)
        self._marks: MutableMapping[Tensor, _Mark] = WeakTensorKeyDictionary()
        self._static: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
        self._running: list[str] = []
        self._calls: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self._leaves: set[str] = set()

    def __enter__(self) -> _Tracer:
        model = self._model()
        assert model is not None  # the caller's `with` holds it
        for tensor in (*model.parameters(), *model.buffers()):
            self._static[tensor] = True
        for path, module in model.named_modules():
            # A wrapper such as DataParallel is no part of the network's names.
            path = "" if path == "module" else path.removeprefix("module.")
            if not list(module.children()) and not list(module.parameters(recurse=False)):
                self._leaves.add(path)
            self._hook(module, path, is_root=module is model)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _hook(self, module: nn.Module, path: str, is_root: bool) -> None:
        def enter(*_: Any) -> None:
            if is_root:
                self._begin()
            self._running.append(path)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if self._running:  # an exception in somebody's hook may have come before ours
                self._running.pop()
            # After an exception there is no output, and what did not fire is not to blame.
            if is_root and output is not None:
                self._finish()

        self._handles.append(module.register_forward_pre_hook(enter))
        self._handles.append(module.register_forward_hook(leave, always_call=True))

    def _begin(self) -> None:
        self._running.clear()
        self._calls.clear()
        for listener in self.listeners:
            listener.fired.clear()
            listener.edited.clear()
            listener.ambiguous.clear()
            if listener.values is not None:
                listener.values.clear()

    def _finish(self) -> None:
        for listener in self.listeners:
            if listener.ambiguous:
                raise _Ambiguous(listener.ambiguous[0])
            wanted = [g.name for g in listener.gates.values()] if listener.fixed else listener.edits
            silent = [name for name in wanted if name not in listener.fired]
            if silent:
                known = ", ".join(sorted(listener.fired)) or "none"
                raise InputError(
                    f"the gate {silent[0]} did not multiply anything in this forward; "
                    f"those that did: {known}"
                )

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        # sigmoid_ and mul_ do what sigmoid and mul do, and write into their first argument.
        plain = name if name.endswith("__") else name.rstrip("_")
        tensors = list(_tensors(args)) + list(_tensors(kwargs.values()))
        if name == "__get__" or not tensors:
            return func(*args, **kwargs)
        marks = [self._mark_of(t) for t in tensors]
        static = all(t in self._static for t in tensors)
        if plain in _MULTIPLICATIONS and len(tensors) == 2 and any(marks):
            gate, edited = self._multiply(tensors, marks)
            args = tuple(edited if a is gate else a for a in args)
            kwargs = {key: edited if a is gate else a for key, a in kwargs.items()}
        result = func(*args, **kwargs)
        if not static and (name != plain or name == "__setitem__" or name.startswith("__i")):
            self._static.pop(tensors[0], None)  # the input was written into it
        if static:
            for output in _tensors([result]):
                self._static[output] = True
        elif plain in _ACTIVATIONS:
            made_in = self._running[-1] if self._running else ""
            call = self._calls.get(made_in, 0)
            self._calls[made_in] = call + 1
            activation, lo, hi = _ACTIVATIONS[plain]
            self._set_mark(result, _Mark(made_in, call, activation, lo, hi, None))
        elif any(marks):
            carried = self._carry(plain, args, tensors, marks)
            for output in _tensors([result]):
                if carried:
                    self._set_mark(output, carried)
                else:
                    self._marks.pop(output, None)  # an in-place operation returns what it wrote
        return result

    def _mark_of(self, tensor: Tensor) -> _Mark | None:
        mark = self._marks.get(tensor)
        if mark is not None and mark.version != _version(tensor):
            del self._marks[tensor]
            return None
        return mark

    def _set_mark(self, tensor: Tensor, mark: _Mark) -> None:
        self._marks[tensor] = replace(mark, version=_version(tensor))

    def _carry(
        self, name: str, args: Any, tensors: list[Tensor], marks: list[_Mark | None]
    ) -> _Mark | None:
        """The mark of what an operation on marked tensors returns; None where it is no gate."""
        first = next(mark for mark in marks if mark)
        if name in _CARRIERS:
            # Of a view only the first argument is a gate; of a concatenation all must be.
            joined = name in ("cat", "concat", "stack")
            return first if all(marks) or (not joined and marks[0]) else None
        if len(tensors) == 1 and len(args) == 2:
            number = args[1] if args[0] is tensors[0] else args[0]
            if not isinstance(number, (int, float)):
                return None
            return _affine(first, name, number, reverse=args[1] is tensors[0])
        if name in _MULTIPLICATIONS and len(marks) == 2 and marks[0] and marks[1]:
            if tensors[0].shape == tensors[1].shape or _features_of(*tensors) is not None:
                return None
            # Channel gate times spatial gate: one gate of two factors.
            ends = [a * b for a in (marks[0].lo, marks[0].hi) for b in (marks[1].lo, marks[1].hi)]
            return replace(first, lo=min(ends), hi=max(ends))
        return None

    def _multiply(
        self, tensors: list[Tensor], marks: list[_Mark | None]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Serves a multiplication of which one factor may be a gate.

        Returns the gate, if there is one, and what is to multiply in its place.
        """
        if any(t in self._static for t in tensors):
            return None, None
        position = 0 if marks[0] else 1
        if all(marks):
            features_at = _features_of(*tensors)  # bounded features under a gate, as after relu6
            if features_at is None:
                return None, None
            position = 1 - features_at
        gate, features, mark = tensors[position], tensors[1 - position], marks[position]
        assert mark is not None
        sites = [self._site(listener, mark, gate, features) for listener in self.listeners]
        edited = gate
        for listener, site in zip(self.listeners, sites, strict=True):
            if site is None:
                continue
            if site.name in listener.edits:
                if site.name not in listener.fired:
                    new = listener.edits[site.name](edited, features)
                    listener.edited[site.name] = _checked(new, gate, site.name)
                edited = listener.edited[site.name]
            listener.fired.add(site.name)
        for listener, site in zip(self.listeners, sites, strict=True):
            if site and listener.values is not None and site.name not in listener.values:
                listener.values[site.name] = _canonical(edited.detach(), site.kind).clone()
        return gate, edited

    def _site(
        self, listener: _Listener, mark: _Mark, gate: Tensor, features: Tensor
    ) -> Gate | None:
        """The gate at this place, if it is one; a listener that knows no gates yet learns it."""
        applied_in = self._running[-1] if self._running else ""
        place = (mark.made_in, mark.call, applied_in)
        if place in listener.gates or listener.fixed:
            return listener.gates.get(place)
        kind = _kind(gate, features)
        if kind == "full":
            return None
        name = self._name(mark.made_in, applied_in, [g.name for g in listener.gates.values()])
        if kind == "ambiguous":
            listener.ambiguous.append(
                f"the kind of the gate {name} cannot be told where {tuple(gate.shape)} multiplies "
                f"{tuple(features.shape)}"
            )
            return None
        for known in listener.gates.values():
            if (known.made_in, known.call) == (mark.made_in, mark.call):
                return known  # a second use of the same gate
        site = Gate(
            name=name,
            kind=kind,
            channels=features.shape[1],
            grid=(gate.shape[2], gate.shape[3]) if kind == "spatial" else None,
            activation=mark.activation,
            lo=mark.lo,
            hi=mark.hi,
            neutral=1.0,
            made_in=mark.made_in,
            call=mark.call,
            applied_in=applied_in,
        )
        listener.gates[place] = site
        return site

    def _name(self, made_in: str, applied_in: str, taken: list[str]) -> str:
        name = made_in
        if made_in in self._leaves and made_in != applied_in:
            name = made_in.rpartition(".")[0]  # a bare nn.Sigmoid
        number = 1 + sum(other.partition("#")[0] == name for other in taken)
        return name if number == 1 else f"{name}#{number}"


_tracers: weakref.WeakKeyDictionary[nn.Module, _Tracer] = weakref.WeakKeyDictionary()


@contextmanager
def _listen(model: nn.Module, listener: _Listener) -> Iterator[None]:
    """Adds a listener to the network's tracer, which lives as long as the outermost block.

    One tracer serves nested blocks, since a tensor that an edit returned has to keep its mark.
    """
    tracer = _tracers.get(model)
    if tracer is not None:
        tracer.listeners.append(listener)
        try:
            yield
        finally:
            tracer.listeners.remove(listener)
        return
    tracer = _Tracer(model)
    tracer.listeners.append(listener)
    _tracers[model] = tracer
    try:
        with tracer:
            yield
    finally:
        del _tracers[model]


def find_gates(model: nn.Module, images: Tensor) -> list[Gate]:
    """The gates of a network, in the order in which they act.

    The network runs in eval mode without gradients, and is left as it was. Where a map is 1×1 on
    the sample, a channel gate cannot be told from a spatial one: the sample is then enlarged.

    Args:
        model: any network whose forward takes ``images``.
        images: a small sample as the network gets it, ``(N, 3, H, W)``, on the network's device.

    Raises:
        InputError: the kind of a gate cannot be told, since the network takes this size only.
    """
    doubt: _Ambiguous | None = None
    while True:
        listener = _Listener(gates={}, fixed=False)
        try:
            with eval_mode(model), torch.no_grad(), _listen(model, listener):
                model(images)
        except _Ambiguous as error:
            if doubt and max(images.shape[2:]) >= _LARGE:
                break  # 1×1 at any size: not a map, so that nothing broadcasts over it
            doubt = error
            images = nn.functional.interpolate(images, scale_factor=2.0)
        except Exception as error:
            if doubt is None:
                raise
            raise InputError(
                f"{doubt}, and the network takes no larger images ({_first_line(error)}); "
                "give it a sample on which its maps are larger than 1×1"
            ) from error
        else:
            break
    return list(listener.gates.values())


@contextmanager
def watch_gates(
    model: nn.Module, gates: Sequence[Gate] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Reads the gates while the network runs.

    Yields a dict that each forward fills anew: name -> what multiplied the features, detached and
    copied at that moment, in the precision in which it multiplied. A channel gate is ``(N, C)``, a
    spatial gate ``(N, H, W)``, another kind keeps the shape in which it multiplies.

    Args:
        model: any network.
        gates: of `find_gates`; each must then fire in every forward. Without them the gates are
            found in the first forward, whose maps must be larger than 1×1.

    Raises:
        InputError: in a forward, when a gate does not fire or its kind cannot be told.
    """
    values: dict[str, Tensor] = {}
    known = _by_place(gates or ())
    with _listen(model, _Listener(gates=known, fixed=gates is not None, values=values)):
        yield values


@contextmanager
def edit_gates(
    model: nn.Module, edits: Mapping[str, Edit], gates: Sequence[Gate] | None = None
) -> Iterator[None]:
    """Hands the multiplications other gates while the network runs.

    Args:
        model: any network; it is not changed, and afterwards runs exactly as before.
        edits: name -> ``fn(gate, features) -> gate``, called once a forward. The gate comes in the
            shape in which it multiplies, for example ``(N, C, 1, 1)``, and what is returned must
            have that shape. Gradients flow through it. Blocks nest: the inner one receives what the
            outer one returned.
        gates: of `find_gates`; needed where maps are 1×1.

    Raises:
        InputError: in a forward, when a gate does not fire or an edit returns another shape.
    """
    known = _by_place(gates or ())
    if gates is not None:
        names = [gate.name for gate in gates]
        for name in edits:
            if name not in names:
                raise InputError(
                    f"there is no gate '{name}'; there are {', '.join(names) or 'none'}"
                )
        known = {place: gate for place, gate in known.items() if gate.name in edits}
    with _listen(model, _Listener(gates=known, fixed=gates is not None, edits=edits)):
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards every module has its own training flag back."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:  # one flag for all would thaw a frozen BatchNorm
            module.training = training


def _by_place(gates: Sequence[Gate]) -> dict[tuple[str, int, str], Gate]:
    return {(gate.made_in, gate.call, gate.applied_in): gate for gate in gates}


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among values, and those in lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _affine(mark: _Mark, name: str, number: float, reverse: bool) -> _Mark | None:
    """The mark after arithmetic with a number, with the bounds that follow from it."""
    if name in _ADDITIONS:
        ends = (mark.lo + number, mark.hi + number)
    elif name in ("sub", "subtract", "__sub__", "__isub__") and not reverse:
        ends = (mark.lo - number, mark.hi - number)
    elif name in ("rsub", "__rsub__") or (name == "__sub__" and reverse):
        ends = (number - mark.hi, number - mark.lo)
    elif name in _MULTIPLICATIONS:
        ends = (mark.lo * number, mark.hi * number)
    elif name in ("div", "true_divide", "__truediv__", "__itruediv__") and not reverse and number:
        ends = (mark.lo / number, mark.hi / number)
    else:
        return None
    return replace(mark, lo=min(ends), hi=max(ends))


def _features_of(a: Tensor, b: Tensor) -> int | None:
    """Which of two tensors is a feature map that the other broadcasts over: 0, 1 or neither."""
    for position, (features, gate) in enumerate(((a, b), (b, a))):
        if (
            features.ndim == 4
            and min(features.shape[1:]) > 1
            and gate.shape != features.shape
            and _broadcasts(gate, features)
        ):
            return position
    return None


def _broadcasts(gate: Tensor, features: Tensor) -> bool:
    """Whether the product has the shape of the features: the gate broadcasts, not they."""
    if gate.ndim > features.ndim:
        return False
    shape = features.shape[features.ndim - gate.ndim :]
    return all(g in (1, f) for g, f in zip(gate.shape, shape, strict=True))


def _kind(gate: Tensor, features: Tensor) -> str:
    """Kind of a gate over features ``(N, C, H, W)``; ``full`` where it does not broadcast."""
    if features.ndim != 4 or gate.ndim != 4 or not _broadcasts(gate, features):
        return "full"
    if gate.shape[0] != features.shape[0]:
        return "full"  # one gate for a whole batch says nothing about an image
    if features.shape[2] == features.shape[3] == 1:
        return "ambiguous"
    if gate.shape == features.shape:
        return "full"
    varies = tuple(size > 1 for size in gate.shape[1:])
    if not any(varies[1:]):
        return "channel"
    if not varies[0]:
        return "spatial"
    return "strip"


def _canonical(gate: Tensor, kind: str) -> Tensor:
    """A gate as it is handed out: ``(N, C)`` for channels, ``(N, H, W)`` for pixels."""
    if kind == "channel":
        return gate[:, :, 0, 0]
    if kind == "spatial":
        return gate[:, 0]
    return gate


def _checked(edited: Tensor, gate: Tensor, name: str) -> Tensor:
    if not isinstance(edited, Tensor) or edited.shape != gate.shape:
        got = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
        raise InputError(
            f"the edit of {name} returned {got}; it must return a tensor of {tuple(gate.shape)}"
        )
    return edited


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
