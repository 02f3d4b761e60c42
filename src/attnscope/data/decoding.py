"""Decode image files of any format to RGB bytes of one size."""

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

_LARGEST_NATIVE = 96  # pixels; larger images, and images of different sizes, are resized
_DEFAULT_RESIZE = 224
_T = TypeVar("_T")


def choose_image_size(root: Path, files: list[Path]) -> int:
    """Return the side of the images if all are squares of one small size, else 224 pixels."""
    sizes, _ = read_files(root, files, _image_size)
    if len(set(sizes.values())) == 1:
        width, height = next(iter(sizes.values()))
        if width == height and width <= _LARGEST_NATIVE:
            return width
    return _DEFAULT_RESIZE


def read_files(
    root: Path, files: list[Path], read: Callable[[Path], _T]
) -> tuple[dict[Path, _T], list[str]]:
    """Apply a function to many files in parallel.

    Args:
        root: The folder relative to which files are named.
        files: The files to read.
        read: Reads one file.

    Returns:
        The result for each readable file, and one line with the reason for each other file.
    """

    def read_or_explain(file: Path) -> _T | str:
        try:
            if not file.is_file():  # broken links; opening a pipe would block
                return f"{file.relative_to(root)} (not a regular file)"
            if not file.stat().st_size:
                return f"{file.relative_to(root)} (empty file)"
            return read(file)
        except Exception as error:  # Pillow's decoders raise exceptions of many types
            reason = first_line(error).split(" '")[0].rstrip(":")
            return f"{file.relative_to(root)} ({reason})"

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = dict(zip(files, pool.map(read_or_explain, files), strict=True))
    readable = {f: r for f, r in results.items() if not isinstance(r, str)}
    return readable, [r for r in results.values() if isinstance(r, str)]


def _image_size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def read_image(file: Path, size: int) -> Tensor:
    """Read one image, resize its shorter side to ``size`` pixels and center crop it.

    Returns:
        uint8, ``(3, size, size)``.

    Raises:
        ValueError: The scale of the pixel values is unknown.
        Exception: Pillow cannot decode the file; the type depends on the file format.
    """
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            # 16 bits per pixel: Pillow's own conversion to RGB clips at 255 instead of scaling.
            pixels = np.asarray(image).astype(np.int64)
            if pixels.min() < 0 or pixels.max() > 65535:
                raise ValueError("pixels have more than 16 bits")
            image = Image.fromarray((pixels / 257).round().astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("floating-point pixels have no defined white level")
        elif image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # Pillow warns when it converts transparency to RGB
        image = image.convert("RGB")
    if image.size != (size, size):
        # Resize and crop in one step: a very long image, resized as a whole, could fill the memory.
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
