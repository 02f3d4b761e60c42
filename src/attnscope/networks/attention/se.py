"""Squeeze-and-excitation (SE), Hu et al. 2018, CVPR."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.networks.attention.gate import SigmoidGate, hidden_channels
from attnscope.networks.attention.pooling import mean_over
from attnscope.networks.attention.registry import register_attention


class SEChannelGate(SigmoidGate):
    """Channel gate of SE, Hu et al. 2018, eq. 2 and 3: ``sigmoid(W2 relu(W1 mean(x) + b1) + b2)``.

    Args:
        channels: Number of channels of the features.
        reduction: Number of channels divided by the number of hidden channels.

    Raises:
        InputError: ``reduction`` leaves no hidden channels.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    @property
    def last(self) -> nn.Module:
        """The last layer before the sigmoid."""
        return self.expand

    def forward(self, x: Tensor) -> Tensor:
        """Return the gates ``(N, C, 1, 1)`` of features ``(N, C, H, W)``."""
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(mean_over(x, "pixels").flatten(1)))))
        return self.scaled(gate)[:, :, None, None]


class SEAttention(nn.Module):
    """Multiply features by an `SEChannelGate`; the output has the shape of the input."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.channel = SEChannelGate(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply features ``(N, C, H, W)`` by their gate."""
        gated: Tensor = x * self.channel(x)
        return gated


def _build(channels: int, reduction: int, kernel_size: int) -> nn.Module:
    return SEAttention(channels, reduction)


register_attention("se", _build)
