"""What a gate multiplies, pooled to the gate's own axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attnscope.gates.hooks import Edit
from attnscope.kinds import AXES, Gate


def pooling_edits(gates: Sequence[Gate], inputs: dict[str, Tensor]) -> dict[str, Edit]:
    """Edits that leave every gate as it is, and put into ``inputs`` what it multiplies, pooled."""

    def edit_of(known: Gate) -> Edit:
        def keep(gate: Tensor, features: Tensor) -> Tensor:
            # A gate that multiplies another gate is handed itself. Of several uses of one gate the
            # first counts, as for the gate's values.
            if features is not gate and known.name not in inputs:
                inputs[known.name] = _pooled(features.detach(), gate.shape, known)
            return gate

        return keep

    return {gate.name: edit_of(gate) for gate in gates}


def _pooled(features: Tensor, shape: torch.Size, gate: Gate) -> Tensor:
    """The mean of the features over the axes along which the gate does not vary.

    Args:
        features: in the shape in which they are multiplied.
        shape: of the gate, which broadcasts to them.
        gate: what the axes are.
    """
    layout = gate.layout
    sizes = (1,) * (features.ndim - len(shape)) + tuple(shape)
    order = [letter for letter in AXES if letter in layout]
    values = features.permute([layout.index(letter) for letter in order])
    # One number for all channels is read as a channel gate (N, 1), and its input so as well.
    over = [
        axis
        for axis, letter in enumerate(order)
        if letter not in gate.axes or sizes[layout.index(letter)] == 1
    ]
    own = [
        1 if axis in over else values.shape[axis]
        for axis, letter in enumerate(order)
        if letter in gate.axes
    ]
    if over:  # a sum over no axes would be one over all
        # In single precision whatever the features are in; mean is slow in bfloat16 on a CPU.
        total = values.sum(over, dtype=torch.float32)
        values = total / math.prod(values.shape[axis] for axis in over)
    return values.float().reshape(own)
