"""Arithmetic with numbers, parameters and other gates; sums; and multiplications."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnscope.gates import marks
from attnscope.gates.marks import Bounds, Mark
from attnscope.gates.ops.operation import Aligned, Call, Factors, Operation, register_operation


def of_one(bounds: Callable[[Bounds], Bounds]) -> Operation:
    """Return the handler of an elementwise function of one tensor.

    Args:
        bounds: the bounds of the argument -> the bounds of the result.
    """

    def carry(call: Call) -> Mark | None:
        return call.first and call.first.altered(call.name, bounds(call.first.bounds))

    return Operation(carries=carry, keeps_places=True)


def of_two(bounds: Callable[[Bounds, Bounds], Bounds], *, adds: bool = False) -> Operation:
    """Return the handler of an elementwise function of two tensors or numbers.

    The result is a gate if one operand is a gate, and the other a number, a tensor that depends on
    parameters alone, or another gate.

    Args:
        bounds: the bounds of the two arguments -> the bounds of the result.
        adds: whether the result is the sum of the arguments, as in `Operation`.
    """

    def carry(call: Call) -> Mark | None:
        if len(call.arguments) != 2 or call.keywords:
            return None
        intervals: list[Bounds] = []
        labels: list[str] = []
        for argument, mark in zip(call.arguments, call.marks, strict=True):
            own, label = _operand(argument, mark, call)
            if own is None:
                return None
            intervals.append(own)
            labels.append(label)
        known = [mark for mark in call.marks if mark]
        label = labels[1] if call.marks[0] else labels[0]
        side = "" if call.marks[0] else "r"
        return known[0].altered(f"{side}{call.name} {label}", bounds(*intervals), *known[1:])

    return Operation(carries=carry, keeps_places=True, adds=adds)


def reduces() -> Operation:
    """Return the handler of an operation that averages or selects over axes or windows."""

    def carry(call: Call) -> Mark | None:
        if call.first is None:
            return None
        options = [repr(a) for a in call.arguments[1:] if not isinstance(a, Tensor)]
        options += [f"{key}={value!r}" for key, value in call.keywords.items()]
        how = f"{call.name}({', '.join(options)})"
        return replace(call.first.altered(how, call.first.bounds), is_statistic=True)

    return Operation(carries=carry)


def _carry_where(call: Call) -> Mark | None:
    """``torch.where(condition, a, b)``: the values come from two operands."""
    if len(call.arguments) != 3 or call.marks[0]:
        return None
    return _union(call, call.arguments[1:], call.marks[1:])


def _carry_filled(position: int) -> Callable[[Call], Mark | None]:
    def carry(call: Call) -> Mark | None:
        value = call.arguments[position] if len(call.arguments) > position else None
        value = call.keywords.get("value", value)
        return _union(call, (call.arguments[0], value), (call.marks[0], None))

    return carry


def _carry_padded(call: Call) -> Mark | None:
    """``pad(x, widths, mode, value)``: reflected and repeated values keep the bounds."""
    mode = call.keywords.get("mode", call.arguments[2] if len(call.arguments) > 2 else "constant")
    if mode != "constant":
        return call.first and call.first.altered("pad", call.first.bounds)
    value = call.keywords.get("value", call.arguments[3] if len(call.arguments) > 3 else None)
    return _union(call, (call.arguments[0], value or 0.0), (call.marks[0], None))


def _union(
    call: Call, operands: Sequence[object], operand_marks: Sequence[Mark | None]
) -> Mark | None:
    """Return the mark of a tensor whose values come from one operand or the other."""
    bounds = []
    for operand, mark in zip(operands, operand_marks, strict=True):
        own, _ = _operand(operand, mark, call)
        if own is None and isinstance(operand, Tensor):
            return None
        bounds.append(own or (0.0, 0.0))
    known = [mark for mark in operand_marks if mark]
    low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
    return known[0].altered(call.name, (low, high), *known[1:]) if known else None


def _even_power(
    name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[str, Bounds] | None:
    exponent = arguments[1] if len(arguments) > 1 else keywords.get("exponent")
    is_even = isinstance(exponent, (int, float)) and exponent > 0 and exponent % 2 == 0
    return ("square", (0.0, math.inf)) if is_even else None


def multiplies(
    first: int = 0, second: int = 1, *, addend: int | None = None, is_product: bool = False
) -> Operation:
    """Return the handler of an operation that multiplies two of its arguments.

    Args:
        first: index of one factor.
        second: index of the other factor.
        addend: index of the argument that is added to the product.
        is_product: whether the result is the product alone. See `Factors`.
    """
    return Operation(multiplies=Factors(first, second, addend, is_product=is_product))


def product_of(a: Mark, b: Mark, how: str) -> Mark:
    """Return the mark of a product of two gates of different shapes. Both remain gates."""
    both = a.altered(how, marks.multiply(a.bounds, b.bounds), b)
    return replace(both, factors=(a.factors or (a.place,)) + (b.factors or (b.place,)))


def _align_einsum(arguments: Sequence[Any], mark: Mark, gate: int, features: int) -> Aligned | None:
    """``einsum("nchw,nc->nchw", x, g)``: each letter of the gate is one of the features."""
    equation = arguments[0]
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    terms = inputs.split(",")
    if len(terms) != 2 or any(len(set(term)) < len(term) for term in terms):
        return None
    own, all_letters = terms[gate - 1], terms[features - 1]
    if not set(own) < set(all_letters) or not set(own) - set(output) <= set(all_letters):
        return None
    if not set(output) <= set(all_letters) or not set(all_letters) - set(output) <= set(own):
        return None
    order = [own.index(letter) for letter in all_letters if letter in own]
    kept = [axis for axis, letter in enumerate(all_letters) if letter in own]

    def read(argument: Tensor) -> Tensor:
        sizes = iter(argument.permute(order).shape)
        shape = [next(sizes) if letter in own else 1 for letter in all_letters]
        return argument.permute(order).reshape(shape)

    def restore(edited: Tensor) -> Tensor:
        small = edited.reshape([edited.shape[axis] for axis in kept])
        return small.permute([order.index(axis) for axis in range(len(order))])

    summed = frozenset(i for i, letter in enumerate(all_letters) if letter not in output)
    return Aligned(read(arguments[gate]), arguments[gate], restore, read, summed)


def _align_diagonal(
    arguments: Sequence[Any], mark: Mark, gate: int, features: int
) -> Aligned | None:
    """``bmm(diag_embed(g), x)``: a batched diagonal matrix scales the rows of the features."""
    argument = arguments[gate]
    if gate > features or not mark.form.endswith("diag") or argument.ndim != 3:
        return None

    def read(matrix: Tensor) -> Tensor:
        return matrix.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)

    def restore(edited: Tensor) -> Tensor:
        return torch.diag_embed(edited.squeeze(-1))

    return Aligned(read(argument), argument, restore, read)


def _contract_matrices(arguments: Sequence[Any]) -> Mapping[int, Sequence[int]]:
    """``a @ b``: the columns of the first matrix and the rows of the second."""
    if len(arguments) < 2 or not isinstance(arguments[1], Tensor):
        return {}
    return {0: (-1,), 1: (-1,) if arguments[1].ndim == 1 else (-2,)}


def _contract_einsum(arguments: Sequence[Any]) -> Mapping[int, Sequence[int]]:
    """``einsum("ncl,nkl->nck", x, g)``: the letters that the result lacks."""
    equation = arguments[0]
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        return {}
    inputs, output = equation.replace(" ", "").split("->")
    return {
        number: [axis for axis, letter in enumerate(term) if letter not in output]
        for number, term in enumerate(inputs.split(","), start=1)
    }


def _operand(argument: object, mark: Mark | None, call: Call) -> tuple[Bounds | None, str]:
    """Return the bounds of an operand, or None if they are unknown, and its label in a form."""
    if mark:
        return mark.bounds, f"{mark.made_in}.{mark.call}{mark.form}"
    if isinstance(argument, Tensor):
        return call.bounds_of(argument), "parameters"
    if isinstance(argument, (int, float)):
        return (float(argument), float(argument)), f"{argument:g}"
    return None, ""


register_operation("add", of_two(marks.add, adds=True), "radd")
register_operation("sub", replace(of_two(marks.subtract), subtracts=1), "subtract")
register_operation("rsub", replace(of_two(lambda a, b: marks.subtract(b, a)), subtracts=0))
register_operation(
    "mul",
    replace(of_two(marks.multiply), multiplies=Factors(is_product=True), squares=True, scales=True),
    "multiply",
    "rmul",
)
register_operation(
    "div",
    replace(of_two(marks.divide), multiplies=Factors(1, 0, divides=True), scales=True),
    "divide",
    "true_divide",
    "truediv",
)
register_operation("maximum", of_two(lambda a, b: (max(a[0], b[0]), max(a[1], b[1]))), "fmax")
register_operation("minimum", of_two(lambda a, b: (min(a[0], b[0]), min(a[1], b[1]))), "fmin")
register_operation("rdiv", of_two(lambda a, b: marks.divide(b, a)), "rtruediv")
register_operation("pow", replace(of_two(marks.power), activates=_even_power, one_sided=True))
register_operation("neg", replace(of_one(marks.negate), negates=True, scales=True), "negative")
register_operation("reciprocal", of_one(lambda a: marks.divide((1.0, 1.0), a)))
register_operation(
    "square",
    replace(
        of_one(lambda a: marks.power(a, (2.0, 2.0))),
        activates=lambda name, arguments, keywords: ("square", (0.0, math.inf)),
        one_sided=True,
    ),
)
register_operation("sqrt", of_one(lambda a: marks.power(a, (0.5, 0.5))))
register_operation("sum", Operation(sums=True))
for _name in (
    *("mean", "amax", "amin", "median", "quantile"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
):
    register_operation(_name, reduces())
register_operation("where", Operation(carries=_carry_where, keeps_places=True))
register_operation("masked_fill", Operation(carries=_carry_filled(2), keeps_places=True))
register_operation("pad", Operation(carries=_carry_padded))
register_operation("addcmul", multiplies(1, 2, addend=0))
# start + weight * (end - start): the weight is the gate.
register_operation("lerp", multiplies(1, 2))
register_operation(
    "einsum",
    Operation(
        multiplies=Factors(1, 2, align=_align_einsum),
        contracts=_contract_einsum,
        takes_operands=True,
    ),
)
register_operation(
    "diag_embed",
    Operation(carries=lambda call: call.first and call.first.altered("diag", call.first.bounds)),
)
for _name in ("bmm", "matmul"):
    register_operation(
        _name,
        Operation(multiplies=Factors(0, 1, align=_align_diagonal), contracts=_contract_matrices),
    )
