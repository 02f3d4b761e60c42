"""Efficient channel attention, Wang et al. 2020."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attnscope.networks.attention.gate import SigmoidGate
from attnscope.networks.attention.pooling import mean_over
from attnscope.networks.attention.registry import register_attention


class ECAChannelGate(SigmoidGate):
    """Efficient channel attention gate, Wang et al. 2020, eq. 9 and 12.

    ``sigmoid(conv1d(mean(x)))`` over neighboring channels, the kernel size being the odd number
    nearest to ``log2(C) / 2 + 1/2``: ``(N, C, H, W) -> (N, C, 1, 1)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int(abs(math.log2(channels) / 2 + 0.5))
        size += 1 - size % 2
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    @property
    def last(self) -> nn.Module:
        """The layer before the sigmoid."""
        return self.conv

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, C, 1, 1)``."""
        gate = torch.sigmoid(self.conv(mean_over(x, "pixels").flatten(1)[:, None]))
        return self.scaled(gate)[:, 0, :, None, None]


class ECAAttention(nn.Module):
    """``x * channel(x)`` with the gate of :class:`ECAChannelGate`; keeps the shape of ``x``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ECAChannelGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, gated."""
        gated: Tensor = x * self.channel(x)
        return gated


def _build(channels: int, reduction: int, kernel_size: int) -> nn.Module:
    return ECAAttention(channels)


register_attention("eca", _build)
