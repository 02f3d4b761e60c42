"""Mean and maximum of features over positions or channels, with one backward pass for both.

On a CPU without compilation, operations are chosen that are fast there. A GPU and `torch.compile`
get operations that pass over the features once, and that a compiler can fuse with their neighbors.

The backward pass needs to know where the maximum was, and this is stored. The gradient of
``torch.amax`` compares the features with the maximum instead. Compiled code may compute features
again for it, in float32, while the maximum was stored in bfloat16. Then no feature equals the
maximum, and the gradient is NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def mean_and_max(x: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Return the mean and the maximum of features over positions or over channels.

    On a CPU, it is used instead of AdaptiveMaxPool2d and strided reductions, which are several
    times slower in bfloat16. If several values are the largest, the first of them gets the gradient
    of the maximum, as in ``torch.max``.

    Args:
        x: ``(N, C, H, W)``.
        over: ``pixels`` or ``channels``.

    Returns:
        Two tensors, ``(N, C, 1, 1)`` for pixels and ``(N, 1, H, W)`` for channels.
    """
    if torch.is_grad_enabled() and x.requires_grad:
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
    the scattered gradient of the maximum and their sum). On a CPU and in compiled code, this
    function writes one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, over: str) -> tuple[Tensor, Tensor]:
        # ``where`` is the index of the maximum: of a pixel, row by row, or of a channel.
        if over == "channels":
            # The view matches the memory format of x, so that max reads contiguous memory.
            view, axis = (x.permute(0, 2, 3, 1), 3) if _is_channels_last(x) else (x, 1)
            maximum, where = (values.unsqueeze(1) for values in view.max(axis))
        elif _by_hand(x):
            # Several times faster than max here.
            maximum, where = F.max_pool2d(x, x.shape[2:], return_indices=True)
        else:
            maximum, where = (values[..., None, None] for values in x.flatten(2).max(2))
        ctx.save_for_backward(where)
        ctx.shape, ctx.over, ctx.channels_last = x.shape, over, _is_channels_last(x)
        return mean_over(x, over), maximum

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_maximum: Tensor) -> tuple[Tensor, None]:
        (where,) = ctx.saved_tensors
        _, channels, height, width = ctx.shape
        share = grad_mean / (height * width if ctx.over == "pixels" else channels)
        if _by_hand(grad_mean):
            return _scattered(share, grad_maximum, where, ctx), None
        if ctx.over == "pixels":
            place = torch.arange(height * width, device=where.device).view(height, width)
        else:
            place = torch.arange(channels, device=where.device).view(-1, 1, 1)
        return share + torch.where(place == where, grad_maximum, 0), None


def _by_hand(x: Tensor) -> bool:
    """Return whether operations are chosen that are fast on a CPU and that no compiler can fuse."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _scattered(share: Tensor, grad_maximum: Tensor, where: Tensor, ctx: Any) -> Tensor:
    """Return the gradient of both: a share for all, and that of the maximum at its place."""
    n, channels, height, width = ctx.shape
    pixels = height * width
    layout = torch.channels_last if ctx.channels_last else torch.contiguous_format
    grad = share.expand(ctx.shape).contiguous(memory_format=layout)
    # No two maxima share a position in the memory of grad, so index_put_ need not accumulate.
    start = torch.arange(n).view(-1, 1, 1, 1) * channels * pixels
    if ctx.over == "pixels":
        pixel, channel = where, torch.arange(channels).view(-1, 1, 1)
    else:
        pixel, channel = torch.arange(pixels).view(height, width), where
    place = pixel * channels + channel if ctx.channels_last else channel * pixels + pixel
    memory = grad.permute(0, 2, 3, 1) if ctx.channels_last else grad
    memory.view(-1).index_put_(((start + place).flatten(),), (share + grad_maximum).flatten())
    return grad


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
