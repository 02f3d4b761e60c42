"""What a tensor was computed from: the same values position by position, or a statistic of them.

A gate of the features' own shape is an attention gate if it brings in other positions or another
branch (BAM, residual attention), and an activation function if it is computed from the same values
position by position (SiLU or GLU written by hand). A multiplier that is a statistic of the features
is a normalization. `Lineage` follows both through one forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor

from attnscope.gates.ops.operation import Known
from attnscope.gates.tensor_map import TensorMap

_POINTWISE = frozenset(
    """
    relu relu6 gelu silu mish elu selu celu leaky_relu prelu rrelu hardswish hardsigmoid hardtanh
    sigmoid tanh softplus softsign logsigmoid log_sigmoid exp log log1p sqrt rsqrt square pow abs
    absolute neg negative reciprocal clamp clip clamp_min clamp_max dropout batch_norm add sub rsub
    mul multiply div divide true_divide truediv rdiv addcmul lerp where masked_fill maximum minimum
    threshold erf expit special_expit float half bfloat16 double to type type_as clone contiguous
    detach linear sign
    """.split()  # noqa: SIM905
)
"""Operations whose result depends on the values of the same position only."""
_STATISTICS = frozenset(
    """
    mean var std var_mean std_mean norm vector_norm amax amin max min logsumexp median
    linalg_norm linalg_vector_norm quantile
    """.split()  # noqa: SIM905
)
"""Reductions over axes as in normalizations. A sum is also a pooling, and is not among them."""
_ARITHMETIC = frozenset(
    """
    add sub rsub mul multiply div divide true_divide truediv rdiv pow square sqrt rsqrt reciprocal
    clamp clip clamp_min clamp_max abs absolute maximum float to type type_as
    """.split()  # noqa: SIM905
)
"""Operations that make a norm or a standard deviation of reductions."""
_MOVES = frozenset(
    """
    view reshape view_as flatten unflatten squeeze unsqueeze permute transpose expand expand_as
    getitem
    """.split()  # noqa: SIM905
)
_MOVES_POSITIONS = frozenset("roll flip rot90 pixel_shuffle pixel_unshuffle interpolate".split())  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Origin:
    """What a tensor was computed from."""

    root: int
    """Tensors with the same root hold functions of the same values, position by position."""
    is_statistic: bool
    """Whether it was computed from reductions by arithmetic alone."""


class Lineage:
    """The origins of the tensors of one forward."""

    def __init__(self) -> None:
        self._origins: TensorMap[Origin] = TensorMap()
        self._numbers = count()

    def of(self, tensor: Tensor) -> Origin:
        """Return the origin of a tensor. A tensor that is not known has its own."""
        origin = self._origins.get(tensor)
        if origin is None:
            origin = self._origins[tensor] = Origin(next(self._numbers), False)
        return origin

    def follow(
        self,
        known: Known,
        arguments: Sequence[Any],
        outputs: Sequence[Tensor],
        is_static: Callable[[Tensor], bool],
    ) -> None:
        """Set the origins of the results of an operation."""
        sources = [a for a in arguments if isinstance(a, Tensor) and not is_static(a)]
        if not sources or not outputs:
            return
        origins = [self.of(source) for source in sources]
        roots = {origin.root for origin in origins}
        name = known.name
        keeps = _keeps_positions(known, arguments) and len(roots) == 1
        root = roots.pop() if keeps else next(self._numbers)
        statistic = name in _STATISTICS or (
            name in _ARITHMETIC | _MOVES and all(origin.is_statistic for origin in origins)
        )
        for output in outputs:
            self._origins[output] = Origin(root, statistic)


def _keeps_positions(known: Known, arguments: Sequence[Any]) -> bool:
    name = known.name
    if name in _STATISTICS or name in _MOVES_POSITIONS or "pool" in name:
        return False
    if name.startswith("conv") and len(arguments) > 1 and isinstance(arguments[1], Tensor):
        return all(size == 1 for size in arguments[1].shape[2:])
    return name in _POINTWISE or known.operation.carries is not None
