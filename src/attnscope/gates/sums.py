"""Follow a product to the operation that sums it: a softmax over positions is then a pooling."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from attnscope.gates.ops.operation import Known

_COPIES = frozenset(
    {
        "clone",
        "contiguous",
        "detach",
        "to",
        "type",
        "type_as",
        "float",
        "half",
        "bfloat16",
        "double",
    }
    | {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"}
)
_SWAPS = frozenset({"transpose", "swapaxes", "swapdims"})


@dataclass(frozen=True)
class Made:
    """A product of features and a gate, also after a permutation of its axes or a scaling."""

    features: weakref.ref[Tensor]
    """The features."""
    place: tuple[str, int, str]
    """The gate."""
    axes: tuple[int, ...]
    """For each axis, which axis of the product it is."""
    is_scaled: bool = False
    """Whether it was multiplied by what does not depend on the input, since."""

    def moved(self, known: Known, arguments: Sequence[Any]) -> Made | None:
        """Return the same for the result of an operation that permutes axes or copies."""
        if known.name in _COPIES:
            return self
        order = list(range(len(self.axes)))
        given = [axis for each in arguments[1:] for axis in _integers(each)]
        if known.name in _SWAPS and len(given) == 2:
            first, second = given
            order[first], order[second] = order[second], order[first]
        elif known.name == "permute" and len(given) == len(order):
            order = given
        else:
            return None
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    def summed(self, axes: Sequence[int]) -> frozenset[int]:
        """Return which axes of the product these are."""
        return frozenset(self.axes[axis] for axis in axes)


def _integers(value: Any) -> list[int]:
    if isinstance(value, int):
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else []
