"""What one operation does to gates, and the registry of all operations."""

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
    """One call of an operation on marked tensors, of which one output is asked about."""

    name: str
    """Under which the operation is registered."""
    arguments: Sequence[Any]
    """Tensors and numbers, in their order; those in the list of a join one by one."""
    keywords: Mapping[str, Any]
    """The other arguments by name."""
    marks: Sequence[Mark | None]
    """Of each of ``arguments``."""
    bounds_of: Callable[[Tensor], Bounds | None]
    """Bounds of a tensor that depends on parameters alone; None for any other."""
    output: int
    """Which of the outputs is meant, from 0."""
    selects: bool
    """Whether that output is smaller than the first argument."""

    @property
    def first(self) -> Mark | None:
        """The mark of the first argument."""
        return self.marks[0] if self.marks else None


Carry = Callable[[Call], Mark | None]
"""The mark of what a call on marked tensors returns; None where that is no gate any more."""
Activate = Callable[[str, Sequence[Any], Mapping[str, Any]], tuple[str, Bounds] | None]
"""``(name, arguments, keywords)`` -> the activation's name and bounds; None where a call with these
arguments bounds nothing."""


@dataclass(frozen=True, slots=True)
class Factors:
    """Where a gate may act: which two arguments an operation multiplies."""

    first: int = 0
    second: int = 1
    addend: int | None = None
    """The argument that is added to the product."""
    is_product: bool = True
    """Whether the result is the product and nothing else: two gates that it multiplies then stay
    two gates of what the result multiplies."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What one operation does to gates. Whatever is left out, it does not do.

    An operation that does none of this, as one that is not registered, ends a gate: its result has
    no mark.
    """

    activates: Activate | None = None
    """It bounds its result. An operation that carries marks too does so only without one."""
    carries: Carry | None = None
    """What becomes of a gate among its arguments."""
    keeps_places: bool = False
    """Values stay where they are, or one is written many times along an axis of length 1, so that
    axes along which a gate is constant are known still."""
    multiplies: Factors | None = None
    """A gate among these two arguments acts on the other."""
    takes_list: bool = False
    """The first argument is a list of tensors."""
    creates: bool = False
    """The result is made anew, whatever the arguments hold."""
    adds: bool = False
    """The result is the sum of its arguments: ``x + x * g`` has the neutral value 0."""
    sums: bool = False
    """The result is a sum over axes, its second argument: of a softmax over them it is a mean."""


def _check(operation: Operation) -> None:
    if not isinstance(operation, Operation):
        raise TypeError("it must be an Operation, as bounded_activation(0, 1) makes one")
    for field in ("activates", "carries"):
        function = getattr(operation, field)
        if function is not None and not callable(function):
            raise TypeError(f"its {field} must be a function")


OPERATIONS: Registry[Operation] = Registry("operation", _check)
"""All operations by name."""
UNKNOWN = Operation()
"""An operation that is not registered."""
_spellings: dict[str, str] = {}  # each name, the operation's own too -> the operation's own
# Python's augmented assignments have names of their own: `iadd` is `add`, and writes.
_AUGMENTED = frozenset({"iadd", "isub", "imul", "itruediv", "idiv", "ipow"})


@dataclass(frozen=True, slots=True)
class Known:
    """What a function of torch is known as."""

    name: str
    operation: Operation
    writes: bool
    """Whether it writes into its first argument."""


_known: dict[str, Known] = {}


def register_operation(name: str, operation: Operation, *spellings: str) -> Operation:
    """Say what an operation does to gates.

    Args:
        name: the function's ``__name__``, without underscores at its ends: ``mul`` is ``mul_`` and
            ``__mul__`` as well. It stands in the `Gate.form` of what it changes.
        operation: usually of one of the families in `attnscope.gates.ops`.
        spellings: other names of the same operation.

    Returns:
        The operation.

    Raises:
        InputError: one of the names is taken, or is no name of a function.
    """
    names = [name, *spellings]
    for number, each in enumerate(names):
        if each != each.strip("_") or not each.isidentifier():
            raise InputError(
                f"'{each}' cannot name an operation; take the function's name without underscores "
                "at its ends"
            )
        if each in _spellings or each in names[:number]:
            raise InputError(f"the operation '{each}' is registered already; take another name")
    OPERATIONS.register(name, operation)
    _spellings.update(dict.fromkeys(names, name))
    _known.clear()
    return operation


def look_up(function: Any) -> Known:
    """What a function of torch is known as; the tracer asks this of every operation."""
    name = getattr(function, "__name__", "")
    known = _known.get(name)
    if known is None:
        known = _known[name] = _resolve(name)
    return known


def _resolve(name: str) -> Known:
    name = name.partition(".")[0]  # of an overload, as torch.library's `squash.default`
    plain = name.strip("_")
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    if plain in _AUGMENTED:
        plain, writes = plain[1:], True
    plain = _spellings.get(plain, plain)
    return Known(plain, OPERATIONS.get(plain, UNKNOWN), writes)
