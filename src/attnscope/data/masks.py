"""Masks and boxes of images in files, and the part of each that the network receives.

A mask is an image file whose nonzero pixels are inside. A box is ``x0, y0, x1, y1`` in pixels from
the upper left corner of the image as viewers show it, that is, turned by its EXIF orientation. Both
are cropped and resized as the image was (`attnscope.data.decoding.decode`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from PIL import Image, ImageOps

from attnscope.data.areas import average_areas, even_borders
from attnscope.data.decoding import refused_bombs, try_read
from attnscope.errors import InputError
from attnscope.shapes import Array

IMAGE_ENDINGS = frozenset(
    {
        *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
        *(".tif", ".tiff", ".webp"),
    }
)
"""Endings of image files, without which the names of masks and of images are compared."""
_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF", "PPM")
"""Formats of Pillow that keep each value. JPEG surrounds a mask with pixels that are almost 0."""
_OPAQUE = ("1", "L", "P", "I", "F", "RGB")
_WITH_ALPHA = ("LA", "PA", "RGBA")
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_TURNED_SIDEWAYS = range(5, 9)
_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SHOWN = 3  # names in one line
Key = tuple[str, ...]
"""The parts of the path of an image, without the ending of the file."""


@dataclass(frozen=True)
class Frame:
    """The part of an image that the network receives, in pixels of the upright image."""

    height: int
    width: int
    top: float
    left: float
    bottom: float
    right: float
    orientation: int = 1
    """The EXIF orientation by which the image was turned upright."""

    @classmethod
    def whole(cls, height: int, width: int) -> Frame:
        """Return the frame of an image that the network receives as it is."""
        return cls(height, width, 0, 0, height, width)

    @classmethod
    def central(
        cls, height: int, width: int, size: int, resize: int | None = None, orientation: int = 1
    ) -> Frame:
        """Return the frame of an image whose shorter side is resized and that is center cropped.

        Args:
            height: of the upright image.
            width: of the upright image.
            size: height and width of what the network receives, in pixels.
            resize: length to which the shorter side is resized; default ``size``.
            orientation: EXIF orientation of the file.
        """
        short, resized = min(height, width), resize or size
        margin = (resized - size) // 2 * short / resized
        side = size * short / resized
        top, left = (height - short) / 2 + margin, (width - short) / 2 + margin
        return cls(height, width, top, left, top + side, left + side, orientation)

    @classmethod
    def of_file(cls, file: Path, size: int, resize: int | None = None) -> Frame:
        """Return the frame of an image file.

        Raises:
            OSError, ValueError: the file is missing or no image.
        """
        with refused_bombs(), Image.open(file) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            width, height = image.size
        if orientation in _TURNED_SIDEWAYS:
            width, height = height, width
        return cls.central(height, width, size, resize, orientation)


@dataclass(frozen=True)
class Region:
    """What is inside, on a grid that covers the upright image."""

    inside: Bool[Array, "rows columns"]
    rows: Float64[Array, " borders"]
    """Places of the borders between the rows, from 0 to the height of the image."""
    columns: Float64[Array, " borders"]

    def coverage(
        self, frame: Frame, grids: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], NDArray[np.float64]]:
        """Return which share of each cell is inside, for grids that divide the frame evenly.

        Args:
            frame: the part of the image that the network receives.
            grids: numbers of rows and columns.

        Returns:
            Grid -> ``(rows, columns)``, 0 to 1. Each is exact.
        """
        wanted = {
            (h, w): (
                even_borders(frame.top, frame.bottom, h),
                even_borders(frame.left, frame.right, w),
            )
            for h, w in grids
        }
        # The image is read once, on the borders of all grids together.
        every = tuple(
            np.unique(np.concatenate(both)) for both in zip(*wanted.values(), strict=True)
        )
        fine = average_areas(self.inside, (self.rows, self.columns), (every[0], every[1]))
        return {
            grid: average_areas(fine, (every[0], every[1]), cells).clip(0, 1)
            for grid, cells in wanted.items()
        }


@dataclass(frozen=True)
class MaskSource(ABC):
    """Masks or boxes of many images, by the names of the images."""

    path: Path
    names: Mapping[Key, str]
    """Key of an image -> the name of its mask, for messages."""
    passed: tuple[str, ...] = field(default=(), kw_only=True)
    """Lines about what is not read."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """``masks`` or ``boxes``."""

    @abstractmethod
    def read(self, key: Key, frame: Frame) -> Region:
        """Return what is inside of an image.

        Raises:
            InputError: it cannot be read, or does not fit the image.
        """

    def match(self, paths: Sequence[str]) -> dict[int, Key]:
        """Return which mask each image has: row of the image -> key.

        A mask belongs to the image whose path ends with the name of the mask, without the endings
        of the files: ``cat/01.png`` to ``test/cat/01.jpg``, and so does ``01.png`` if no other
        image is called so.

        Raises:
            InputError: AS253, a mask belongs to several images, or several masks to one.
        """
        found: dict[int, Key] = {}
        image_of: dict[Key, str] = {}
        for row, path in enumerate(paths):
            parts = key_of(path)
            several = [parts[i:] for i in range(len(parts)) if parts[i:] in self.names]
            if len(several) > 1:
                raise InputError(
                    "AS253",
                    f"{self.names[several[0]]} and {self.names[several[1]]} in {self.path} are "
                    f"both of the image {path}; keep one",
                )
            for key in several:
                if key in image_of:
                    raise InputError(
                        "AS253",
                        f"{self.names[key]} in {self.path} can be of the images {image_of[key]} "
                        f"and {path}; name it by more of the path of its image, such as "
                        f"{'/'.join(parts[-len(key) - 1 :])}",
                    )
                image_of[key], found[row] = path, key
        return found


class MaskFiles(MaskSource):
    """A folder of masks, one file for each image."""

    kind = "masks"

    def read(self, key: Key, frame: Frame) -> Region:
        """Read a mask; see `MaskSource.read`.

        Raises:
            InputError: AS251, it cannot be read; AS254, it has other proportions than its image.
        """
        name = self.names[key]
        with refused_bombs():
            inside = try_read(self.path, name, lambda file: _read_mask(file, frame))
        if isinstance(inside, str):
            raise InputError(
                "AS251",
                f"the mask {inside} in {self.path} cannot be used; save it as a PNG that is 0 "
                "outside and has the proportions of its image",
            )
        if not _is_alike(inside.shape, (frame.height, frame.width)):
            raise InputError(
                "AS254",
                f"the mask {name} in {self.path} has {inside.shape[1]}×{inside.shape[0]} pixels "
                f"and its image {frame.width}×{frame.height}; give a mask of the whole image",
            )
        rows = even_borders(0, frame.height, inside.shape[0])
        return Region(inside, rows, even_borders(0, frame.width, inside.shape[1]))


def key_of(path: str) -> Key:
    """Return the parts of a path, without the ending of an image file."""
    plain = PurePosixPath(path.replace("\\", "/"))
    has_ending = plain.suffix.lower() in IMAGE_ENDINGS
    parts = (plain.with_suffix("") if has_ending else plain).parts
    return tuple(part for part in parts if part not in ("/", "."))


def shown(names: Sequence[str]) -> str:
    """Return the first of some names, in one line."""
    printed = ["".join(c if c.isprintable() else "?" for c in name) for name in names[:_SHOWN]]
    return ", ".join(printed) + (", ..." if len(names) > _SHOWN else "")


def _read_mask(file: Path, frame: Frame) -> NDArray[np.bool_]:
    """Return which pixels of a mask are inside, turned upright as its image was.

    Raises:
        ValueError: the format or the pixels cannot be used.
    """
    with Image.open(file) as opened:
        compressed = opened.info.get("compression") == "jpeg"
        if opened.format not in _LOSSLESS or compressed:
            raise ValueError(f"{opened.format} may change pixels that are 0")
        image = ImageOps.exif_transpose(opened)
        sizes = (image.height, image.width), (frame.height, frame.width)
        if (
            frame.orientation in _TURNS
            and not _is_alike(*sizes)
            and _is_alike(sizes[0], sizes[1][::-1])
        ):  # the mask of the image as it is stored
            image = image.transpose(_TURNS[frame.orientation])
        values = np.asarray(image)
        mode = image.mode
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    if mode in _WITH_ALPHA:
        inside: NDArray[np.bool_] = (values[..., :-1] != 0).any(-1) & (values[..., -1] != 0)
    elif mode in _OPAQUE or mode.startswith("I;16"):
        inside = (values != 0).any(-1) if values.ndim == 3 else values != 0
    else:
        raise ValueError(f"an image of mode {mode} is no mask")
    return inside


def _is_alike(mask: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Return whether a mask has the proportions of an image, but for rounding to whole pixels."""
    return abs(mask[1] * image[0] - mask[0] * image[1]) <= (image[0] + image[1]) / 2
