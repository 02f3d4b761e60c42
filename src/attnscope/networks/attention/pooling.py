"""Mean and maximum of a feature map over its pixels or its channels, fast on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def mean_and_max(x: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Mean and maximum over the ``pixels``, (N, C, 1, 1), or over the ``channels``, (N, 1, H, W).

    AdaptiveMaxPool2d and strided reductions are several times slower in bfloat16.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        mean, maximum = _MeanAndMax.apply(x, over)
        return mean, maximum
    axes = (2, 3) if over == "pixels" else 1
    return mean_over(x, over), x.amax(axes, keepdim=True)


def mean_over(x: Tensor, over: str) -> Tensor:
    """Mean over the ``pixels``, (N, C, 1, 1), or over the ``channels``, (N, 1, H, W)."""
    axes = (2, 3) if over == "pixels" else (1,)
    if x.device.type != "cpu":
        return x.mean(axes, keepdim=True)
    # In bfloat16 on a CPU, mean takes up to fifteen times as long as sum, which adds up in float32.
    return x.sum(axes, keepdim=True) / math.prod(x.shape[axis] for axis in axes)


class _MeanAndMax(torch.autograd.Function):
    """Mean and maximum over the pixels or over the channels, with one gradient for both.

    Autograd alone writes three feature maps to go back through the two poolings (an expanded mean,
    a scattered maximum and their sum); this writes one. The gradient of the maximum goes to the
    first largest value, as it does for ``torch.max``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, over: str) -> tuple[Tensor, Tensor]:
        # ``where`` counts pixels, or channels. max_pool2d finds it several times faster than max.
        if over == "pixels":
            maximum, where = F.max_pool2d(x, x.shape[2:], return_indices=True)
        else:
            # max runs along a view that follows the memory, whichever layout x lies in.
            view, axis = (x.permute(0, 2, 3, 1), 3) if _is_channels_last(x) else (x, 1)
            maximum, where = (values.unsqueeze(1) for values in view.max(axis))
        ctx.save_for_backward(where)
        ctx.shape, ctx.over, ctx.channels_last = x.shape, over, _is_channels_last(x)
        return mean_over(x, over), maximum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_maximum: Tensor) -> tuple[Tensor, None]:
        (where,) = ctx.saved_tensors
        n, channels, height, width = ctx.shape
        pixels = height * width
        share = grad_mean / (pixels if ctx.over == "pixels" else channels)
        layout = torch.channels_last if ctx.channels_last else torch.contiguous_format
        grad = share.expand(ctx.shape).contiguous(memory_format=layout)
        # Each largest value has a place of its own in the memory of grad.
        own = torch.arange(n, device=where.device).view(-1, 1, 1, 1) * channels * pixels
        if ctx.over == "pixels":
            pixel, channel = where, torch.arange(channels, device=where.device).view(-1, 1, 1)
        else:
            pixel = torch.arange(pixels, device=where.device).view(height, width)
            channel = where
        place = pixel * channels + channel if ctx.channels_last else channel * pixels + pixel
        memory = grad.permute(0, 2, 3, 1) if ctx.channels_last else grad
        memory.view(-1).index_put_(((own + place).flatten(),), (share + grad_maximum).flatten())
        return grad, None


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
