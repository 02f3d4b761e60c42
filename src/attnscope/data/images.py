"""Labeled images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.normalization import Normalization as Normalization
from attnscope.errors import InputError
from attnscope.lazy import renamed_names

_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images that are held
_PIECE = 1024  # images that are converted at once


@dataclass(frozen=True)
class LabeledImages:
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

    def center_crop(self, size: int) -> LabeledImages:
        """The middle of each image, ``size`` pixels high and wide."""
        margin = (self.images.shape[-1] - size) // 2
        if not margin and self.images.shape[-1] == size:
            return self
        middle = self.images[:, :, margin : margin + size, margin : margin + size]
        return replace(self, images=middle.contiguous())

    def sha256(self) -> str:
        """SHA-256 over paths, labels and pixels."""
        digest = hashlib.sha256("\n".join(self.paths).encode())
        digest.update(self.labels.numpy().tobytes())
        for start in range(0, len(self), _PIECE):  # what is no slice of memory is copied
            digest.update(self.images[start : start + _PIECE].contiguous().numpy().data)
        return digest.hexdigest()

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> LabeledImages:
        index = np.arange(len(self))[rows]
        return LabeledImages(
            self.images[index], self.labels[index], [self.paths[i] for i in index], self.classes
        )


def batches(part: LabeledImages, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
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
    for start in range(0, len(images), _PIECE):  # in float32 the whole is four times what is kept
        piece = images[start : start + _PIECE].float()
        piece = F.interpolate(piece, size=size, mode="bilinear", antialias=True)
        resized[start : start + _PIECE] = piece.round().clamp(0, 255).to(torch.uint8)
    return resized


__getattr__ = renamed_names(__name__, {"LabelledImages": "LabeledImages"})
