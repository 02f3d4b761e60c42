"""Labeled images in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, overload

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.fingerprints import pixel_hash
from attnscope.data.memory import as_gib, share_of_memory
from attnscope.data.normalization import Normalization as Normalization
from attnscope.errors import InputError
from attnscope.lazy import renamed_names

_CHUNK = 1024  # images that are converted at once
_ITERATED = 64  # images that are read at once for a loop over single ones
Rows = slice | Sequence[int] | NDArray[np.int64]
"""Row numbers, as a slice, a range, a list or an array."""


_VALUES = torch.arange(256)


@dataclass(frozen=True)
class ValueSums:
    """Sums over the pixels of each channel of uint8 images, which are exact."""

    pixels: int
    """Number of pixels of one channel."""
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    def normalization(self) -> Normalization:
        """Return mean and standard deviation of values from 0 to 1, rounded to 4 digits."""
        mean, std = [], []
        for total, squares in zip(self.sums, self.squares, strict=True):
            # Integers of any size: one rounding in each division.
            mean.append(round(total / (255 * self.pixels), 4))
            variance = (self.pixels * squares - total**2) / (255 * self.pixels) ** 2
            std.append(round(max(math.sqrt(variance), 1 / 255), 4))
        return Normalization(tuple(mean), tuple(std))


@dataclass(frozen=True)
class LabeledImages:
    """Images of one size in memory, with the label and the path of each.

    ``images[rows]`` selects images by a slice or an array of row numbers. ``images[row]`` is one
    image, uint8 ``(C, H, W)``, and its label, as in the data sets of torchvision; going through the
    images gives such pairs, too. Code that goes through many images takes their pixels from `read`,
    and their number and size from `shape`, so that it accepts
    `attnscope.data.streamed.StreamedImages` as well, which are not in memory.
    """

    images: UInt8[Tensor, "images channels height width"]
    """uint8, ``(N, C, H, W)``; RGB unless another number of channels was asked for."""
    labels: Int64[Tensor, " images"]
    """int64, ``(N,)``: indices into ``classes``."""
    paths: list[str]
    """The origin of each image, relative to its source; unique."""
    classes: list[str]
    """The names of the classes."""
    read_hashes: NDArray[np.uint64] | None = None
    """``(N,)``: the hash of the pixels of each image as they were read, before they were cropped or
    converted to gray; None if a source does not give it."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.shape[2:]))
        count = "1 image" if len(self) == 1 else f"{len(self):,} images"
        name = type(self).__name__
        return f"<{name}: {count} of {size} pixels, {len(self.classes)} classes>"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, C, H, W)``: the numbers of images, channels, and pixels down and across."""
        n, channels, height, width = self.images.shape
        return n, channels, height, width

    def read(
        self, batches: Iterable[Rows]
    ) -> Iterator[UInt8[Tensor, "batch channels height width"]]:
        """Yield the pixels of some images, batch by batch.

        Args:
            batches: The rows of each batch. A slice or a range gives a view of the images. Streamed
                images are decoded ahead, so batches are taken from it before they are yielded.
        """
        for rows in batches:
            yield self.images[slice(rows.start, rows.stop) if isinstance(rows, range) else rows]

    def sum_values(self) -> ValueSums:
        """Return the sums over all pixels of each channel, from which a normalization follows."""
        sums, squares = [], []
        for channel in range(self.shape[1]):
            counts = torch.bincount(self.images[:, channel].flatten(), minlength=256)
            sums.append(int((counts * _VALUES).sum()))
            squares.append(int((counts * _VALUES**2).sum()))
        n, _, height, width = self.shape
        return ValueSums(n * height * width, tuple(sums), tuple(squares))

    def center_crop(self, size: int) -> LabeledImages:
        """Return the central ``size`` × ``size`` pixels of each image."""
        if self.shape[-1] == size:
            return self
        return replace(self, images=crop_center(self.images, size).contiguous())

    def with_channels(self, channels: int) -> LabeledImages:
        """Return the images with another number of channels.

        Args:
            channels: The present number, or 1 for the luminance of RGB images (ITU-R BT.601).

        Raises:
            InputError: Images cannot be converted to this number of channels.
        """
        present = self.shape[1]
        if channels == present:
            return self
        if (present, channels) != (3, 1):
            raise InputError(
                "AS227",
                f"the images have {present} channels and cannot be converted to {channels}; "
                f"choose {'1 or 3' if present == 3 else present} channels",
            )
        return self._in_gray()

    def with_classes(self, names: list[str]) -> LabeledImages:
        """Return the images with other labels, which are indices into ``names``.

        Args:
            names: All present classes, in any order, and possibly more.
        """
        if names == self.classes:
            return self
        table = torch.tensor([names.index(name) for name in self.classes])
        return self._labeled(table[self.labels], names)

    def pixel_hashes(self) -> NDArray[np.uint64]:
        """Return a hash of the pixels of each image, ``(N,)``.

        It covers the pixels as they were read, if the source gives their hashes, and else the
        present ones.
        """
        if self.read_hashes is not None:
            return self.read_hashes
        hashes = np.empty(len(self), np.uint64)
        for start in range(0, len(self), _CHUNK):
            chunk = self.images[start : start + _CHUNK].contiguous().numpy()
            hashes[start : start + _CHUNK] = [pixel_hash(pixels) for pixels in chunk]
        return hashes

    def sha256(self) -> str:
        """Return the SHA-256 hash of paths, labels and pixels."""
        digest = hashlib.sha256("\n".join(self.paths).encode())
        digest.update(self.labels.numpy().tobytes())
        for start in range(0, len(self), _CHUNK):  # contiguous() may copy: limit the memory
            digest.update(self.images[start : start + _CHUNK].contiguous().numpy().data)
        return digest.hexdigest()

    @overload
    def __getitem__(self, rows: int) -> tuple[UInt8[Tensor, "channels height width"], int]: ...

    @overload
    def __getitem__(self, rows: NDArray[np.int64] | slice) -> Self: ...

    def __getitem__(self, rows: Any) -> Any:
        # numpy takes a tensor of one row for the row.
        index = np.arange(len(self))[rows.numpy() if isinstance(rows, Tensor) else rows]
        if index.ndim:
            return self._selected(index)
        row = int(index)
        return next(self.read([slice(row, row + 1)]))[0], int(self.labels[row])

    def __iter__(self) -> Iterator[tuple[UInt8[Tensor, "channels height width"], int]]:
        for images, labels in batches(self, _ITERATED):
            yield from zip(images, labels.tolist(), strict=True)

    def _selected(self, index: NDArray[np.int64]) -> Self:
        """Return the images of some rows."""
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            paths=[self.paths[i] for i in index],
            read_hashes=None if self.read_hashes is None else self.read_hashes[index],
        )

    def _in_gray(self) -> LabeledImages:
        """Return RGB images as their luminance."""
        gray = torch.empty((len(self), 1, *self.shape[2:]), dtype=torch.uint8)
        for start in range(0, len(self), _CHUNK):  # int32 needs four times the memory of uint8
            gray[start : start + _CHUNK] = luminance(self.images[start : start + _CHUNK])
        return replace(self, images=gray)

    def _labeled(self, labels: Tensor, classes: list[str]) -> LabeledImages:
        """Return the same images with other labels and classes."""
        return replace(self, labels=labels, classes=classes)


def crop_center(
    images: UInt8[Tensor, "images channels height width"], size: int
) -> UInt8[Tensor, "images channels size size"]:
    """Return a view of the central ``size`` × ``size`` pixels of square images."""
    margin = (images.shape[-1] - size) // 2
    return images[:, :, margin : margin + size, margin : margin + size]


def luminance(
    images: UInt8[Tensor, "images 3 height width"],
) -> UInt8[Tensor, "images 1 height width"]:
    """Return the luminance of RGB images, ITU-R BT.601."""
    red, green, blue = images.int().unbind(1)
    # The fixed-point formula of Pillow; equal channels keep their value.
    values = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return values.to(torch.uint8)[:, None]


def batches(
    images: LabeledImages, batch_size: int
) -> Iterator[tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]]:
    """Yield ``(images, labels)`` batch by batch, in order; the last batch may be smaller."""
    starts = range(0, len(images), batch_size)
    parts = [slice(start, min(start + batch_size, len(images))) for start in starts]
    for pixels, part in zip(images.read(parts), parts, strict=True):
        yield pixels, images.labels[part]


def check_memory(count: int, image_size: int, channels: int = 3) -> None:
    """Refuse to hold more images than fit into the share of the memory that images may take.

    Args:
        count: Number of images.
        image_size: Height and width of the images, in pixels.
        channels: Number of channels of the images.

    Raises:
        InputError: They need more than `attnscope.data.memory.share_of_memory`.
    """
    size, limit = count * channels * image_size**2, share_of_memory()
    if size > limit:
        raise InputError(
            "AS217",
            f"{count} images of {image_size}×{image_size} pixels need {as_gib(size)} of memory, "
            f"more than {as_gib(limit)}, half of what is available; choose a smaller --image-size",
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
