"""Image files of any kind as RGB bytes of one size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attnscope.errors import first_line

_LARGEST_NATIVE = 96  # pixels; larger images, or images of several sizes, are resized
_DEFAULT_RESIZE = 224
_Read = TypeVar("_Read")


def common_size(root: Path, files: list[Path]) -> int:
    """The side of the images where all have one and it is small, else the default."""
    sizes, _ = attempt(root, files, _image_size)
    if len(set(sizes.values())) == 1:
        width, height = next(iter(sizes.values()))
        if width == height and width <= _LARGEST_NATIVE:
            return width
    return _DEFAULT_RESIZE


def attempt(
    root: Path, files: list[Path], read: Callable[[Path], _Read]
) -> tuple[dict[Path, _Read], list[str]]:
    """What was read of every readable file; what could not be read, and why."""

    def one(file: Path) -> _Read | str:
        try:
            if not file.is_file():  # a link that leads nowhere; a pipe would block
                return f"{file.relative_to(root)} (no regular file)"
            if not file.stat().st_size:
                return f"{file.relative_to(root)} (empty file)"
            return read(file)
        except Exception as error:  # Pillow's decoders raise what they like on broken files
            reason = first_line(error).split(" '")[0].rstrip(":")
            return f"{file.relative_to(root)} ({reason})"

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = dict(zip(files, pool.map(one, files), strict=True))
    good = {f: r for f, r in results.items() if not isinstance(r, str)}
    return good, [r for r in results.values() if isinstance(r, str)]


def _image_size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def read_image(file: Path, size: int) -> Tensor:
    """One image, uint8 ``(3, size, size)``: the shorter side resized, the middle of the longer.

    Raises:
        Exception: whatever Pillow raises for a file that it cannot decode.
    """
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            # 16 bits a pixel: Pillow's own conversion to RGB clips at 255 instead of scaling.
            deep = np.asarray(image).astype(np.int64)
            if deep.min() < 0 or deep.max() > 65535:
                raise ValueError("pixels of more than 16 bits")
            image = Image.fromarray((deep / 257).round().astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("floating-point pixels, whose white is not known")
        elif image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # straight to RGB, Pillow warns of transparent colors
        image = image.convert("RGB")
    if image.size != (size, size):
        # Resized and center cropped at once: the whole of a very long image could fill the memory.
        wide, high = image.size
        short = min(wide, high)
        left, top = (wide - short) / 2, (high - short) / 2
        box = (left, top, left + short, top + short)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
