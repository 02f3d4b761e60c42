"""Efficient channel attention (ECA), Wang et al. 2020, CVPR."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attnscope.networks.attention.gate import SigmoidGate
from attnscope.networks.attention.pooling import mean_over
from attnscope.networks.attention.registry import register_attention


class ECAChannelGate(SigmoidGate):
    """Channel gate of ECA, Wang et al. 2020, eq. 9 and 12: ``sigmoid(conv1d(mean(x)))``.

    The mean is over the positions, and the convolution runs over neighboring channels. Its kernel
    size is the odd number nearest to ``log2(channels) / 2 + 1/2``.

    Args:
        channels: Number of channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int(abs(math.log2(channels) / 2 + 0.5))
        size += 1 - size % 2
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    @property
    def last(self) -> nn.Module:
        """The last layer before the sigmoid."""
        return self.conv

    def forward(self, x: Tensor) -> Tensor:
        """Return the gates ``(N, C, 1, 1)`` of features ``(N, C, H, W)``."""
        gate = torch.sigmoid(self.conv(mean_over(x, "pixels").flatten(1)[:, None]))
        return self.scaled(gate)[:, 0, :, None, None]


class ECAAttention(nn.Module):
    """Multiply features by an `ECAChannelGate`; the output has the shape of the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ECAChannelGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply features ``(N, C, H, W)`` by their gate."""
        gated: Tensor = x * self.channel(x)
        return gated


def _build(channels: int, reduction: int, kernel_size: int) -> nn.Module:
    return ECAAttention(channels)


register_attention("eca", _build)
