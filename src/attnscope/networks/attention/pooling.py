"""Mean and maximum of features over positions or channels.

On a CPU without compilation, operations are chosen that are fast there, and one backward pass is
written by hand. A GPU and `torch.compile` get plain reductions, which pass over the features once.
A compiler can fuse them with their neighbors, and they do not divide the graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def mean_and_max(x: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Return the mean and the maximum of features over positions or over channels.

    On a CPU, it is used instead of AdaptiveMaxPool2d and strided reductions, which are several
    times slower in bfloat16. If several values are the largest, the first of them gets the gradient
    of the maximum; on a GPU and in a compiled network they share it, as in ``torch.amax``.

    Args:
        x: ``(N, C, H, W)``.
        over: ``pixels`` or ``channels``.

    Returns:
        Two tensors, ``(N, C, 1, 1)`` for pixels and ``(N, 1, H, W)`` for channels.
    """
    by_hand = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if by_hand and torch.is_grad_enabled() and x.requires_grad:
        mean, maximum = _MeanAndMax.apply(x, over)
        return mean, maximum
    axes = (2, 3) if over == "pixels" else 1
    return mean_over(x, over), x.amax(axes, keepdim=True)


def mean_over(x: Tensor, over: str) -> Tensor:
    """Return the mean of features over positions or over channels.

    Args:
        x: ``(N, C, H, W)``.
        over: ``pixels`` or ``channels``.

    Returns:
        ``(N, C, 1, 1)`` for pixels and ``(N, 1, H, W)`` for channels.
    """
    axes = (2, 3) if over == "pixels" else (1,)
    if x.device.type != "cpu":
        return x.mean(axes, keepdim=True)
    count = x.shape[2] * x.shape[3] if over == "pixels" else x.shape[1]
    # In bfloat16 on a CPU, mean is up to 15 times slower than sum, which accumulates in float32.
    return x.sum(axes, keepdim=True) / count


class _MeanAndMax(torch.autograd.Function):
    """Mean and maximum over positions or channels, with one backward pass for both.

    Autograd would write three feature maps in the backward pass (the expanded gradient of the mean,
    the scattered gradient of the maximum and their sum). This function writes one. If several
    values are the largest, the first of them gets the gradient of the maximum, as in ``torch.max``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, over: str) -> tuple[Tensor, Tensor]:
        # ``where`` is the index of the maximum. max_pool2d is several times faster than max here.
        if over == "pixels":
            maximum, where = F.max_pool2d(x, x.shape[2:], return_indices=True)
        else:
            # The view matches the memory format of x, so that max reads contiguous memory.
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
        # No two maxima share a position in the memory of grad, so index_put_ need not accumulate.
        start = torch.arange(n, device=where.device).view(-1, 1, 1, 1) * channels * pixels
        if ctx.over == "pixels":
            pixel, channel = where, torch.arange(channels, device=where.device).view(-1, 1, 1)
        else:
            pixel = torch.arange(pixels, device=where.device).view(height, width)
            channel = where
        place = pixel * channels + channel if ctx.channels_last else channel * pixels + pixel
        memory = grad.permute(0, 2, 3, 1) if ctx.channels_last else grad
        memory.view(-1).index_put_(((start + place).flatten(),), (share + grad_maximum).flatten())
        return grad, None


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
