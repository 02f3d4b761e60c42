"""Attention modules of convolutional networks: SE, ECA and CBAM.

Each module multiplies a feature map ``x`` of shape ``(N, C, H, W)`` by gates between 0 and 1.
Every gate is the output of a submodule that is named after its kind, ``channel`` or ``spatial``, so
that a plain forward hook on it reads the gate.

A gate whose ``scale`` is 2 is twice a sigmoid, between 0 and 2, and 1 where its last layer is zero:
put into a trained network so, it changes nothing at first (see `start_as_identity`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from attnscope.errors import InputError

ATTENTION_KINDS = ("none", "se", "eca", "cbam")


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
        return _mean(x, over), maximum

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


def _mean_and_max(x: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Mean and maximum over the ``pixels``, (N, C, 1, 1), or over the ``channels``, (N, 1, H, W).

    AdaptiveMaxPool2d and strided reductions are several times slower in bfloat16.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        mean, maximum = _MeanAndMax.apply(x, over)
        return mean, maximum
    axes = (2, 3) if over == "pixels" else 1
    return _mean(x, over), x.amax(axes, keepdim=True)


def _mean(x: Tensor, over: str) -> Tensor:
    """Mean over the ``pixels``, (N, C, 1, 1), or over the ``channels``, (N, 1, H, W)."""
    axes = (2, 3) if over == "pixels" else (1,)
    if x.device.type != "cpu":
        return x.mean(axes, keepdim=True)
    # In bfloat16 on a CPU, mean takes up to fifteen times as long as sum, which adds up in float32.
    return x.sum(axes, keepdim=True) / math.prod(x.shape[axis] for axis in axes)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class SEChannelGate(nn.Module):
    """Squeeze-and-excitation gate, Hu et al. 2018, eq. 2 and 3.

    ``sigmoid(W2 relu(W1 mean(x) + b1) + b2)``: ``(N, C, H, W) -> (N, C, 1, 1)``.
    """

    scale = 1

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = _hidden_channels(channels, reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, C, 1, 1)``."""
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(_mean(x, "pixels").flatten(1)))))
        return _scaled(gate, self.scale)[:, :, None, None]


class ECAChannelGate(nn.Module):
    """Efficient channel attention gate, Wang et al. 2020, eq. 9 and 12.

    ``sigmoid(conv1d(mean(x)))`` over neighbouring channels, the kernel size being the odd number
    nearest to ``log2(C) / 2 + 1/2``: ``(N, C, H, W) -> (N, C, 1, 1)``.
    """

    scale = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int(abs(math.log2(channels) / 2 + 0.5))
        size += 1 - size % 2
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, C, 1, 1)``."""
        gate = torch.sigmoid(self.conv(_mean(x, "pixels").flatten(1)[:, None]))
        return _scaled(gate, self.scale)[:, 0, :, None, None]


class CBAMChannelGate(nn.Module):
    """Channel gate of CBAM, Woo et al. 2018, eq. 2.

    ``sigmoid(MLP(mean(x)) + MLP(max(x)))`` with one MLP without bias:
    ``(N, C, H, W) -> (N, C, 1, 1)``.
    """

    scale = 1

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = _hidden_channels(channels, reduction)
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, C, 1, 1)``."""
        pooled = torch.stack(_mean_and_max(x, "pixels")).flatten(2)  # (2, N, C)
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(pooled))).sum(0))
        return _scaled(gate, self.scale)[:, :, None, None]


class CBAMSpatialGate(nn.Module):
    """Spatial gate of CBAM, Woo et al. 2018, eq. 3.

    ``sigmoid(conv([mean over channels, max over channels]))`` with one convolution without bias:
    ``(N, C, H, W) -> (N, 1, H, W)``.
    """

    scale = 1

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size is {kernel_size}; it must be odd, for example 7")
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, 1, H, W)``."""
        pooled = torch.cat(_mean_and_max(x, "channels"), 1)
        return _scaled(torch.sigmoid(self.conv(pooled)), self.scale)


class SEAttention(nn.Module):
    """``x * channel(x)`` with the gate of :class:`SEChannelGate`; keeps the shape of ``x``."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.channel = SEChannelGate(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, gated."""
        gated: Tensor = x * self.channel(x)
        return gated


class ECAAttention(nn.Module):
    """``x * channel(x)`` with the gate of :class:`ECAChannelGate`; keeps the shape of ``x``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ECAChannelGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, gated."""
        gated: Tensor = x * self.channel(x)
        return gated


class CBAMAttention(nn.Module):
    """Channel gate, then spatial gate of what the channel gate let through: Woo et al. 2018, eq. 1.

    Keeps the shape of ``x``.
    """

    def __init__(self, channels: int, reduction: int, kernel_size: int) -> None:
        super().__init__()
        self.channel = CBAMChannelGate(channels, reduction)
        self.spatial = CBAMSpatialGate(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, gated twice."""
        x = x * self.channel(x)
        gated: Tensor = x * self.spatial(x)
        return gated


class StoredConstant(nn.Module):
    """A gate that is the same for every image and every position.

    Args:
        values: ``(1, C, 1, 1)`` of a channel gate, ``(1, 1, 1, 1)`` of a spatial one.
    """

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, x: Tensor) -> Tensor:
        """The stored values, in the precision of ``x``."""
        return self.values.to(x.dtype)


class StoredMap(nn.Module):
    """A spatial gate that is the same for every image of one size.

    Args:
        values: ``(1, 1, H, W)``
        name: what a refusal calls the gate.
    """

    values: Tensor

    def __init__(self, values: Tensor, name: str) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """The stored map, in the precision of ``x``.

        Raises:
            InputError: ``x`` has another height or width. A map of 1×1 would broadcast in silence.
        """
        if x.shape[2:] != self.values.shape[2:]:
            own, given = ("×".join(map(str, t.shape[2:])) for t in (self.values, x))
            raise InputError(
                f"the gate {self.name} is a stored map of {own} and meets features of {given}; "
                "give images of the size that it was folded for"
            )
        return self.values.to(x.dtype)


class GatesInTurn(nn.Module):
    """What is left of an attention module: ``x`` times each gate, each computed of what it meets.

    Args:
        gates: ``channel`` and ``spatial``, or one of them, in the order in which they act. The
            names stay, so that a gate is called what it was called before.
    """

    def __init__(self, gates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for kind, gate in gates.items():
            self.add_module(kind, gate)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, gated by each in turn."""
        for gate in self.children():
            x = x * gate(x)
        return x


def build_attention(
    kind: str, channels: int, *, reduction: int = 16, kernel_size: int = 7
) -> nn.Module:
    """The attention module ``kind`` (``se``, ``eca`` or ``cbam``) for ``channels`` channels.

    Raises:
        InputError: ``kind`` is not known, or ``reduction`` leaves no hidden channel.
    """
    if kind == "se":
        return SEAttention(channels, reduction)
    if kind == "eca":
        return ECAAttention(channels)
    if kind == "cbam":
        return CBAMAttention(channels, reduction, kernel_size)
    # "none" is a kind of network, and no module.
    known = ", ".join(ATTENTION_KINDS[1:])
    raise InputError(f"attention module '{kind}' is not known; take one of {known}")


def start_as_identity(module: nn.Module) -> None:
    """Makes every gate within ``module`` twice a sigmoid whose last layer is zero: exactly 1.

    The last layers get gradient at the first step, and all other parameters from the second.
    """
    for gate in module.modules():
        last: nn.Module
        if isinstance(gate, (SEChannelGate, CBAMChannelGate)):
            last = gate.expand
        elif isinstance(gate, (ECAChannelGate, CBAMSpatialGate)):
            last = gate.conv
        else:
            continue
        gate.scale = 2
        for parameter in last.parameters():
            nn.init.zeros_(parameter)


def _scaled(gate: Tensor, scale: int) -> Tensor:
    return gate if scale == 1 else scale * gate


def _hidden_channels(channels: int, reduction: int) -> int:
    if reduction < 1 or channels < reduction:
        raise InputError(
            f"reduction {reduction} leaves no hidden channel of {channels}; take 1 to {channels}"
        )
    return channels // reduction
