"""Convolutional block attention module, Woo et al. 2018."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.errors import InputError
from attnscope.networks.attention.gate import SigmoidGate, hidden_channels
from attnscope.networks.attention.pooling import mean_and_max
from attnscope.networks.attention.registry import register_attention


class CBAMChannelGate(SigmoidGate):
    """Channel gate of CBAM, Woo et al. 2018, eq. 2.

    ``sigmoid(MLP(mean(x)) + MLP(max(x)))`` with one MLP without bias:
    ``(N, C, H, W) -> (N, C, 1, 1)``.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    @property
    def last(self) -> nn.Module:
        """The layer before the sigmoid."""
        return self.expand

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, C, 1, 1)``."""
        pooled = torch.stack(mean_and_max(x, "pixels")).flatten(2)  # (2, N, C)
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(pooled))).sum(0))
        return self.scaled(gate)[:, :, None, None]


class CBAMSpatialGate(SigmoidGate):
    """Spatial gate of CBAM, Woo et al. 2018, eq. 3.

    ``sigmoid(conv([mean over channels, max over channels]))`` with one convolution without bias:
    ``(N, C, H, W) -> (N, 1, H, W)``.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size is {kernel_size}; it must be odd, for example 7")
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    @property
    def last(self) -> nn.Module:
        """The layer before the sigmoid."""
        return self.conv

    def forward(self, x: Tensor) -> Tensor:
        """The gates of ``x``, ``(N, 1, H, W)``."""
        pooled = torch.cat(mean_and_max(x, "channels"), 1)
        return self.scaled(torch.sigmoid(self.conv(pooled)))


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


def _build(channels: int, reduction: int, kernel_size: int) -> nn.Module:
    return CBAMAttention(channels, reduction, kernel_size)


register_attention("cbam", _build)
