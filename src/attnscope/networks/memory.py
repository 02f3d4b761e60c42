"""The order of a network's weights in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(model: Network) -> Network:
    """Store the weights of 2D convolutions with channels last, which is faster, and return it.

    A network that has a parameter or buffer with five axes, as 3D convolutions have, stays as it
    is: torch has no such order for it and raises an error.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.ndim == 5 for tensor in tensors):
        return model
    return model.to(memory_format=torch.channels_last)
