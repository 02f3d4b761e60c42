"""Marks of tensors that come from a bounded activation, and interval arithmetic for their bounds.

Interval arithmetic makes ``1 / (1 + exp(-z))`` a sigmoid without a special rule. This module does
not use the values of tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Bounds = tuple[float, float]
"""Lower and upper bound of all possible values. They may be infinite."""
UNBOUNDED: Bounds = (-math.inf, math.inf)


@dataclass(frozen=True)
class Mark:
    """The origin and the bounds of a tensor that comes from a bounded activation."""

    made_in: str
    """Path of the module that ran the activation."""
    call: int
    """Index of the activation among those of that module."""
    activation: str
    """Name of the activation."""
    bounds: Bounds
    """Bounds of the tensor."""
    origins: tuple[tuple[str, int], ...]
    """``made_in`` and ``call`` of every activation that the tensor depends on."""
    form: str = ""
    """The operations since the activation that changed the values."""
    factors: tuple[tuple[str, int, str], ...] = ()
    """The places of the factors, for a product of gates of different shapes."""
    copied: frozenset[int] = frozenset()
    """Axes along which one value was repeated, counted from the last axis, -1."""
    entry: int = 0
    """How often the module had been entered before in the same call."""
    source: str = ""
    """Path of the module with parameters whose output the activation received, if it is known."""
    number: int = 0
    """Index of the activation among those of the module with the same source."""
    outside: bool = False
    """Whether the activation ran outside of all modules of the network."""
    is_statistic: bool = False
    """Whether the values were reduced over axes since the activation."""
    operands: tuple[object, ...] = ()
    """The operations since the activation with their other operands, which `form` does not tell."""

    @property
    def place(self) -> tuple[str, int, str]:
        """The identity of a gate across forwards: module, activation, and operations since.

        The source tells apart two activations of one module, of which one may run in training only.
        """
        return self.made_in, self.number, f"{self.source}|{self.form}"

    @property
    def series(self) -> tuple[str, str]:
        """What all activations of a module with the same source and form have in common."""
        return self.made_in, f"{self.source}|{self.form}"

    @property
    def old_place(self) -> tuple[str, int, str]:
        """The identity of a gate in recordings that do not store the source."""
        return self.made_in, self.call, self.form

    @property
    def bounded(self) -> bool:
        """Whether both bounds are finite, as a gate requires."""
        return math.isfinite(self.bounds[0]) and math.isfinite(self.bounds[1])

    def inverted(self) -> Mark:
        """Return the mark of one over the tensor."""
        return self.altered("r", divide((1.0, 1.0), self.bounds))

    def altered(self, how: str, bounds: Bounds, *others: Mark) -> Mark:
        """Return the mark after an operation that changed the values.

        Args:
            how: the operation, which is appended to `form`.
            bounds: the bounds of the new values.
            others: the marks of the other operands.
        """
        origins = tuple(dict.fromkeys(o for m in (self, *others) for o in m.origins))
        form = f"{self.form}; {how}" if self.form else how
        return replace(self, form=form, bounds=bounds, origins=origins, factors=())


def add(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of ``a + b``."""
    return a[0] + b[0], a[1] + b[1]


def subtract(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of ``a - b``."""
    return a[0] - b[1], a[1] - b[0]


def multiply(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of ``a * b``."""
    ends = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def divide(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of ``a / b``, which are infinite if ``b`` can be 0."""
    if b[0] <= 0.0 <= b[1]:
        return UNBOUNDED
    return multiply(a, (1.0 / b[1], 1.0 / b[0]))


def power(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of ``a ** b`` for a number ``b``.

    They are known for ``b = -1``, for ``b = 2``, and for ``b > 0`` if ``a`` is not negative.
    """
    if b == (-1.0, -1.0):
        return divide((1.0, 1.0), a)
    if b[0] != b[1] or b[0] <= 0.0:
        return UNBOUNDED
    if a[0] >= 0.0:
        return a[0] ** b[0], a[1] ** b[0]
    if b[0] == 2.0:
        high = max(-a[0], a[1]) ** 2
        return (0.0 if a[1] >= 0.0 else a[1] ** 2), high
    return UNBOUNDED


def negate(a: Bounds) -> Bounds:
    """Return the bounds of ``-a``."""
    return -a[1], -a[0]
