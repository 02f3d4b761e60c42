"""Labeled images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.normalization import Normalization as Normalization
from attnscope.errors import InputError
from attnscope.lazy import renamed_names

_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images that are held
_CHUNK = 1024  # images that are converted at once


@dataclass(frozen=True)
class LabeledImages:
    """Images of one size in memory, with the label and the path of each.

    ``images[rows]`` selects images by a slice or an array of row numbers.
    """

    images: UInt8[Tensor, "images channels height width"]
    """uint8, ``(N, C, H, W)``; RGB unless another number of channels was asked for."""
    labels: Int64[Tensor, " images"]
    """int64, ``(N,)``: indices into ``classes``."""
    paths: list[str]
    """The origin of each image, relative to its source; unique."""
    classes: list[str]
    """The names of the classes."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.images.shape[2:]))
        count = "1 image" if len(self) == 1 else f"{len(self):,} images"
        return f"<LabeledImages: {count} of {size} pixels, {len(self.classes)} classes>"

    def center_crop(self, size: int) -> LabeledImages:
        """Return the central ``size`` × ``size`` pixels of each image."""
        margin = (self.images.shape[-1] - size) // 2
        if not margin and self.images.shape[-1] == size:
            return self
        middle = self.images[:, :, margin : margin + size, margin : margin + size]
        return replace(self, images=middle.contiguous())

    def with_channels(self, channels: int) -> LabeledImages:
        """Return the images with another number of channels.

        Args:
            channels: The present number, or 1 for the luminance of RGB images (ITU-R BT.601).

        Raises:
            InputError: Images cannot be converted to this number of channels.
        """
        present = self.images.shape[1]
        if channels == present:
            return self
        if (present, channels) != (3, 1):
            raise InputError(
                "AS227",
                f"the images have {present} channels and cannot be converted to {channels}; "
                f"choose {'1 or 3' if present == 3 else present} channels",
            )
        gray = torch.empty((len(self), 1, *self.images.shape[2:]), dtype=torch.uint8)
        for start in range(0, len(self), _CHUNK):  # int32 needs four times the memory of uint8
            red, green, blue = self.images[start : start + _CHUNK].int().unbind(1)
            # The fixed-point formula of Pillow; equal channels keep their value.
            luminance = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
            gray[start : start + _CHUNK, 0] = luminance.to(torch.uint8)
        return replace(self, images=gray)

    def with_classes(self, names: list[str]) -> LabeledImages:
        """Return the images with other labels, which are indices into ``names``.

        Args:
            names: All present classes, in any order, and possibly more.
        """
        if names == self.classes:
            return self
        table = torch.tensor([names.index(name) for name in self.classes])
        return replace(self, labels=table[self.labels], classes=names)

    def sha256(self) -> str:
        """Return the SHA-256 hash of paths, labels and pixels."""
        digest = hashlib.sha256("\n".join(self.paths).encode())
        digest.update(self.labels.numpy().tobytes())
        for start in range(0, len(self), _CHUNK):  # contiguous() may copy: limit the memory
            digest.update(self.images[start : start + _CHUNK].contiguous().numpy().data)
        return digest.hexdigest()

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> LabeledImages:
        index = np.arange(len(self))[rows]
        return LabeledImages(
            self.images[index], self.labels[index], [self.paths[i] for i in index], self.classes
        )


def batches(
    images: LabeledImages, batch_size: int
) -> Iterator[tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]]:
    """Yield ``(images, labels)`` batch by batch, in order; the last batch may be smaller."""
    for start in range(0, len(images), batch_size):
        yield images.images[start : start + batch_size], images.labels[start : start + batch_size]


def check_memory(count: int, image_size: int, channels: int = 3) -> None:
    """Refuse to decode more images than fit into the memory limit of 8 GiB.

    Args:
        count: Number of images.
        image_size: Height and width of the images, in pixels.
        channels: Number of channels of the images.

    Raises:
        InputError: The images need more than 8 GiB.
    """
    size = count * channels * image_size**2
    if size > _MEMORY_LIMIT:
        raise InputError(
            "AS217",
            f"{count} images of {image_size}×{image_size} pixels need {size / 2**30:.1f} GiB of "
            f"memory; the limit is {_MEMORY_LIMIT / 2**30:.0f} GiB; choose a smaller --image-size",
        )


def resize_images(
    images: Shaped[Tensor, "images channels height width"], size: int
) -> UInt8[Tensor, "images channels size size"]:
    """Resize images by bilinear interpolation with antialiasing.

    Args:
        images: ``(N, C, H, W)``, values from 0 to 255.
        size: Height and width of the returned images, in pixels.

    Returns:
        uint8, ``(N, C, size, size)``.
    """
    resized = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for start in range(0, len(images), _CHUNK):  # float32 needs four times the memory of uint8
        chunk = images[start : start + _CHUNK].float()
        chunk = F.interpolate(chunk, size=size, mode="bilinear", antialias=True)
        resized[start : start + _CHUNK] = chunk.round().clamp(0, 255).to(torch.uint8)
    return resized


__getattr__ = renamed_names(__name__, {"LabelledImages": "LabeledImages"})
