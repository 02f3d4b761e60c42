"""The features that a gate multiplies, averaged over the axes that the gate does not have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attnscope.gates.hooks import Edit
from attnscope.kinds import AXES, Gate


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
    layout = gate.layout
    sizes = (1,) * (features.ndim - len(shape)) + tuple(shape)
    order = [letter for letter in AXES if letter in layout]
    values = features.permute([layout.index(letter) for letter in order])
    # One number for all channels is read as a channel gate (N, 1), and so is its input.
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
    if over:  # with an empty list, sum would add up all axes
        # Always in single precision; a mean in bfloat16 is slow on a CPU.
        total = values.sum(over, dtype=torch.float32)
        values = total / math.prod(values.shape[axis] for axis in over)
    return values.float().reshape(own)
