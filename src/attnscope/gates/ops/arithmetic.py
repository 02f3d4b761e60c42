"""Arithmetic with numbers, parameters and other gates; sums; and multiplications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from attnscope.gates import marks
from attnscope.gates.marks import Bounds, Mark
from attnscope.gates.ops.operation import Call, Factors, Operation, register_operation


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
    return Operation(multiplies=Factors(first, second, addend, is_product))


def product_of(a: Mark, b: Mark, how: str) -> Mark:
    """Return the mark of a product of two gates of different shapes. Both remain gates."""
    both = a.altered(how, marks.multiply(a.bounds, b.bounds), b)
    return replace(both, factors=(a.factors or (a.place,)) + (b.factors or (b.place,)))


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
register_operation("sub", of_two(marks.subtract), "subtract")
register_operation("rsub", of_two(lambda a, b: marks.subtract(b, a)))
register_operation(
    "mul",
    replace(of_two(marks.multiply), multiplies=Factors(is_product=True)),
    "multiply",
    "rmul",
)
register_operation("div", of_two(marks.divide), "divide", "true_divide", "truediv")
register_operation("rdiv", of_two(lambda a, b: marks.divide(b, a)), "rtruediv")
register_operation("pow", of_two(marks.power))
register_operation("neg", of_one(marks.negate), "negative")
register_operation("reciprocal", of_one(lambda a: marks.divide((1.0, 1.0), a)))
register_operation("square", of_one(lambda a: marks.power(a, (2.0, 2.0))))
register_operation("sqrt", of_one(lambda a: marks.power(a, (0.5, 0.5))))
register_operation("sum", Operation(sums=True))
register_operation("addcmul", multiplies(1, 2, addend=0))
# start + weight * (end - start): the weight is the gate.
register_operation("lerp", multiplies(1, 2))
