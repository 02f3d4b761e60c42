"""Follow a product to the operation that sums it: a softmax over positions is then a pooling."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attnscope.gates.ops.operation import Known

_SWAPS = frozenset({"transpose", "swapaxes", "swapdims"})


@dataclass(frozen=True)
class Made:
    """A product of features and a gate, or a view of it with its axes in another order."""

    features: weakref.ref[Tensor]
    """The features."""
    place: tuple[str, int, str]
    """The gate."""
    axes: tuple[int, ...]
    """For each axis, which axis of the product it is."""

    def moved(self, known: Known, arguments: Sequence[Any]) -> Made | None:
        """Return the same for the result of an operation that permutes axes, else None."""
        order = list(range(len(self.axes)))
        given = [axis for each in arguments[1:] for axis in _integers(each)]
        if known.name in _SWAPS and len(given) == 2:
            first, second = given
            order[first], order[second] = order[second], order[first]
        elif known.name == "permute" and len(given) == len(order):
            order = given
        else:
            return None
        return Made(self.features, self.place, tuple(self.axes[axis] for axis in order))

    def summed(self, axes: Sequence[int]) -> frozenset[int]:
        """Return which axes of the product these are."""
        return frozenset(self.axes[axis] for axis in axes)


def _integers(value: Any) -> list[int]:
    if isinstance(value, int):
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else []
