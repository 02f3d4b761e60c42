"""A network with a gate of rows, and one of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """One gate for each row: the normal distribution function of its mean."""

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(N, C, H, W)``, of the same shape afterwards."""
        return x * torch.special.ndtr(x.mean((1, 3), keepdim=True))


class Channels(nn.Module):
    """One gate for each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(N, C, H, W)``, of the same shape afterwards."""
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Toy(nn.Module):
    """A gate of rows after the first convolution, one of channels after the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.rows = Rows()
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.channels = Channels()
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, 3, H, W)`` -> logits ``(N, 2)``."""
        x = self.channels(self.second(self.rows(self.first(x))))
        return self.fc(x.relu().mean((2, 3)))


def network() -> nn.Module:
    """The network with seeded random weights."""
    torch.manual_seed(0)
    return Toy()
