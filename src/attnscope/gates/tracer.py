"""Follow marks through a forward of a network.

A `TorchFunctionMode` receives every operation on tensors while a network runs.
`attnscope.gates.ops` says what each operation does to a mark; this module knows no operation by
name. It keeps the marks, and detects where a marked tensor multiplies. Hooks on the modules only
tell which module is running, which gives each gate its name.
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

# Tensor arguments that can be passed by keyword, in their positional order.
_BY_NAME = ("input", "self", "tensors", "other", "tensor1", "tensor2", "end", "weight")


@dataclass(frozen=True)
class Product:
    """A multiplication with a marked tensor as one factor."""

    gate: Tensor
    """The marked tensor."""
    mark: Mark
    """Its mark."""
    features: Tensor | None
    """The other factor. None if it is a gate of another shape."""
    addend: Tensor | None
    """The tensor that is added to the product, as in ``torch.addcmul``."""


class Tracer(TorchFunctionMode):
    """Keeps the marks of a network's tensors while the network runs.

    Marks are stored by weak reference, so a marked tensor does not live longer.

    Raises:
        InputError: on entering, if a module is scripted or compiled (AS406).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = weakref.ref(model)
        self._marks: MutableMapping[Tensor, Mark] = WeakTensorKeyDictionary()
        # Tensors that do not depend on the input (parameters, constants, noise), with versions.
        self._static: MutableMapping[Tensor, int | None] = WeakTensorKeyDictionary()
        # Versions of the parameters and buffers in `_static`. Adding all of them again before each
        # forward would cost 1% of its time.
        self._known: dict[int, tuple[Tensor, int | None]] = {}
        self._running: list[str] = []
        self._calls: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self._paused = False
        self.bare: set[str] = set()
        """Paths of the modules without submodules and without parameters, such as `nn.Sigmoid`."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before each forward, with its arguments."""

    @abstractmethod
    def meet(self, product: Product) -> Tensor:
        """Called before a gate multiplies. Returns the tensor that multiplies instead."""

    def finish(self) -> None:
        """Called after each forward."""

    def note(
        self,
        known: Known,
        arguments: Sequence[Any],
        marks: Sequence[Mark | None],
        outputs: Sequence[Tensor],
        products: Sequence[Product],
    ) -> None:
        """Called after each operation, with its arguments, their marks, and its results."""

    def bounds_of(self, tensor: Tensor) -> Bounds | None:
        """Return the bounds of a static tensor, and None for any other tensor."""
        return (0.0, 0.0) if self.is_static(tensor) else None

    @property
    def running(self) -> str:
        """Path of the innermost running module."""
        return self._running[-1] if self._running else ""

    def mark_of(self, tensor: object) -> Mark | None:
        """Return the mark of a tensor, or None if it has none or was written to since."""
        if not isinstance(tensor, Tensor):
            return None
        mark = self._marks.get(tensor)
        if mark is not None and mark.version != _version(tensor):
            del self._marks[tensor]
            return None
        return mark

    def is_static(self, tensor: Tensor) -> bool:
        """Return whether a tensor does not depend on the input, such as a weight or a mask."""
        return self._static.get(tensor, -1) == _version(tensor)

    def __enter__(self) -> Tracer:
        load_declared_plugins()  # import plugins now, not in the middle of a forward
        model = self._model()
        assert model is not None  # the caller's `with` holds it
        for path, module in model.named_modules():
            _refuse_untraceable(module, path)
        for path, module in model.named_modules():
            # The names leave out a wrapper such as DataParallel.
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
                self._mark_parameters_static(module)
                self._paused = True  # `begin` may run the network; this is not part of the forward
                try:
                    self.begin(args, kwargs)
                finally:
                    self._paused = False
            self._running.append(path)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if self._paused:
                return
            if self._running:  # empty if another hook raised before `enter` ran
                self._running.pop()
            # There is no output after an exception, and gates may be missing for that reason.
            if is_root and output is not None:
                self.finish()

        self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        self._handles.append(module.register_forward_hook(leave, always_call=True))

    def _mark_parameters_static(self, model: nn.Module) -> None:
        """Mark parameters and buffers as static at the start of a forward, even after writes."""
        known = {}  # a new dict, so that replaced buffers are released
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
        # Tensors created outside the network, such as noise, may be its input.
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
        """Give ``tensor.data`` and the like the mark of the tensor."""
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
        """Return the gates in a multiplication: none, one, or two that multiply each other."""
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
                return []  # the product is one gate
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
            # Next to a gate, sigmoid(parameter) counts as a parameter.
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


def _refuse_untraceable(module: nn.Module, path: str) -> None:
    """Refuse modules that run without Python, because their operations cannot be traced."""
    what = ""
    if isinstance(module, torch.jit.ScriptModule):
        what = "scripted or traced by torch.jit"
    elif type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
        what = "compiled by torch.compile"
    if what:
        where = f"the module {path}" if path else "the network"
        raise InputError(
            "AS406",
            f"{where} ({type(module).__name__}) is {what}, so its operations cannot be traced; "
            "use the original module",
        )


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among values, including those in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _copied_along(mark: Mark, before: Tensor, after: Tensor) -> frozenset[int]:
    """Return the axes of the result along which values are repeated by construction."""
    if after.ndim < before.ndim:
        return frozenset()
    sizes = (1,) * (after.ndim - before.ndim) + tuple(before.shape)
    grown = {axis for axis in range(-after.ndim, 0) if sizes[axis] == 1 and after.shape[axis] > 1}
    return mark.copied | grown


def _covers(features: Tensor, gate: Tensor) -> bool:
    """Return whether the gate broadcasts to the shape of the features."""
    if gate.ndim > features.ndim:
        return False
    shape = features.shape[features.ndim - gate.ndim :]
    return all(g in (1, f) for g, f in zip(gate.shape, shape, strict=True))


def _is_map(tensor: Tensor) -> bool:
    """Return whether a bounded tensor is a feature map, as after ReLU6, and not a gate."""
    return tensor.ndim >= 3 and min(tensor.shape[1:]) > 1
