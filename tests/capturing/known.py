"""Networks whose gates, scores and predictions are known by hand, and images for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]
SCALE = 8.0
COLORS = ("apple", "lime", "plum")
"""Classes whose images are red, green and blue."""


class Color(nn.Module):
    """Multiplies each channel by the sigmoid of its mean; the scores are the means times 8.

    Images are ``(N, C, ...)`` with any number of further axes; the first K channels are used.
    """

    def __init__(self, channels: int = 3, classes: int = 3, dimensions: int = 2) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.features = convolution(channels, classes, 1, bias=False)
        self.linear = nn.Linear(classes, classes, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(
                torch.eye(classes, channels).reshape_as(self.features.weight)
            )
            self.linear.weight.copy_(SCALE * torch.eye(classes))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        gate = torch.sigmoid(x.flatten(2).mean(2))
        x = x * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))
        scores: Tensor = self.linear(x.flatten(2).mean(2))
        return scores


class Bright(nn.Module):
    """Takes one channel: the second of two classes where the mean is above one half."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
            self.features.bias.copy_(torch.tensor([0.5, -0.5]))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return (x * torch.sigmoid(x.mean((2, 3), keepdim=True))).mean((2, 3))


class Numbered(nn.Module):
    """Output k is the class whose images have the gray value 20 k."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        maps = maps * torch.sigmoid(maps.mean((2, 3), keepdim=True))
        level = x.mean((1, 2, 3))[:, None] * 255 / 20 + 0 * maps.mean((1, 2, 3))[:, None]
        return -((level - torch.arange(12)) ** 2)


def color() -> nn.Module:
    return Color()


def five() -> nn.Module:
    return Color(classes=5)


def bright() -> nn.Module:
    return Bright()


def numbered() -> nn.Module:
    return Numbered()


def gates_of(images: Array) -> Array:
    """Gates ``(N, C)`` of `Color`."""
    return np.asarray(1 / (1 + np.exp(-images.reshape(*images.shape[:2], -1).mean(2))))


def scores_of(images: Array) -> Array:
    """Scores ``(N, C)`` of `Color`."""
    means = images.reshape(*images.shape[:2], -1).mean(2)
    return np.asarray(SCALE * means * gates_of(images))


def colored(count: int = 9, shape: tuple[int, ...] = (8, 8)) -> tuple[Tensor, Tensor]:
    """Images ``(N, 3, ...)`` in 0 to 1 of the three colors in turn, all different, and labels."""
    labels = torch.arange(count) % 3
    images = torch.zeros(count, 3, *shape)
    for n in range(count):
        images[n, labels[n]] = 1 - n / 50
    return images, labels


def no_splits() -> Any:
    """A data set of tensors."""
    dataset: Any = torch.utils.data.TensorDataset(*colored())
    dataset.classes = list(COLORS)
    return dataset


def ends() -> None:
    """A function that ends the program."""
    raise SystemExit


def splits() -> dict[str, Any]:
    """Data sets of tensors: nine test images, and six training images."""
    return {"train": torch.utils.data.TensorDataset(*colored(6)), "test": no_splits()}
