"""The features that a gate multiplies, averaged over the axes that the gate does not have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attnscope.gates.axes import letters_of, parse_layout, split_axes
from attnscope.gates.hooks import Edit
from attnscope.kinds import Gate


def pooling_edits(gates: Sequence[Gate], inputs: dict[str, Tensor]) -> dict[str, Edit]:
    """Return edits that change no gate and store the pooled input of each gate in ``inputs``."""

    def edit_of(known: Gate) -> Edit:
        def keep(gate: Tensor, features: Tensor) -> Tensor:
            # A gate that multiplies another gate gets itself as features. If a gate is used several
            # times, the first use counts, as for the values of the gate.
            if features is not gate and known.name not in inputs:
                inputs[known.name] = _pooled(features.detach(), gate.shape, known)
            return gate

        return keep

    return {gate.name: edit_of(gate) for gate in gates}


def _pooled(features: Tensor, shape: torch.Size, gate: Gate) -> Tensor:
    """Return the mean of the features over the axes along which the gate does not vary.

    Args:
        features: The features, in the shape in which they are multiplied.
        shape: Shape of the gate, which broadcasts to that of the features.
        gate: Description of the gate and its axes.
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
    if over:  # with an empty list, sum would add up all axes
        # Always in single precision; a mean in bfloat16 is slow on a CPU.
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
