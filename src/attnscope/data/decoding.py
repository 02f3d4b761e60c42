"""Decode image files of any format to bytes of one size: RGB, gray or four bands."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from attnscope.errors import first_line

_LARGEST_NATIVE = 96  # pixels; larger images, and images of different sizes, are resized
_DEFAULT_RESIZE = 224
_OPENED = 1024  # files whose size is read at once
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")  # modes of Pillow
_DEEP = (";16B", ";16L", ";16N")  # ends of raw modes of Pillow: 16 bits per channel
_DEEP_COLORS = re.compile(r"(RGB|RGBX|RGBA);16[BLN]")  # raw modes that can be read
MAX_16_BIT = 65535
MAX_12_BIT = 4095
_T = TypeVar("_T")


def choose_image_size(root: Path, names: Sequence[str]) -> int:
    """Return the side of the images if all are squares of one small size, else 224 pixels."""
    found: tuple[int, int] | None = None
    for start in range(0, len(names), _OPENED):  # most folders are told from the first files
        for size in read_files(root, names[start : start + _OPENED], _image_size):
            if isinstance(size, str):  # not readable
                continue
            found = found or size
            if size != found or size[0] != size[1] or size[0] > _LARGEST_NATIVE:
                return _DEFAULT_RESIZE
    return _DEFAULT_RESIZE if found is None else found[0]


def read_files(root: Path, names: Sequence[str], read: Callable[[Path], _T]) -> list[_T | str]:
    """Apply a function to some files in parallel; see `try_read`."""
    with refused_bombs(), ThreadPoolExecutor() as pool:
        return list(pool.map(lambda name: try_read(root, name, read), names))


def try_read(root: Path, name: str, read: Callable[[Path], _T]) -> _T | str:
    """Apply a function to a file. Call it within `refused_bombs`.

    Args:
        root: The folder relative to which files are named.
        name: The path of the file in it.
        read: Reads one file.

    Returns:
        Its result; if the file cannot be read, one line with the name and the reason.
    """
    file = root / name
    try:
        if not file.is_file():  # broken links; opening a pipe would block
            return f"{name} (not a regular file)"
        if not file.stat().st_size:
            return f"{name} (empty file)"
        return read(file)
    except Exception as error:  # Pillow's decoders raise exceptions of many types
        reason = first_line(error).split(" '")[0].rstrip(":")
        return f"{name} ({reason})"


@contextmanager
def refused_bombs() -> Iterator[None]:
    """Let Pillow refuse images of very many pixels, about which it only warns otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _image_size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


@dataclass(frozen=True)
class Decoded:
    """An image file that was read."""

    pixels: Tensor | None
    """uint8, ``(C, size, size)``; None if the level of white of 16-bit values is needed."""
    transparent: bool = False
    """Whether some pixels were transparent."""
    turned: bool = False
    """Whether the image was turned upright, as its EXIF orientation says."""
    cropped: bool = False
    """Whether the image was not square, so that its central square is returned."""
    highest: int | None = None
    """The highest value of an image with 16 bits per channel; None for all others."""


def decode(
    file: Path | BinaryIO, size: int, *, channels: int = 3, white: int | None = None
) -> Decoded:
    """Read one image, resize its shorter side to ``size`` pixels and center crop it.

    Transparent pixels are composed on white, and the EXIF orientation is applied.

    Args:
        file: The image file, or its content as an open file.
        size: Height and width of the returned image, in pixels.
        channels: 1 for the luminance (ITU-R BT.601), 3 for RGB, 4 for the four bands of RGBA files
            as they are stored.
        white: The value of white in images with 16 bits per channel. Without it their pixels are
            not returned.

    Raises:
        ValueError: The scale of the pixel values is unknown, values are above that of white, the
            image has another number of channels than 4, or its 16 bits per channel cannot be read.
        Exception: Pillow cannot decode the file; the type depends on the file format.
    """
    with Image.open(file) as opened:
        values = _deep_values(file, opened)  # first, because metadata may lie behind the pixels
        orientation = opened.getexif().get(_ORIENTATION, 1)
        turned = orientation in range(2, 9)
        cropped = opened.width != opened.height
        highest, transparent = None, False
        image: Image.Image = opened
        if values is not None:
            highest = _highest(values, channels)
            if white is None:
                return Decoded(None, turned=turned, cropped=cropped, highest=highest)
            if highest > white:  # bytes would overflow
                raise ValueError(f"values up to {highest} are above {white}, which is white")
            image = _to_bytes(values, white, channels)
            image.getexif()[_ORIENTATION] = orientation
        elif image.mode == "F":
            raise ValueError("floating-point pixels have no defined white level")
        image = ImageOps.exif_transpose(image)
        if channels == 4:
            if image.mode != "RGBA":
                raise ValueError(f"an image of mode {image.mode} does not have 4 channels")
            # Resized as RGBA, pixels would be weighted by the fourth channel.
            bands = [_resize(band, size) for band in image.split()]
            pixels = np.stack([np.array(band) for band in bands])
            tensor = torch.from_numpy(pixels)
            return Decoded(tensor, turned=turned, cropped=cropped, highest=highest)
        if image.mode in _WITH_ALPHA or "transparency" in image.info:
            with_alpha = image.convert("RGBA")
            transparent = with_alpha.getchannel("A").getextrema() != (255, 255)
            if transparent:
                background = Image.new("RGBA", with_alpha.size, "white")
                with_alpha = Image.alpha_composite(background, with_alpha)
            image = with_alpha
        image = image.convert("RGB")
    image = _resize(image if channels == 3 else image.convert("L"), size)
    pixels = np.array(image).reshape(size, size, channels)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return Decoded(tensor, transparent, turned, cropped, highest)


def highest_value(file: Path, channels: int = 3) -> int:
    """Return the highest value of an image with 16 bits per channel, and -1 for all others.

    Args:
        file: The image file.
        channels: As for `decode`. Opacity counts only as one of four channels.

    Raises:
        ValueError: Its 16 bits per channel cannot be read.
    """
    with Image.open(file) as image:
        values = _deep_values(file, image)
        return -1 if values is None else _highest(values, channels)


def _deep_values(file: Path | BinaryIO, image: ImageFile.ImageFile) -> NDArray[np.int64] | None:
    """Return the pixel values of an image with 16 bits per channel, ``(H, W)`` or ``(H, W, C)``.

    Pillow's own conversion to RGB clips gray values at 255, and of colors it reads the upper 8 bits
    only, so that images of 12 bits would be black. The lower 8 bits are what it reads if the two
    bytes of each value are exchanged.

    Args:
        file: The image file.
        image: The same, opened and not yet decoded.

    Returns:
        The values, or None if the image has another number of bits.

    Raises:
        ValueError: Values are out of range, or Pillow cannot read them.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > MAX_16_BIT:
            raise ValueError("pixels have more than 16 bits")
        return values
    codes = [_raw_mode(tile) for tile in image.tile]
    if not any(code.endswith(_DEEP) for code in codes):
        return None
    if "transparency" in image.info or not all(_DEEP_COLORS.fullmatch(code) for code in codes):
        raise ValueError(
            f"pixels of the form {codes[0]} with 16 bits per channel are not supported; save the "
            "image as RGB or gray"
        )
    image.load()
    with Image.open(file) as again:
        again.tile = [_with_bytes_exchanged(tile) for tile in again.tile]
        again.load()
        values = np.asarray(image).astype(np.int64)
        values *= 256
        values += np.asarray(again)
        return values


def _raw_mode(tile: Sequence[Any]) -> str:
    """Return the form of the pixels in a part of a file, such as ``RGB;16B``; empty if unknown."""
    arguments = tile[3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _with_bytes_exchanged(tile: Any) -> Any:
    """Return the description of a part of a file, with the other order of bytes."""
    code, arguments = _raw_mode(tile), tile[3]
    is_little = code[-1] == "L" or (code[-1] == "N" and sys.byteorder == "little")
    code = code[:-1] + ("B" if is_little else "L")
    exchanged = code if isinstance(arguments, str) else (code, *arguments[1:])
    # Plain tuples before Pillow 11.
    return tile._replace(args=exchanged) if hasattr(tile, "_replace") else (*tile[:3], exchanged)


def _highest(values: NDArray[np.int64], channels: int) -> int:
    has_opacity = values.ndim == 3 and values.shape[2] == 4 and channels != 4
    return int((values[..., :-1] if has_opacity else values).max())


def _to_bytes(values: NDArray[np.int64], white: int, channels: int) -> Image.Image:
    """Scale the values of `_deep_values` to bytes, and opacity by its own scale of 16 bits."""
    scales = np.full(values.shape[2:] or 1, white)
    if values.ndim == 3 and values.shape[2] == 4 and channels != 4:
        scales[-1] = MAX_16_BIT
    return Image.fromarray((values / (scales / 255)).round().astype(np.uint8))


def _resize(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    # Resize and crop in one step: a very long image, resized as a whole, could fill the memory.
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
