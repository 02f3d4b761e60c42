"""See the products of a network below Python's functions, and change their operands.

`Oracle` is a ``TorchDispatchMode``. It receives the operators of aten and shares no code with the
tracer of attnscope, which works on the functions of Python. Used by `analysis.coverage` and by
``tests/gates/test_oracle.py``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PRODUCTS = frozenset({"mul", "div"})
"""Operators of aten that multiply two tensors by broadcasting."""
_OTHERS = frozenset(
    {"addcmul", "lerp", "bmm", "mm", "baddbmm", "convolution", "cudnn_convolution", "addcdiv"}
)
"""Other operators in which a gate can multiply."""
_STATISTICS = frozenset({"rsqrt", "linalg_vector_norm", "norm", "std", "var", "var_mean"})
_OF_STATISTICS = frozenset(
    {"add", "clamp", "clamp_min", "maximum", "sqrt", "reciprocal", "expand", "_to_copy", "clone"}
)
_CREATE = frozenset(
    {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"}
    | {"new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"}
)
"""Operators whose result depends on the shape of their argument, and not on its values."""

Place = tuple[int, int]
"""The number of a multiplication in a forward, and the index of the operand."""


@dataclass(frozen=True)
class Product:
    """A broadcasting product of two tensors that depend on the input."""

    number: int
    """Its number among the multiplications of the forward."""
    features: tuple[int, ...]
    """Shape of the features."""
    gate: tuple[int, ...]
    """Shape of the operand that is constant along an axis of the features."""
    module: str
    """Path of the innermost running module."""
    normalizes: bool
    """Whether the operand is a norm or a standard deviation, as in a normalization."""


class Oracle(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the multiplications of one forward of two tensors that depend on the input.

    Args:
        inputs: the tensors that the network receives.
        meet: called before each multiplication with its number, name and operands. It returns the
            operands to multiply instead, or None.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        meet: Callable[[int, str, Sequence[Any]], Sequence[Any] | None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # The storages are kept, so that none is used again for a tensor of another origin.
        self._dynamic = {_storage(x): x.untyped_storage() for x in inputs}
        self._statistics: set[int] = set()
        self._meet = meet
        self._count = 0
        self._paused = False
        self._running: list[str] = []
        self.products: dict[int, Product] = {}
        """By the storage of the gate: one gate may have several products."""
        self.digests: list[int] = []
        """A checksum of the result of each multiplication."""

    def depends(self, value: object) -> bool:
        """Return whether a tensor depends on the input."""
        return isinstance(value, Tensor) and _storage(value) in self._dynamic

    @contextmanager
    def paused(self) -> Iterator[list[Tensor]]:
        """Do not count the operations of a block. Tensors in the list depend on the input."""
        made: list[Tensor] = []
        self._paused = True
        try:
            yield made
        finally:
            self._paused = False
            for tensor in made:
                self._dynamic[_storage(tensor)] = tensor.untyped_storage()

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[Oracle]:
        """Watch a network: a block in which it may be called once."""
        paths = {module: path for path, module in model.named_modules()}

        def enter(module: nn.Module, args: Any) -> None:
            if module in paths:
                self._running.append(paths[module])

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if module in paths and self._running:
                self._running.pop()

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            with self:
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__.rstrip("_")
        dynamic = [self.depends(each) for each in tree_leaves((args, kwargs))]
        counts = name in _PRODUCTS | _OTHERS and sum(map(self.depends, args)) > 1
        if counts:
            number, self._count = self._count, self._count + 1
            if self._meet is not None:
                args = self._replaced(func, number, name, args)
            if name in _PRODUCTS:
                a, b = args[:2]
                self._see(a, b, number)
                if name == "mul":
                    self._see(b, a, number)
        result = func(*args, **kwargs)
        for out in tree_leaves(result):
            if isinstance(out, Tensor):
                place = _storage(out)
                if any(dynamic) and name not in _CREATE:
                    self._dynamic[place] = out.untyped_storage()
                if name in _STATISTICS or (
                    name in _OF_STATISTICS and self._all_statistics((args, kwargs))
                ):
                    self._statistics.add(place)
                elif func.is_view is False:
                    self._statistics.discard(place)
        if counts:
            self.digests.append(_digest(result))
        return result

    def _all_statistics(self, arguments: Any) -> bool:
        moving = [each for each in tree_leaves(arguments) if self.depends(each)]
        return bool(moving) and all(_storage(each) in self._statistics for each in moving)

    def _replaced(self, func: Any, number: int, name: str, args: Sequence[Any]) -> Sequence[Any]:
        assert self._meet is not None
        with self.paused() as made:
            new = self._meet(number, name, args)
            if new is None:
                return args
            made += [each for each in new if isinstance(each, Tensor)]
        if func._schema.name.endswith("_") and new[0] is not args[0]:
            args[0].copy_(new[0])  # an operator that writes to its first operand
            new = [args[0], *new[1:]]
        return tuple(new)

    def _see(self, features: Tensor, gate: Tensor, number: int) -> None:
        if gate is features or features.ndim < 3 or gate.ndim > features.ndim:
            return
        if gate.dtype != features.dtype:
            return
        missing = features.ndim - gate.ndim
        shape = (1,) * missing + tuple(gate.shape)
        strides = (0,) * missing + gate.stride()
        constant = [n == 1 or stride == 0 for n, stride in zip(shape, strides, strict=True)]
        covers = all(g in (1, f) for g, f in zip(shape, features.shape, strict=True))
        sizes = zip(features.shape, constant, strict=True)
        if covers and any(n > 1 and still for n, still in sizes):
            module = self._running[-1] if self._running else ""
            normalizes = _storage(gate) in self._statistics
            product = Product(number, tuple(features.shape), shape, module, normalizes)
            if _storage(gate) not in self.products:
                self.products[_storage(gate)] = product


def multipliers(factors: Mapping[Place, float], inverted: set[Place]) -> Any:
    """Return a function for `Oracle` that multiplies operands by numbers.

    Args:
        factors: number of the multiplication and index of the operand -> number.
        inverted: those operands that are one over a gate.
    """

    def meet(number: int, name: str, operands: Sequence[Any]) -> Sequence[Any] | None:
        new = list(operands)
        for index in range(len(new)):
            place = number, index
            if place in factors:
                if place in inverted:
                    new[index] = 1 / ((1 / new[index]) * factors[place])
                else:
                    new[index] = new[index] * factors[place]
        changed = any(a is not b for a, b in zip(new, operands, strict=True))
        return new if changed else None

    return meet


def same_values(value: Tensor, operand: Tensor, *, in_order: bool) -> bool:
    """Return whether an operand is a gate, bit for bit, apart from axes along which it is constant.

    Args:
        value: the gate in the shape that multiplies.
        operand: the operand.
        in_order: whether the operand broadcasts like the gate. Otherwise only the set of the values
            is compared, for operators that need another order of the axes.
    """
    if value.dtype != operand.dtype or not value.numel() or not operand.numel():
        return False
    if not in_order:
        if operand.numel() < value.numel():
            return False
        # A diagonal matrix holds zeros, too.
        pairs = ((operand, value), (operand[operand != 0], value[value != 0]))
        return any(torch.equal(_values(a), _values(b)) for a, b in pairs)
    if value.flatten()[0] != operand.flatten()[0]:  # the usual case, without the work
        return False
    try:
        shape = torch.broadcast_shapes(value.shape, operand.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:  # the shapes do not fit
        return False
    return torch.equal(value.expand(shape), operand.expand(shape))


def _values(tensor: Tensor) -> Tensor:
    values: Tensor = torch.unique(tensor)
    return values


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _digest(tensor: Tensor) -> int:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return zlib.crc32(tensor.detach().contiguous().cpu().numpy().tobytes())
