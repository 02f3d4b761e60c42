"""Follow marks through a forward of a network.

A `TorchFunctionMode` receives every operation on tensors while a network runs.
`attnscope.gates.ops` says what each operation does to a mark; this module knows no operation by
name. It keeps the marks, and detects where a marked tensor multiplies. Hooks on the modules only
tell which module is running, which gives each gate its name.

This file has more than 400 lines, because every step of one operation under the mode is here.
"""

from __future__ import annotations

import math
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from attnscope.gates.inputs import Inputs
from attnscope.gates.marks import UNBOUNDED, Bounds, Mark
from attnscope.gates.modes import EAGER_STANCE, FUNCTION_MODES, are_plain, has_fast_path, is_opaque
from attnscope.gates.ops.arithmetic import product_of
from attnscope.gates.ops.operation import (
    UNKNOWN,
    Call,
    Factors,
    Known,
    look_up,
)
from attnscope.gates.products import (
    UNBOUNDED_FORM,
    Product,
    bounded_product,
    products_of,
    unbounded_multiplier,
)
from attnscope.gates.tensor_map import TensorMap
from attnscope.gates.untraceable import refuse_untraceable
from attnscope.gates.variants import Variants, operands_of
from attnscope.registry import load_declared_plugins

# Tensor arguments that can be passed by keyword, in their positional order.
_BY_NAME = ("input", "self", "tensors", "other", "tensor1", "tensor2", "end", "weight")
_NO_KEYWORDS = frozenset({*_BY_NAME, "out"})


_levels = [0]
# While a tracer looks for gates, the tracers of outer blocks must not count its operations.


@contextmanager
def own_level() -> Iterator[None]:
    """Hide a block from the tracers that exist before it."""
    _levels.append(max(_levels) + 1)
    try:
        yield
    finally:
        _levels.pop()


@dataclass(frozen=True, slots=True)
class _Traced:
    """A module of the network, and what does not change while it is traced."""

    module: nn.Module
    path: str
    is_root: bool
    """Whether it is the network itself."""
    is_learned: bool
    """Whether it has parameters and no submodules."""
    is_opaque: bool
    """Whether it runs one operation that is not registered, and nothing else."""
    has_fast_path: bool
    tensors: tuple[dict[str, Tensor | None], ...]
    """The dicts of parameters and buffers, if the module could run without the mode."""

    @property
    def is_plain(self) -> bool:
        """Whether its weights have no operations of their own. They can be replaced in a block."""
        return all(are_plain(tensors.values()) for tensors in self.tensors)


class Tracer(TorchFunctionMode):
    """Keeps the marks of a network's tensors while the network runs.

    Marks are stored by weak reference, so a marked tensor does not live longer.

    Raises:
        InputError: on entering, if a module or a function is scripted or compiled (AS406).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = weakref.ref(model)
        # Each mark with the version of its tensor when it was marked: a write ends the mark.
        self._marks: TensorMap[tuple[Mark, int | None]] = TensorMap()
        # Tensors that do not depend on the input (parameters, constants, noise), with versions.
        self._static: TensorMap[int | None] = TensorMap()
        # Versions of the parameters and buffers in `_static`. Adding all of them again before each
        # forward would cost 1% of its time.
        self._known: dict[int, tuple[Tensor, int | None]] = {}
        # The ids and versions of all of them, if `_known` and `_static` hold these.
        self._state: tuple[list[int], list[int]] | None = None
        self._running: list[str] = []
        self._calls: dict[str, int] = {}
        self._entries: dict[str, int] = {}
        self._variants = Variants()
        self._handles: list[RemovableHandle] = []
        # id of a module -> the module, which is kept so that no other gets its id, and its path.
        self._modules: dict[int, _Traced] = {}
        # The dicts of parameters and of buffers of all modules.
        self._owned: list[dict[str, Tensor | None]] = []
        # Modules that hold tensors which are neither parameters nor buffers, and their attributes.
        self._holders: list[tuple[nn.Module, str]] = []
        # Output of a module with parameters and without submodules, or a tensor made from it by
        # moves -> the path of the module.
        self._sources: TensorMap[str] = TensorMap()
        # Result of a negation -> its argument.
        self._negatives: TensorMap[weakref.ref[Tensor]] = TensorMap()
        # Depths of the running modules that run without the mode.
        self._untraced: list[int] = []
        self._level = _levels[-1]
        self.called = ""
        """Path of the module that was called from outside: the network itself if it is empty."""
        self.meets_unbounded = False
        """Whether `meet` is called for multipliers that come from no bounded activation."""
        self.skips_unknown = False
        """Whether `note` is not called for operations that are not registered."""
        self.bare: set[str] = set()
        """Paths of the modules without submodules and without parameters, such as `nn.Sigmoid`."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before each forward of the network, with its arguments."""

    def begin_part(self, path: str) -> None:
        """Called before a module is called from outside the network, without the network."""

    @abstractmethod
    def meet(self, product: Product) -> Tensor:
        """Called before a gate multiplies. Returns the tensor that multiplies instead."""

    def finish(self, output: Any) -> None:
        """Called after each forward of the network, with its output."""

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
    def _paused(self) -> bool:
        """Whether another tracer looks for gates, which is not part of this forward."""
        return _levels[-1] != self._level

    @property
    def running(self) -> str:
        """Path of the innermost running module."""
        return self._running[-1] if self._running else ""

    def mark_of(self, tensor: object) -> Mark | None:
        """Return the mark of a tensor, or None if it has none or was written to since."""
        if not isinstance(tensor, Tensor):
            return None
        found = self._marks.get(tensor)
        if found is None:
            return None
        mark, version = found
        if version != _version(tensor):
            self._marks.discard(tensor)
            return None
        return mark

    def is_static(self, tensor: Tensor) -> bool:
        """Return whether a tensor does not depend on the input, such as a weight or a mask."""
        version = self._static.get(tensor, -1)
        return version != -1 and version == _version(tensor)

    def __enter__(self) -> Tracer:
        load_declared_plugins()  # import plugins now, not in the middle of a forward
        model = self._model()
        assert model is not None  # the caller's `with` holds it
        refuse_untraceable(model)
        is_wrapped = [name for name, _ in model.named_children()] == ["module"]
        for path, module in model.named_modules():
            if is_wrapped:  # the names leave out a wrapper such as DataParallel
                path = "" if path == "module" else path.removeprefix("module.")
            is_learned = False
            if not list(module.children()):
                is_learned = bool(list(module.parameters(recurse=False)))
                if not is_learned:
                    self.bare.add(path)
            without_mode = is_opaque(module), has_fast_path(module)
            within = module.modules() if any(without_mode) else ()
            tensors = tuple(own for each in within for own in (each._parameters, each._buffers))
            self._modules[id(module)] = _Traced(
                module, path, module is model, is_learned, *without_mode, tensors
            )
            self._owned += [module._parameters, module._buffers]
            self._holders += [
                (module, name)
                for name, value in vars(module).items()
                if not name.startswith("_") and next(_tensors([value]), None) is not None
            ]
        EAGER_STANCE.enter()
        # Hooks on all modules, and none on the network's own: a copy of the network that is made
        # inside the block has no hooks, and the network can be pickled.
        enter = register_module_forward_pre_hook(self._enter_module)
        leave = register_module_forward_hook(self._leave_module, always_call=True)
        for known in self._modules.values():
            if known.is_root or known.has_fast_path:  # the inputs may be keywords
                known.module._forward_pre_hooks_with_kwargs[enter.id] = True
        self._handles += [enter, leave]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        EAGER_STANCE.leave()
        self._switch_on()  # a hook of somebody else may have raised
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._known.clear()
        self._state = None
        for handle in self._handles:
            handle.remove()
            for known in self._modules.values():
                known.module._forward_pre_hooks_with_kwargs.pop(handle.id, None)
        self._modules.clear()
        self._owned.clear()
        self._holders.clear()

    def _switch_on(self) -> None:
        """Switch the modes on again that were switched off in modules which were not left."""
        while self._untraced:
            self._untraced.pop()
            FUNCTION_MODES.switch_on()

    def _enter_module(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        known = self._modules.get(id(module))
        if known is None or self._paused:
            return
        path = known.path
        if known.is_root or not self._running:
            # After a KeyboardInterrupt in the last forward, torch has called no hook.
            self._switch_on()
            self._running.clear()
            self._calls.clear()
            self._variants.clear()
            self._entries.clear()
            self._mark_parameters_static()
            for tensor in Inputs(args, kwargs or {}).tensors:  # an attribute may hold an input
                self._move(tensor)
            self.called = path
            if known.is_root:
                self.begin(args, kwargs or {})
            else:
                self.begin_part(path)
        self._entries[path] = self._entries.get(path, -1) + 1
        self._running.append(path)
        if self._runs_without_mode(known, args, kwargs or {}):
            self._untraced.append(len(self._running))
            FUNCTION_MODES.switch_off()

    def _runs_without_mode(
        self, known: _Traced, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Return whether a module must or can run without the mode, which changes no value."""
        # An active mode would switch off the fast path, which changes the last bits.
        if known.has_fast_path:
            return known.is_plain and are_plain(_tensors([*args, *kwargs.values()]))
        # The others say nothing about their results, and run faster without the mode.
        # A hook before a module could hold a gate.
        skips = known.is_opaque and self.skips_unknown and not known.module._forward_pre_hooks
        return skips and self._is_moving(args) and are_plain(args) and known.is_plain

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        known = self._modules.get(id(module))
        if known is None or self._paused:
            return
        if self._untraced and self._untraced[-1] == len(self._running):
            self._untraced.pop()
            FUNCTION_MODES.switch_on()
            if isinstance(output, Tensor):
                self._forget(output)
        if self._running:  # empty if another hook raised before `_enter_module` ran
            self._running.pop()
        if known.is_learned and isinstance(output, Tensor):
            self._sources[output] = known.path
        # There is no output after an exception, and gates may be missing for that reason.
        if known.is_root and output is not None:
            self.finish(output)

    def _mark_parameters_static(self) -> None:
        """Mark the network's own tensors as static at the start of a forward, even after writes."""
        with torch._C.DisableTorchFunction():  # each `_version` is a call that the mode receives
            held = [getattr(holder, name, None) for holder, name in self._holders]
            owned = chain.from_iterable(map(dict.values, self._owned))
            own = [tensor for tensor in owned if tensor is not None]
            own += _tensors(held)
            try:
                state = [*map(id, own)], [tensor._version for tensor in own]
            except RuntimeError:  # tensors of inference mode have no version
                state = None
            if state is not None and state == self._state:
                return  # as in the last forward, and nothing was forgotten since
            known = {}  # a new dict, so that replaced buffers are released
            for tensor in own:
                version = _version(tensor)
                old = self._known.get(id(tensor))
                if old is None or old[1] != version or version is None:
                    self._static[tensor] = version
                known[id(tensor)] = tensor, version
        self._known, self._state = known, state

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _levels[-1] != self._level:  # `_paused`, for speed
            return func(*args, **kwargs)
        known = look_up(func)
        operation = known.operation
        if known.name == "get":  # of an attribute
            return self._attribute(func(*args, **kwargs), args[0])
        writes = known.writes or (bool(kwargs) and ("out" in kwargs or kwargs.get("inplace")))
        is_plain = operation is UNKNOWN and self.skips_unknown and not writes
        if is_plain and self._is_moving(args):
            result = func(*args, **kwargs)
            if type(result) is Tensor:
                self._forget(result)
                return result
            for output in _tensors([result]):
                self._forget(output)
            return result
        if operation.takes_operands and len(args) == 2 and isinstance(args[1], (list, tuple)):
            args = args[0], *args[1]
        arguments, keywords = list(args), kwargs
        if kwargs:
            arguments += [kwargs[key] for key in _BY_NAME if key in kwargs]
            keywords = {key: kwargs[key] for key in kwargs if key not in _NO_KEYWORDS}
        if operation.sums and len(arguments) == 1:
            arguments += [keywords[key] for key in ("dim", "axis") if key in keywords]
        if operation.takes_list and arguments:
            arguments = [*arguments[0], *arguments[1:]]
        tensors = list(_tensors([*arguments, *keywords.values()]))
        # Tensors created outside the network, such as noise, may be its input.
        static = bool(self._running) and (operation.creates or all(map(self.is_static, tensors)))
        marks = [self.mark_of(argument) for argument in arguments]
        marked = any(marks)
        products: list[Product] = []
        if operation.multiplies is not None:
            if marked:
                products = products_of(operation.multiplies, arguments, marks, self.is_static)
            others = self._unbounded_products(operation.multiplies, arguments, products)
            if marked and not products:
                others += bounded_product(operation.multiplies, arguments, marks, self.is_static)
            products, others = self._numbered(products), self._numbered(others)
            for product in (*products, *others):
                edited = self.meet(product)
                if edited is not product.gate:
                    args = tuple(product.replaced(a, edited) for a in args)
                    kwargs = {k: product.replaced(a, edited) for k, a in kwargs.items()}
        result = func(*args, **kwargs)
        outputs = list(_tensors([result]))
        if (known.writes or kwargs.get("inplace")) and tensors:
            outputs = outputs or tensors[:1]
        if writes:
            for output in outputs:
                self._forget_aliases(output)
        fresh: Mark | None = None
        if tensors and not (marked and operation.carries):
            fresh = self._fresh_mark(known, arguments, keywords, tensors, static)
        if operation.negates and len(tensors) == 1 and outputs:
            self._negatives[outputs[0]] = weakref.ref(tensors[0])
        if operation.carries is not None and len(tensors) == 1 and not marked and outputs:
            source = self._sources.get(tensors[0], "")
            if source:
                self._sources[outputs[0]] = source
        for number, output in enumerate(outputs):
            mark = fresh
            if mark is None and marked:
                mark = self._mark_after(
                    known, arguments, keywords, marks, products, (number, output)
                )
            if static:
                self._static[output] = _version(output)
            elif mark:
                self._move(output)
            if mark:
                self._marks[output] = mark, _version(output)
            elif static:
                self._marks.discard(output)
            else:
                self._forget(output)
        self.note(known, arguments, marks, outputs, products)
        return result

    def _numbered(self, products: Sequence[Product]) -> list[Product]:
        """Return the products with marks that tell apart gates of the same place."""
        found = []
        for product in products:
            mark = self._variants.numbered(product.mark)
            found.append(product if mark is product.mark else replace(product, mark=mark))
        return found

    def _is_moving(self, args: tuple[Any, ...]) -> bool:
        """Return whether the first argument depends on the input, so that the result does."""
        return bool(args) and isinstance(args[0], Tensor) and not self.is_static(args[0])

    def _forget(self, tensor: Tensor) -> None:
        """Forget a tensor, such as the result of an operation that says nothing about it."""
        self._marks.discard(tensor)
        self._move(tensor)

    def _forget_aliases(self, written: Tensor) -> None:
        """Forget the tensors that share the memory of one that was written to.

        Otherwise their versions tell of the write. Tensors of inference mode have none.
        """
        if _version(written) is not None:
            return
        shares = partial(torch._C._is_alias_of, written)  # type: ignore[attr-defined]
        for tensor, version in self._static.items():
            if version is None and tensor is not written and shares(tensor):
                self._move(tensor)
        for tensor, (_, version) in self._marks.items():
            if version is None and tensor is not written and shares(tensor):
                self._marks.discard(tensor)

    def _move(self, tensor: Tensor) -> None:
        """Note that a tensor depends on the input."""
        self._static.discard(tensor)
        if self._known.pop(id(tensor), None) is not None:
            self._state = None

    def _fresh_mark(
        self,
        known: Known,
        arguments: Sequence[Any],
        keywords: dict[str, Any],
        tensors: Sequence[Tensor],
        static: bool,
    ) -> Mark | None:
        """Return the mark of the result if the operation bounds it, and else None."""
        operation, one_sided = known.operation, known.operation.one_sided
        bounded = None
        if operation.activates:
            bounded = operation.activates(known.name, arguments, keywords)
        elif operation.squares and len(tensors) == 2 and not static:
            bounded, one_sided = self._square(*tensors), True
        if bounded is None:
            return None
        label, bounds = bounded
        running = self.running
        # Functions with one bound are counted apart: they are no gates by themselves.
        key = f"{running}:{label}" if one_sided else running
        call = self._calls.get(key, 0)
        self._calls[key] = call + 1
        source = self._sources.get(tensors[0], "")
        number = self._calls.get(f"{key} {source}", 0)
        self._calls[f"{key} {source}"] = number + 1
        return Mark(
            running,
            call,
            label,
            bounds,
            ((key, call),),
            form=label if one_sided else "",
            entry=self._entries.get(running, 0),
            outside=not self._running,
            source=source,
            number=number,
        )

    def _square(self, a: Tensor, b: Tensor) -> tuple[str, Bounds] | None:
        """Return the bounds of ``z * z`` and of ``-z * z``, and None for other products."""
        if a is b:
            return "square", (0.0, math.inf)
        for one, other in ((a, b), (b, a)):
            negative = self._negatives.get(one)
            if negative is not None and negative() is other:
                return "square", (-math.inf, 0.0)
        return None

    def _attribute(self, value: Any, of: Tensor) -> Any:
        """Give ``tensor.data`` and the like the mark of the tensor."""
        if isinstance(value, Tensor):
            mark = self.mark_of(of)
            if mark:
                self._marks[value] = replace(mark, factors=()), _version(value)
            if self.is_static(of):
                self._static[value] = _version(value)
        return value

    def _unbounded_products(
        self, factors: Factors, arguments: Sequence[Any], products: Sequence[Product]
    ) -> list[Product]:
        """Return the multiplier of a product that broadcasts like a gate and has no bounds."""
        if not self.meets_unbounded or any(p.mark.bounded or p.divides for p in products):
            return []
        found = unbounded_multiplier(factors, arguments, self.is_static)
        if found is None:
            return []
        key = f"{self.running}:{UNBOUNDED_FORM}"
        number = self._calls.get(key, 0)
        self._calls[key] = number + 1
        mark = Mark(
            self.running,
            number,
            "none",
            UNBOUNDED,
            ((key, number),),
            form=UNBOUNDED_FORM,
            entry=self._entries.get(self.running, 0),
            outside=not self._running,
            number=number,
        )
        return [Product(found[0], mark, found[1], None, factors.divides)]

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
            a, b = products[0].mark, products[1].mark
            return replace(product_of(a, b, known.name), operands=a.operands + b.operands)
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
        mark = operands_of(known, arguments, keywords, marks, mark)
        copied: frozenset[int] = frozenset()
        if operation.keeps_places:
            source = next(a for a, own in zip(arguments, marks, strict=True) if own)
            copied = _copied_along(mark, source, tensor)
        return replace(mark, copied=copied)


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
