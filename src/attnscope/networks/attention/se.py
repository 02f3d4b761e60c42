"""Squeeze-and-excitation, Hu et al. 2018."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.networks.attention.gate import SigmoidGate, hidden_channels
from attnscope.networks.attention.pooling import mean_over
from attnscope.networks.attention.registry import register_attention


class SEChannelGate(SigmoidGate):
    """Squeeze-and-excitation gate, Hu et al. 2018, eq. 2 and 3.

    ``sigmoid(W2 relu(W1 mean(x) + b1) + b2)``: ``(N, C, H, W) -> (N, C, 1, 1)``.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    @property
    def last(self) -> nn.Module:
        """The layer before the sigmoid."""
        return self.expand

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, C, 1, 1)``."""
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(mean_over(x, "pixels").flatten(1)))))
        return self.scaled(gate)[:, :, None, None]


class SEAttention(nn.Module):
    """``x * channel(x)`` with the gate of :class:`SEChannelGate`; keeps the shape of ``x``."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.channel = SEChannelGate(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, gated."""
        gated: Tensor = x * self.channel(x)
        return gated


def _build(channels: int, reduction: int, kernel_size: int) -> nn.Module:
    return SEAttention(channels, reduction)


register_attention("se", _build)
