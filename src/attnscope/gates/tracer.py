"""Follows marks through a forward of a network: what `attnscope.gates` stands on.

While a network runs, a `TorchFunctionMode` sees every operation on tensors. What each of them does
to a mark is asked of `attnscope.gates.ops`, and no operation is known by name here; the marks are
kept, and it is seen where a marked tensor multiplies. Hooks on the modules say only which of them
is running, so that a gate has a name.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from attnscope.errors import InputError
from attnscope.gates.marks import Bounds, Mark
from attnscope.gates.ops.arithmetic import product_of
from attnscope.gates.ops.operation import Call, Factors, Known, look_up
from attnscope.registry import load_declared_plugins

# Arguments that may be given by name, in their order.
_BY_NAME = ("input", "self", "tensors", "other", "tensor1", "tensor2", "end", "weight")


@dataclass(frozen=True)
class Product:
    """A multiplication of which a marked tensor is one factor."""

    gate: Tensor
    mark: Mark
    features: Tensor | None
    """The other factor; None where it is a gate of another shape."""
    addend: Tensor | None
    """What is added to the product, as in ``torch.addcmul``."""


class Tracer(TorchFunctionMode):
    """Keeps the marks of one network's tensors while it runs.

    Marks are weak references: no tensor lives longer for having been marked.

    Raises:
        InputError: on entering, where the network holds a module whose operations cannot be seen.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = weakref.ref(model)
        self._marks: MutableMapping[Tensor, Mark] = WeakTensorKeyDictionary()
        # What no input has a part in (parameters, constants, noise), with its version.
        self._static: MutableMapping[Tensor, int | None] = WeakTensorKeyDictionary()
        # Of the network's own tensors the version when they were last put there. To put all of them
        # there before each forward costs one part in a hundred of it.
        self._known: dict[int, tuple[Tensor, int | None]] = {}
        self._running: list[str] = []
        self._calls: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self._paused = False
        self.bare: set[str] = set()
        """Paths of the modules that have neither modules within them nor parameters."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The network is about to run on these arguments."""

    @abstractmethod
    def meet(self, product: Product) -> Tensor:
        """A gate is about to multiply; returns what is to multiply in its place."""

    def finish(self) -> None:
        """The network has run."""

    def note(
        self,
        known: Known,
        arguments: Sequence[Any],
        marks: Sequence[Mark | None],
        outputs: Sequence[Tensor],
        products: Sequence[Product],
    ) -> None:
        """An operation has run of which ``marks`` were those of its arguments."""

    def bounds_of(self, tensor: Tensor) -> Bounds | None:
        """Bounds of a tensor that no input has a part in; None for any other."""
        return (0.0, 0.0) if self.is_static(tensor) else None

    @property
    def running(self) -> str:
        """Path of the innermost module that is running."""
        return self._running[-1] if self._running else ""

    def mark_of(self, tensor: object) -> Mark | None:
        """The mark of a tensor, unless something was written into it since."""
        if not isinstance(tensor, Tensor):
            return None
        mark = self._marks.get(tensor)
        if mark is not None and mark.version != _version(tensor):
            del self._marks[tensor]
            return None
        return mark

    def is_static(self, tensor: Tensor) -> bool:
        """Whether no input has a part in it: weights and masks are neither gates nor features."""
        return self._static.get(tensor, -1) == _version(tensor)

    def __enter__(self) -> Tracer:
        load_declared_plugins()  # now, and not in the middle of a forward
        model = self._model()
        assert model is not None  # the caller's `with` holds it
        for path, module in model.named_modules():
            _refuse_what_cannot_be_seen(module, path)
        for path, module in model.named_modules():
            # A wrapper such as DataParallel is no part of the network's names.
            path = "" if path == "module" else path.removeprefix("module.")
            if not list(module.children()) and not list(module.parameters(recurse=False)):
                self.bare.add(path)
            self._hook(module, path, is_root=module is model)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._known.clear()
        for handle in self._handles:
            handle.remove()

    def _hook(self, module: nn.Module, path: str, is_root: bool) -> None:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self._paused:
                return
            if is_root:
                self._running.clear()
                self._calls.clear()
                self._know(module)
                self._paused = True  # what is done to get ready is no part of this forward
                try:
                    self.begin(args, kwargs)
                finally:
                    self._paused = False
            self._running.append(path)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if self._paused:
                return
            if self._running:  # an exception in somebody's hook may have come before ours
                self._running.pop()
            # After an exception there is no output, and what did not fire is not to blame.
            if is_root and output is not None:
                self.finish()

        self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        self._handles.append(module.register_forward_hook(leave, always_call=True))

    def _know(self, model: nn.Module) -> None:
        """Parameters and buffers are static at the start of a forward, whatever was written."""
        known = {}  # a new one: a buffer that was replaced must not live on here
        for tensor in (*model.parameters(), *model.buffers()):
            version = _version(tensor)
            old = self._known.get(id(tensor))
            if old is None or old[1] != version or version is None:
                self._static[tensor] = version
            known[id(tensor)] = tensor, version
        self._known = known

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        known = look_up(func)
        name, operation = known.name, known.operation
        if name == "get":  # of an attribute
            return self._attribute(func(*args, **kwargs), args[0])
        arguments = [*args, *(kwargs[key] for key in _BY_NAME if key in kwargs)]
        if operation.takes_list and arguments:
            arguments = [*arguments[0], *arguments[1:]]
        keywords = {key: kwargs[key] for key in kwargs if key not in (*_BY_NAME, "out")}
        tensors = list(_tensors([*arguments, *keywords.values()]))
        # Outside the network nobody knows: noise that is made there may be its input.
        static = bool(self._running) and (operation.creates or all(map(self.is_static, tensors)))
        marks = [self.mark_of(argument) for argument in arguments]
        marked = any(marks)
        products: list[Product] = []
        if marked and operation.multiplies is not None:
            products = self._products(operation.multiplies, arguments, marks)
            for product in products:
                edited = self.meet(product)
                if edited is not product.gate:
                    args = tuple(edited if a is product.gate else a for a in args)
                    kwargs = {k: edited if a is product.gate else a for k, a in kwargs.items()}
        result = func(*args, **kwargs)
        outputs = list(_tensors([result]))
        if (known.writes or kwargs.get("inplace")) and tensors:
            outputs = outputs or tensors[:1]
        fresh: Mark | None = None
        if operation.activates and tensors and not (marked and operation.carries):
            bounded = operation.activates(name, arguments, keywords)
            if bounded is not None:
                call = self._calls.get(self.running, 0)
                self._calls[self.running] = call + 1
                label, bounds = bounded
                fresh = Mark(self.running, call, label, bounds, ((self.running, call),))
        for number, output in enumerate(outputs):
            mark = fresh
            if mark is None and marked:
                mark = self._mark_after(
                    known, arguments, keywords, marks, products, (number, output)
                )
            if static:
                self._static[output] = _version(output)
            else:
                self._static.pop(output, None)
                self._known.pop(id(output), None)
            if mark:
                self._marks[output] = replace(mark, version=_version(output))
            else:
                self._marks.pop(output, None)
        self.note(known, arguments, marks, outputs, products)
        return result

    def _attribute(self, value: Any, of: Tensor) -> Any:
        """``tensor.data`` and the like are what the tensor is."""
        if isinstance(value, Tensor):
            mark = self.mark_of(of)
            if mark:
                self._marks[value] = replace(mark, version=_version(value), factors=())
            if self.is_static(of):
                self._static[value] = _version(value)
        return value

    def _products(
        self, factors: Factors, arguments: Sequence[Any], marks: Sequence[Mark | None]
    ) -> list[Product]:
        """The gates that act in this multiplication: none, one, or two that are factors of one."""
        i, j = factors.first, factors.second
        if len(arguments) <= max(i, j):
            return []
        a, b = arguments[i], arguments[j]
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            return []
        addend = None if factors.addend is None else arguments[factors.addend]
        of_a, of_b = marks[i], marks[j]
        if of_a and of_b:
            if self.is_static(a) or self.is_static(b) or a.shape == b.shape:
                return []  # becomes one gate
            if _is_map(b) and _covers(b, a):
                return [Product(a, of_a, b, addend)]
            if _is_map(a) and _covers(a, b):
                return [Product(b, of_b, a, addend)]
            return [Product(a, of_a, None, addend), Product(b, of_b, None, addend)]
        gate, features, mark = (a, b, of_a) if of_a else (b, a, of_b)
        if mark is None or self.is_static(features) or features.ndim < 3:
            return []
        return [Product(gate, mark, features, addend)] if _covers(features, gate) else []

    def _mark_after(
        self,
        known: Known,
        arguments: Sequence[Any],
        keywords: dict[str, Any],
        marks: Sequence[Mark | None],
        products: Sequence[Product],
        output: tuple[int, Tensor],
    ) -> Mark | None:
        operation = known.operation
        if products:
            factors = operation.multiplies
            if products[0].features is not None or factors is None or not factors.is_product:
                return None
            return product_of(products[0].mark, products[1].mark, known.name)
        if operation.carries is None:
            return None
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if not all(map(self.is_static, tensors)):
            # Beside a gate, sigmoid(parameter) is a parameter.
            marks = [
                None if isinstance(a, Tensor) and self.is_static(a) else mark
                for a, mark in zip(arguments, marks, strict=True)
            ]
            if not any(marks):
                return None
        number, tensor = output
        selects = bool(tensors) and tensor.numel() < tensors[0].numel()
        mark = operation.carries(
            Call(known.name, arguments, keywords, marks, self.bounds_of, number, selects)
        )
        if mark is None:
            return None
        copied: frozenset[int] = frozenset()
        if operation.keeps_places:
            source = next(a for a, own in zip(arguments, marks, strict=True) if own)
            copied = _copied_along(mark, source, tensor)
        return replace(mark, copied=copied)


def _refuse_what_cannot_be_seen(module: nn.Module, path: str) -> None:
    """Refuses modules that run without Python, where no operation is seen."""
    what = ""
    if isinstance(module, torch.jit.ScriptModule):
        what = "scripted or traced by torch.jit"
    elif type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
        what = "compiled by torch.compile"
    if what:
        raise InputError(
            f"the module {path or 'itself'} ({type(module).__name__}) is {what}, and its "
            "operations cannot be seen; take the network as it was before that"
        )


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among values, and those in lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _copied_along(mark: Mark, before: Tensor, after: Tensor) -> frozenset[int]:
    """Axes of the result along which every value is one and the same, by its making."""
    if after.ndim < before.ndim:
        return frozenset()
    sizes = (1,) * (after.ndim - before.ndim) + tuple(before.shape)
    grown = {axis for axis in range(-after.ndim, 0) if sizes[axis] == 1 and after.shape[axis] > 1}
    return mark.copied | grown


def _covers(features: Tensor, gate: Tensor) -> bool:
    """Whether the product has the shape of the features: the gate broadcasts, not they."""
    if gate.ndim > features.ndim:
        return False
    shape = features.shape[features.ndim - gate.ndim :]
    return all(g in (1, f) for g, f in zip(gate.shape, shape, strict=True))


def _is_map(tensor: Tensor) -> bool:
    """Whether a bounded tensor is rather features, as after relu6, than a gate."""
    return tensor.ndim >= 3 and min(tensor.shape[1:]) > 1
