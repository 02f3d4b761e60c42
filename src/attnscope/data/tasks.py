"""Tasks of decoding some image files, which are small and can be done by any process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnscope.data.decoding import Decoded, decode, refused_bombs, try_read
from attnscope.data.fingerprints import pixel_hash
from attnscope.data.images import crop_center, luminance

_TASK_BYTES = 4 * 2**20  # of decoded images
_TASK_IMAGES = 64


@dataclass(frozen=True)
class FileDecoder:
    """How the image files of one folder become pixels."""

    root: Path
    """The folder relative to which files are named."""
    size: int
    """Height and width to which images are resized, in pixels."""
    channels: int
    """Number of channels that are read."""
    white: int | None = None
    """The value of white in images with 16 bits per channel; None if it is not known yet."""
    crop: int | None = None
    """Height and width of the part at the center that is kept; None keeps all."""
    gray: bool = False
    """Whether RGB images are converted to their luminance."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images."""
        side = self.crop or self.size
        return 1 if self.gray else self.channels, side, side

    @property
    def task_images(self) -> int:
        """The number of images of one task."""
        channels, side, _ = self.shape
        return max(1, min(_TASK_IMAGES, _TASK_BYTES // (channels * side * side)))

    def tasks(self, names: Sequence[str], *, summed: bool = False) -> Iterator[Task]:
        """Yield tasks for many files, in their order, whose pixels are hashed."""
        for start in range(0, len(names), self.task_images):
            yield Task(self, tuple(names[start : start + self.task_images]), summed, hashed=True)


@dataclass(frozen=True)
class Task:
    """Some files to decode."""

    decoder: FileDecoder
    names: tuple[str, ...]
    """Their paths in the folder of the decoder."""
    summed: bool = False
    """Whether the pixel values of each image are summed, too."""
    hashed: bool = False
    """Whether the pixels of each image are hashed, too (`attnscope.data.fingerprints`)."""


@dataclass(frozen=True)
class DecodedTask:
    """The images of a task."""

    pixels: NDArray[np.uint8]
    """``(n, C, H, W)``. Images that cannot be read, or whose white is not known, are black."""
    facts: NDArray[Any]
    """``(n,)``, of the type `fact_type`."""
    problems: list[str]
    """One line for each file that cannot be read, with the reason."""


def fact_type(channels: int) -> np.dtype[Any]:
    """Return the type of what is kept of each file: 32 bytes, and 16 for each channel.

    Args:
        channels: Number of channels whose values are summed; 0 if they are not.
    """
    return np.dtype(
        [
            ("readable", "?"),
            ("transparent", "?"),
            ("turned", "?"),
            ("cropped", "?"),
            ("highest", "i4"),  # -1 if the image does not have 16 bits per channel
            ("bytes", "i8"),  # of the file
            ("changed", "i8"),  # when the file was changed, in ns
            ("hash", "u8"),  # of the pixels; 0 if they are not hashed
            ("sums", "i8", (channels,)),  # of the pixel values
            ("squares", "i8", (channels,)),
        ]
    )


def run_task(task: Task) -> DecodedTask:
    """Decode the files of a task, one after the other."""
    with refused_bombs():
        return decode_files(task)


def decode_files(task: Task) -> DecodedTask:
    """Do a task. Call it within `attnscope.data.decoding.refused_bombs`."""
    decoder = task.decoder
    pixels = np.zeros((len(task.names), *decoder.shape), np.uint8)
    facts = np.zeros(len(task.names), fact_type(decoder.shape[0] if task.summed else 0))
    problems = []
    for row, name in enumerate(task.names):
        found = try_read(decoder.root, name, partial(_read, decoder, facts[row]))
        if isinstance(found, str):
            problems.append(found)
            continue
        facts[row]["readable"] = True
        facts[row]["transparent"], facts[row]["turned"] = found.transparent, found.turned
        facts[row]["cropped"] = found.cropped
        facts[row]["highest"] = -1 if found.highest is None else found.highest
        if found.pixels is None:
            continue
        image = found.pixels[None]
        if decoder.gray:
            image = luminance(image)
        if decoder.crop is not None:
            image = crop_center(image, decoder.crop)
        pixels[row] = image[0].numpy()
        if task.hashed:
            facts[row]["hash"] = pixel_hash(pixels[row])
        if task.summed:
            values = pixels[row].reshape(len(pixels[row]), -1)
            facts[row]["sums"] = values.sum(1, dtype=np.int64)
            # numpy converts small parts at a time.
            facts[row]["squares"] = np.einsum("cp,cp->c", values, values, dtype=np.int64)
    return DecodedTask(pixels, facts, problems)


def _read(decoder: FileDecoder, facts: Any, file: Path) -> Decoded:
    state = file.stat()  # before it is read, so that a later change is seen
    facts["bytes"], facts["changed"] = state.st_size, state.st_mtime_ns
    return decode(file, decoder.size, channels=decoder.channels, white=decoder.white)


def as_tensor(found: DecodedTask) -> torch.Tensor:
    """Return the pixels of a task as a tensor that shares their memory."""
    return torch.from_numpy(found.pixels)
