"""The registry of operations: what each of them does to gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attnscope.errors import InputError
from attnscope.gates.marks import Bounds, Mark
from attnscope.registry import Registry


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation on marked tensors, and one of its outputs."""

    name: str
    """The registered name of the operation."""
    arguments: Sequence[Any]
    """The positional arguments. A list of tensors is flattened."""
    keywords: Mapping[str, Any]
    """The other arguments by name."""
    marks: Sequence[Mark | None]
    """The marks of ``arguments``."""
    bounds_of: Callable[[Tensor], Bounds | None]
    """Returns the bounds of a tensor that depends on parameters alone, else None."""
    output: int
    """Index of the output."""
    selects: bool
    """Whether the output is smaller than the first argument."""

    @property
    def first(self) -> Mark | None:
        """The mark of the first argument."""
        return self.marks[0] if self.marks else None


Carry = Callable[[Call], Mark | None]
"""Returns the mark of the output, or None if the output is not a gate."""
Activate = Callable[[str, Sequence[Any], Mapping[str, Any]], tuple[str, Bounds] | None]
"""``(name, arguments, keywords)`` -> name and bounds of the activation, or None if the result is
not bounded."""


@dataclass(frozen=True)
class Aligned:
    """A gate in the shape of its features, made from an argument of another shape."""

    gate: Tensor
    """The gate, which broadcasts to the features."""
    argument: Tensor
    """The argument of the operation."""
    restore: Callable[[Tensor], Tensor]
    """Returns the argument of a gate that was edited."""
    read: Callable[[Tensor], Tensor]
    """Returns the gate in an argument."""
    summed: frozenset[int] = frozenset()
    """Axes of the features over which the operation sums the product."""


Align = Callable[[Sequence[Any], Mark, int, int], Aligned | None]
"""``(arguments, mark of the gate, index of the gate, index of the features)``.

None if the operation does not multiply the features by the gate, value by value.
"""

Contract = Callable[[Sequence[Any]], Mapping[int, Sequence[int]]]
"""``(arguments)`` -> index of an argument -> its axes over which the operation sums."""


@dataclass(frozen=True, slots=True)
class Factors:
    """The two arguments that an operation multiplies."""

    first: int = 0
    """Index of one factor."""
    second: int = 1
    """Index of the other factor."""
    addend: int | None = None
    """Index of the argument that is added to the product."""
    align: Align | None = None
    """Set if the operation multiplies in another way than by broadcasting."""
    divides: bool = False
    """Whether the second factor is divided by the first."""
    is_product: bool = True
    """Whether the result is the product alone. If so, the product of two gates counts as two gates
    of the features that it multiplies."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation does to gates.

    With all fields at their defaults, tracking stops at the operation: its result has no mark. The
    same holds for an unregistered operation.
    """

    activates: Activate | None = None
    """Set if the result is bounded. It is not used if `carries` is set and an argument has a
    mark."""
    carries: Carry | None = None
    """Set if the result of a call on a gate is a gate."""
    keeps_places: bool = False
    """Whether values keep their places, or are only repeated along an axis of length 1. The axes
    along which a gate is constant then remain known."""
    multiplies: Factors | None = None
    """The two arguments that are multiplied. A gate among them acts on the other."""
    negates: bool = False
    """Whether the result is the negative of the argument."""
    squares: bool = False
    """Whether the result is a product, which has a sign if both factors are the same tensor."""
    one_sided: bool = False
    """Whether `activates` gives one bound only, so that the result is no gate by itself."""
    takes_list: bool = False
    """Whether the first argument is a list of tensors."""
    rearranges: bool = False
    """Whether values move to other places, as in a flip. The result has the form of the argument,
    and is another gate if both multiply."""
    takes_operands: bool = False
    """Whether the tensors after the first argument can be one list, as in ``torch.einsum``."""
    creates: bool = False
    """Whether the result does not depend on the values of the arguments."""
    adds: bool = False
    """Whether the result is the sum of the arguments. ``x + x * g`` has the neutral value 0."""
    subtracts: int | None = None
    """Index of the argument that is subtracted from the other one. ``x - x * g`` has the neutral
    value 0, and ``x * g - x`` has 2."""
    scales: bool = False
    """Whether the result is one argument times the other, or times -1. A product of features and a
    gate stays one if the other does not depend on the input."""
    sums: bool = False
    """Whether the result is a sum over the axes in the second argument. Such a sum over the axes of
    a softmax is a pooling."""
    contracts: Contract | None = None
    """Set if the operation sums the products of its arguments over axes, as a product of matrices
    does. Such a sum over the axes of a softmax is a pooling, too."""


def _check(operation: Operation) -> None:
    if not isinstance(operation, Operation):
        raise TypeError("it must be an Operation, for example bounded_activation(0, 1)")
    for field in ("activates", "carries", "contracts"):
        function = getattr(operation, field)
        if function is not None and not callable(function):
            raise TypeError(f"its {field} must be a function")


OPERATIONS: Registry[Operation] = Registry("operation", _check)
"""All registered operations by name."""
UNKNOWN = Operation()
"""Stands for an operation that is not registered."""
_spellings: dict[str, str] = {}  # each name and alias -> the registered name
# Augmented assignments have their own names: `iadd` is `add` in place.
_AUGMENTED = frozenset({"iadd", "isub", "imul", "itruediv", "idiv", "ipow"})


@dataclass(frozen=True, slots=True)
class Known:
    """The registered operation of a function of torch."""

    name: str
    operation: Operation
    writes: bool
    """Whether it writes to its first argument."""


_known: dict[str, Known] = {}


def register_operation(name: str, operation: Operation, *spellings: str) -> Operation:
    """Register what an operation does to gates.

    Args:
        name: the ``__name__`` of the function without leading and trailing underscores: ``mul``
            also stands for ``mul_`` and ``__mul__``. It appears in `Gate.form`.
        operation: usually made by one of the families in `attnscope.gates.ops`.
        spellings: other names of the same operation.

    Returns:
        The operation.

    Raises:
        InputError: a name is not the name of a function (AS408), or is taken (AS409).
    """
    names = [name, *spellings]
    for number, each in enumerate(names):
        if each != each.strip("_") or not each.isidentifier():
            raise InputError(
                "AS408",
                f"'{each}' cannot be the name of an operation; use the function's __name__ "
                "without leading and trailing underscores",
            )
        if each in _spellings or each in names[:number]:
            raise InputError(
                "AS409", f"the operation '{each}' is already registered; choose another name"
            )
    OPERATIONS.register(name, operation)
    _spellings.update(dict.fromkeys(names, name))
    _known.clear()
    return operation


def look_up(function: Any) -> Known:
    """Return the registered operation of a function of torch."""
    name = getattr(function, "__name__", "")
    known = _known.get(name)
    if known is None:
        known = _known[name] = _resolve(name)
    return known


def _resolve(name: str) -> Known:
    name = name.partition(".")[0]  # an overload of torch.library, such as `squash.default`
    plain = name.strip("_")
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    if plain in _AUGMENTED:
        plain, writes = plain[1:], True
    plain = _spellings.get(plain, plain)
    return Known(plain, OPERATIONS.get(plain, UNKNOWN), writes)
