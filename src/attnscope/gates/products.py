"""Multiplications: which argument of an operation is the gate, and which are the features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attnscope.gates.marks import Mark
from attnscope.gates.ops.operation import Align, Aligned, Factors

UNBOUNDED_FORM = "unbounded"
"""`Mark.form` of a multiplier that comes from no bounded activation."""
BOUNDED_FORM = "times bounded features"
"""End of `Mark.form` of a gate whose features have its shape and are bounded, too."""


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
    divides: bool = False
    """Whether the features are divided by ``gate``, so that the gate is one over it."""
    aligned: Aligned | None = None
    """How ``gate`` was made from the argument, if it is not the argument itself."""
    other: Mark | None = None
    """The mark of bounded features of the gate's shape. The product may then be one gate."""
    beside: Tensor | None = None
    """The other factor, if it is a gate or bounded features with one channel."""

    def replaced(self, value: Any, edited: Tensor) -> Any:
        """Return what an argument of the operation is after an edit of the gate."""
        if self.aligned is None:
            return edited if value is self.gate else value
        return self.aligned.restore(edited) if value is self.aligned.argument else value


def products_of(
    factors: Factors,
    arguments: Sequence[Any],
    marks: Sequence[Mark | None],
    is_static: Callable[[Tensor], bool],
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
    if factors.align is not None:
        return _aligned_products(factors.align, arguments, marks, (i, j), is_static)
    if of_a and of_b and of_a.bounded != of_b.bounded and not factors.divides:
        of_a, of_b = (of_a, None) if of_a.bounded else (None, of_b)
    if of_a and of_b:
        if is_static(a) or is_static(b):
            return []  # the product is one gate
        if a.shape == b.shape:
            # A gate that was expanded to the shape of features that are bounded, too.
            if of_a.copied > of_b.copied:
                return [Product(a, of_a, b, addend, factors.divides)]
            if of_b.copied > of_a.copied and not factors.divides:
                return [Product(b, of_b, a, addend)]
            return []  # the product is one gate
        if _is_map(b) and _covers(b, a):
            return [Product(a, of_a, b, addend, factors.divides)]
        if _is_map(a) and _covers(a, b) and not factors.divides:
            return [Product(b, of_b, a, addend)]
        if factors.divides:
            return []
        return [
            Product(a, of_a, None, addend, beside=b),
            Product(b, of_b, None, addend, beside=a),
        ]
    gate, features, mark = (a, b, of_a) if of_a else (b, a, of_b)
    if factors.divides and mark is of_b:
        return []  # a gate that is divided by something
    if mark is None or is_static(features) or features.ndim < 2:
        return []
    if not _covers(features, gate):
        return []
    return [Product(gate, mark, features, addend, factors.divides)]


def _aligned_products(
    align: Align,
    arguments: Sequence[Any],
    marks: Sequence[Mark | None],
    factors: tuple[int, int],
    is_static: Callable[[Tensor], bool],
) -> list[Product]:
    """Return the gate of an operation that multiplies in another way than by broadcasting."""
    for gate, features in (factors, factors[::-1]):
        mark = marks[gate]
        if mark is None or is_static(arguments[features]):
            continue
        aligned = align(arguments, mark, gate, features)
        if aligned is not None:
            return [Product(aligned.gate, mark, arguments[features], None, aligned=aligned)]
    return []


def bounded_product(
    factors: Factors,
    arguments: Sequence[Any],
    marks: Sequence[Mark | None],
    is_static: Callable[[Tensor], bool],
) -> list[Product]:
    """Return the gate in a product of two bounded tensors of one shape, as ``z * q`` of a GRU.

    The factor with values in 0 to 1 is the gate, and the one with values of both signs, such as a
    tanh, the features. `products_of` takes such a product for one gate. That it is none is known
    only if nothing is multiplied by it, so its mark has a form of its own.
    """
    if factors.align is not None or factors.divides or len(arguments) <= factors.second:
        return []
    places = factors.first, factors.second
    a, b = (arguments[place] for place in places)
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape or a.ndim < 3:
        return []
    for gate, features in (places, places[::-1]):
        own, other = marks[gate], marks[features]
        if own is None or other is None or is_static(arguments[features]):
            continue
        if own.bounds[0] >= 0 and own.bounds[1] <= 1 and other.bounds[0] < 0 < other.bounds[1]:
            mark = own.altered(BOUNDED_FORM, own.bounds)
            addend = None if factors.addend is None else arguments[factors.addend]
            return [Product(arguments[gate], mark, arguments[features], addend, other=other)]
    return []


def unbounded_multiplier(
    factors: Factors, arguments: Sequence[Any], is_static: Callable[[Tensor], bool]
) -> tuple[Tensor, Tensor] | None:
    """Return a multiplier that broadcasts like a gate, and its features, whatever its bounds."""
    if factors.align or len(arguments) <= max(factors.first, factors.second):
        return None
    a, b = arguments[factors.first], arguments[factors.second]
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return None
    if is_static(a) or is_static(b):
        return None
    for multiplier, features in ((a, b), (b, a)):
        if factors.divides and multiplier is b:
            continue
        if features.ndim < 3 or not _covers(features, multiplier):
            continue
        if _distinct(multiplier) < _distinct(features):
            return multiplier, features
    return None


def _covers(features: Tensor, gate: Tensor) -> bool:
    """Return whether the gate broadcasts to the shape of the features."""
    if gate.ndim > features.ndim:
        return False
    shape = features.shape[features.ndim - gate.ndim :]
    return all(g in (1, f) for g, f in zip(gate.shape, shape, strict=True))


def _distinct(tensor: Tensor) -> int:
    """Return the number of values of a tensor that `expand` has not repeated."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size for size, stride in sizes if stride)


def covers_map(features: Tensor, gate: Tensor) -> bool:
    """Return whether a gate broadcasts to what may be bounded features with one channel."""
    positions = features.shape[2:]
    return len(positions) > 0 and min(positions) > 1 and _covers(features, gate)


def _is_map(tensor: Tensor) -> bool:
    """Return whether a bounded tensor is a feature map, as after ReLU6, and not a gate."""
    return tensor.ndim >= 3 and min(tensor.shape[1:]) > 1
