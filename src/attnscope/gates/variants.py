"""Tell apart gates of one activation that the same operations made from different operands.

In ``x * (g * a) + y * (g * b)`` with parameters a and b, both gates have the same `Mark.form`. The
operands themselves tell them apart. They can be compared within one forward only, so the second
gate is known across forwards by its number among those of the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnscope.gates.marks import Mark
from attnscope.gates.ops.operation import Known


class Operand:
    """A tensor that changed the values of a gate. It equals a tensor with the same values."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Operand):
            return NotImplemented
        a, b = self._tensor, other._tensor
        if a is b:
            return True
        if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
            return False
        with torch._C.DisableTorchFunction():  # the comparison is not part of the forward
            return torch.equal(a, b)

    __hash__ = None  # type: ignore[assignment]


def operands_of(
    known: Known,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    marks: Sequence[Mark | None],
    mark: Mark,
) -> Mark:
    """Return the mark of a result with the operands that changed its values.

    Args:
        known: the operation.
        arguments: its positional arguments.
        keywords: its other arguments.
        marks: the marks of ``arguments``.
        mark: the mark of the result.
    """
    before = [each for each in marks if each]
    operands = tuple(operand for each in before for operand in each.operands)
    if known.operation.rearranges or all(mark.form != each.form for each in before):
        others = [a for a, own in zip(arguments, marks, strict=True) if own is None]
        operands += (known.name, *map(_operand, (*others, *keywords.values())))
    return mark if operands == () == mark.operands else replace(mark, operands=operands)


class Variants:
    """The places of the gates that have multiplied in one forward, with their operands."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, str], list[tuple[object, ...]]] = {}

    def clear(self) -> None:
        """Forget all, at the start of a forward."""
        self._known.clear()

    def numbered(self, mark: Mark) -> Mark:
        """Return the mark of a gate that multiplies, with its number if it is not the first."""
        known = self._known.setdefault(mark.place, [])
        equal = (n for n, operands in enumerate(known) if operands == mark.operands)
        number = next(equal, len(known))
        if number == len(known):
            known.append(mark.operands)
        return replace(mark, form=f"{mark.form}; #{number + 1}") if number else mark


def _operand(value: Any) -> object:
    if isinstance(value, Tensor):
        return Operand(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(_operand, value))
    return value
