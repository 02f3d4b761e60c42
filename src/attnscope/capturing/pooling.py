"""What a gate multiplies, pooled to the gate's own axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attnscope.gates.axes import letters_of, parse_layout, split_axes
from attnscope.gates.hooks import Edit
from attnscope.kinds import Gate


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
    layout = parse_layout(gate.layout)
    shape = torch.Size((1,) * (features.ndim - len(shape)) + tuple(shape))
    # The mean over an axis that the gate has only in length 1, such as one value for all channels.
    over = [
        axis
        for axis, token in enumerate(layout)
        if not set(token) & set(gate.axes) or shape[axis] == 1
    ]
    values = features
    if over:  # a sum over no axes would be one over all
        # In single precision whatever the features are in; mean is slow in bfloat16 on a CPU.
        total = values.sum(over, keepdim=True, dtype=torch.float32)
        values = total / math.prod(features.shape[axis] for axis in over)
    values = split_axes(values.float(), layout, gate.rows_per_image, gate.grid or (0, 0))
    return values.reshape(
        [
            size
            for letter, size in zip(letters_of(layout), values.shape, strict=True)
            if letter in gate.axes
        ]
    )
