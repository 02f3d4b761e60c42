"""The number type of a network: half, bfloat16, single or double precision."""

from __future__ import annotations

import torch
from torch import nn


def number_type(model: nn.Module) -> torch.dtype:
    """Return the floating point type of a network's first parameter or buffer; float32 without."""
    tensors = (*model.parameters(), *model.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
