"""Marks: what is known of a tensor that comes from a bounded activation, and how bounds are added.

The bounds are carried by interval arithmetic, so that ``1 / (1 + exp(-z))`` is a sigmoid without a
rule of its own. Nothing here computes with the values of tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Bounds = tuple[float, float]
"""The lowest and the highest value that is possible; infinite where there is none."""
UNBOUNDED: Bounds = (-math.inf, math.inf)


@dataclass(frozen=True)
class Mark:
    """What is known of a marked tensor."""

    made_in: str
    call: int
    activation: str
    bounds: Bounds
    origins: tuple[tuple[str, int], ...]
    """Every activation that has a part in it: made_in and call."""
    form: str = ""
    """What was done to the values since the activation."""
    factors: tuple[tuple[str, int, str], ...] = ()
    """Of a product of gates of different shapes: the place of each."""
    copied: frozenset[int] = frozenset()
    """Axes along which one value was written many times, counted from the last one, -1."""
    version: int | None = None
    """Of the tensor when it was marked: a write to it, or to what it is a view of, counts up."""

    @property
    def place(self) -> tuple[str, int, str]:
        """By which a gate is known again in another forward."""
        return self.made_in, self.call, self.form

    @property
    def bounded(self) -> bool:
        """Whether it may be a gate."""
        return math.isfinite(self.bounds[0]) and math.isfinite(self.bounds[1])

    def altered(self, how: str, bounds: Bounds, *others: Mark) -> Mark:
        """The mark after an operation that changed the values.

        Args:
            how: what is added to its `form`.
            bounds: of the new values.
            others: the other marks that have a part in them.
        """
        origins = tuple(dict.fromkeys(o for m in (self, *others) for o in m.origins))
        form = f"{self.form}; {how}" if self.form else how
        return replace(self, form=form, bounds=bounds, origins=origins, factors=())


def add(a: Bounds, b: Bounds) -> Bounds:
    """Bounds of ``a + b``."""
    return a[0] + b[0], a[1] + b[1]


def subtract(a: Bounds, b: Bounds) -> Bounds:
    """Bounds of ``a - b``."""
    return a[0] - b[1], a[1] - b[0]


def multiply(a: Bounds, b: Bounds) -> Bounds:
    """Bounds of ``a * b``."""
    ends = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def divide(a: Bounds, b: Bounds) -> Bounds:
    """Bounds of ``a / b``; there are none where ``b`` may be 0."""
    if b[0] <= 0.0 <= b[1]:
        return UNBOUNDED
    return multiply(a, (1.0 / b[1], 1.0 / b[0]))


def power(a: Bounds, b: Bounds) -> Bounds:
    """Bounds of ``a ** b`` for a number ``b``: -1, or above 0 for ``a`` of 0 or more, or 2."""
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
    """Bounds of ``-a``."""
    return -a[1], -a[0]
