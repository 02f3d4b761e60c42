"""Convolutional block attention module (CBAM), Woo et al. 2018, ECCV."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.errors import InputError
from attnscope.networks.attention.gate import SigmoidGate, hidden_channels
from attnscope.networks.attention.pooling import mean_and_max
from attnscope.networks.attention.registry import register_attention


class CBAMChannelGate(SigmoidGate):
    """Channel gate of CBAM, Woo et al. 2018, eq. 2: ``sigmoid(MLP(mean(x)) + MLP(max(x)))``.

    Mean and maximum are over the positions. The MLP has one hidden layer with ReLU and no biases.

    Args:
        channels: Number of channels of the features.
        reduction: Number of channels divided by the number of hidden channels.

    Raises:
        InputError: ``reduction`` leaves no hidden channels.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    @property
    def last(self) -> nn.Module:
        """The last layer before the sigmoid."""
        return self.expand

    def forward(self, x: Tensor) -> Tensor:
        """Return the gates ``(N, C, 1, 1)`` of features ``(N, C, H, W)``."""
        pooled = torch.stack(mean_and_max(x, "pixels")).flatten(2)  # (2, N, C)
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(pooled))).sum(0))
        return self.scaled(gate)[:, :, None, None]


class CBAMSpatialGate(SigmoidGate):
    """Spatial gate of CBAM, Woo et al. 2018, eq. 3: ``sigmoid(conv([mean(x), max(x)]))``.

    Mean and maximum are over the channels. The convolution has no bias.

    Args:
        kernel_size: Kernel size of the convolution, in pixels; odd.

    Raises:
        InputError: ``kernel_size`` is not a positive odd number.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(
                "AS310",
                f"the kernel size is {kernel_size}; it must be a positive odd number, such as 7",
            )
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    @property
    def last(self) -> nn.Module:
        """The last layer before the sigmoid."""
        return self.conv

    def forward(self, x: Tensor) -> Tensor:
        """Return the gates ``(N, 1, H, W)`` of features ``(N, C, H, W)``."""
        pooled = torch.cat(mean_and_max(x, "channels"), 1)
        return self.scaled(torch.sigmoid(self.conv(pooled)))


class CBAMAttention(nn.Module):
    """A channel gate followed by a spatial gate, Woo et al. 2018, eq. 1.

    The spatial gate is computed from the features that the channel gate has multiplied. The output
    has the shape of the input.

    Args:
        channels: Number of channels of the features.
        reduction: Number of channels divided by the hidden channels of the channel gate.
        kernel_size: Kernel size of the spatial gate, in pixels; odd.
    """

    def __init__(self, channels: int, reduction: int, kernel_size: int) -> None:
        super().__init__()
        self.channel = CBAMChannelGate(channels, reduction)
        self.spatial = CBAMSpatialGate(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply features ``(N, C, H, W)`` by both gates."""
        x = x * self.channel(x)
        gated: Tensor = x * self.spatial(x)
        return gated


def _build(channels: int, reduction: int, kernel_size: int) -> nn.Module:
    return CBAMAttention(channels, reduction, kernel_size)


register_attention("cbam", _build)
