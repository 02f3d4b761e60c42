"""Labelled images in memory, and their normalization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attnscope.errors import InputError

_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images that are held


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per RGB channel of pixels in 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, images: Tensor) -> Tensor:
        """uint8 ``(N, 3, H, W)`` -> normalised float32, of the same shape and channels-last."""
        # One multiplication and one addition, channels-last: what the first convolution wants.
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        x = images.to(torch.float32, memory_format=torch.channels_last)
        return x.mul_(1 / (255 * std)).sub_(mean / std)

    def undo(self, images: Tensor) -> Tensor:
        """Normalised float ``(N, 3, H, W)`` -> uint8, rounded and clipped to 0..255."""
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class LabelledImages:
    """Images of one size in memory, with what a recording needs to know about each."""

    images: Tensor
    """uint8, ``(N, 3, H, W)``"""
    labels: Tensor
    """int64, ``(N,)``, indices into ``classes``"""
    paths: list[str]
    """Where each image comes from, relative to its source; unique."""
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def center_crop(self, size: int) -> LabelledImages:
        """The middle of each image, ``size`` pixels high and wide."""
        margin = (self.images.shape[-1] - size) // 2
        if not margin and self.images.shape[-1] == size:
            return self
        middle = self.images[:, :, margin : margin + size, margin : margin + size]
        return replace(self, images=middle.contiguous())

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> LabelledImages:
        index = np.arange(len(self))[rows]
        return LabelledImages(
            self.images[index], self.labels[index], [self.paths[i] for i in index], self.classes
        )


def batches(part: LabelledImages, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``(images, labels)`` in order, the last batch smaller."""
    for start in range(0, len(part), batch_size):
        yield part.images[start : start + batch_size], part.labels[start : start + batch_size]


def check_memory(count: int, image_size: int) -> None:
    """Refuse to hold more decoded images than memory allows.

    Raises:
        InputError: they need more than 8 GiB.
    """
    need = count * 3 * image_size**2
    if need > _MEMORY_LIMIT:
        raise InputError(
            f"{count} images of {image_size}×{image_size} need {need / 2**30:.1f} GiB of memory, "
            f"more than {_MEMORY_LIMIT / 2**30:.0f}; take a smaller --image-size"
        )


def resize_images(images: Tensor, size: int) -> Tensor:
    """``(N, C, H, W)`` of values 0 to 255 -> uint8 ``(N, C, size, size)``."""
    resized = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for start in range(0, len(images), 1024):  # in float32 the whole is four times what is kept
        piece = images[start : start + 1024].float()
        piece = F.interpolate(piece, size=size, mode="bilinear", antialias=True)
        resized[start : start + 1024] = piece.round().clamp(0, 255).to(torch.uint8)
    return resized
