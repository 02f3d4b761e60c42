"""Networks in which it is known what the gates are used for, and their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture
from attnscope.interventions import InterventionSetup

CLASSES = 3
COUNT = 180


def known_images(of: str, count: int = COUNT) -> TensorDataset:
    """Return images in whose channel k the class k is bright.

    Pixel (0, 0) is a mark that has nothing to do with the class: 0 or 1 at random. For
    ``brightness``, the whole image is as bright as its class, up to a spread in which classes
    overlap.
    """
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    images = 0.2 * torch.rand(count, 3, 6, 6, generator=rng)
    if of == "brightness":
        level = 0.3 + 0.2 * labels + 0.4 * (torch.rand(count, generator=rng) - 0.5)
        images = (0.1 * images + level[:, None, None, None]).clamp(0, 1)
    else:
        images[torch.arange(count), labels] += 0.7
        images[:, :, 0, 0] = (torch.rand(count, 1, generator=rng) < 0.5).float()
    return TensorDataset(images, labels)


def best_losses(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return torch's cross-entropies at the best of many temperatures from 1/1,000 to 1,000."""
    z, y = torch.from_numpy(np.array(logits, np.float64)), torch.from_numpy(np.array(labels))
    tried = [F.cross_entropy(z / 10**t, y, reduction="none") for t in np.linspace(-3, 3, 4001)]
    return min(tried, key=lambda losses: losses.mean().item()).numpy()


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return torch's mean cross-entropy."""
    return F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()


def pooled(x: Tensor) -> Tensor:
    """Return the mean of each channel without the mark."""
    return x[:, :, 1:].mean((2, 3))


def step(gate: Tensor) -> Tensor:
    """Return 1 for a gate clearly above one half and 0 for one clearly below it."""
    return (10 * (gate - 0.7)).clamp(0, 1)


class Knows(nn.Module):
    """A gate that carries the class, on features without any."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gate = self.sigmoid(12 * (pooled(x) - 0.45))[:, :, None, None]
        return ((x * 0 + 1) * gate).mean((2, 3))


class Pair(nn.Module):
    """Two gates that carry the class; either of them suffices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Sigmoid(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        z, blank = 12 * (pooled(x) - 0.45), x * 0 + 1
        first = (blank * self.first(z)[:, :, None, None]).mean((2, 3))
        second = (blank * self.second(z)[:, :, None, None]).mean((2, 3))
        return torch.maximum(step(first), step(second))


class Known(nn.Module):
    """A network by the name of what its gates are used for.

    - ``class``: the class information in the gate is used.
    - ``wide``: the same, and nine further channels of the gate carry noise.
    - ``ignored``: the gate carries the class, and nothing follows from it.
    - ``brightness``: the gate carries the brightness, from which the class is guessed.
    - ``bimodal``: 0 and 1 have the same effect, and what lies between has another.
    - ``harmful``: the gate argues for another class.
    - ``backup``: either of two gates suffices.
    - ``majority``: any two of three gates suffice.
    - ``block``: two gates of a block, either of which suffices, beside a gate that is ignored.
    """

    def __init__(self, of: str) -> None:
        super().__init__()
        self.of = of
        self.a, self.b, self.c = Knows(), Knows(), Knows()
        self.pair = Pair()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        seen = pooled(x)
        if self.of == "class":
            return 5 * self.a(x)
        if self.of == "wide":
            noise = 40 * (x[:, :, 1, 1:4].flatten(1) - 0.1)
            gate = self.sigmoid(torch.cat([12 * (seen - 0.45), noise], 1))[:, :, None, None]
            return 5 * ((x * 0 + 1).repeat(1, 4, 1, 1) * gate).mean((2, 3))[:, :3]
        if self.of == "ignored":
            return 5 * seen + 0 * self.a(x)
        if self.of == "brightness":
            gate = self.sigmoid(8 * (x.mean((1, 2, 3)) - 0.5))[:, None, None, None]
            level = ((x[:, :1] * 0 + 1) * gate).mean((2, 3))
            return torch.cat([0.7 - 2 * level, 0.3 - (level - 0.5).abs(), 2 * level - 1.3], 1)
        if self.of == "bimodal":
            gate = self.sigmoid(60 * (x[:, :1, :1, :1] - 0.5))  # 0 or 1 in float32
            level = ((x * 0 + 1) * gate).mean((2, 3))
            return 5 * seen * ((2 * level - 1).abs() - 0.5).clamp(0)
        if self.of == "harmful":
            return 5 * seen + 8 * self.a(x).roll(1, dims=1)
        if self.of == "backup":
            return 5 * torch.maximum(step(self.a(x)), step(self.b(x)))
        if self.of == "majority":
            votes = step(self.a(x)) + step(self.b(x)) + step(self.c(x))
            return 5 * (votes - 1).clamp(0, 1)
        assert self.of == "block"
        return 5 * self.pair(x) + 0 * self.a(x)


def known_setup(of: str, folder: Path, images: int = 90) -> InterventionSetup:
    model, data = Known(of).eval(), known_images(of)
    recording = capture(
        model, data, folder / of, classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    return InterventionSetup(model, data, recording, images=images)
