"""Decode one image that a visitor sends: what it is follows from its content, within limits."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from attnscope.data.decoding import MAX_16_BIT, decode, refused_bombs
from attnscope.data.images import crop_center
from attnscope.errors import InputError, first_line

MAX_BYTES = 20 * 2**20
"""Largest file."""
MAX_PIXELS = 50_000_000
"""Most pixels of the picture in it."""
_FORMATS = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}
_START = 4096  # bytes in which a drawing names itself
_REMEDY = "send a PNG, JPEG or WebP file"


@dataclass(frozen=True)
class Upload:
    """An image that was sent."""

    pixels: UInt8[Tensor, "channels size size"]
    """uint8, as the network's images before the normalization."""
    kind: str
    """``PNG``, ``JPEG`` or ``WEBP``."""
    width: int
    """Of the picture in the file, in pixels."""
    height: int
    notes: tuple[str, ...] = ()
    """What was done to it besides resizing, one phrase each."""


def decode_upload(
    content: bytes,
    size: int,
    *,
    resized: int | None = None,
    channels: int = 3,
    white: int | None = None,
) -> Upload:
    """Decode an image file of an unknown origin.

    The header is read first, and the file is refused before it is decoded if the picture is too
    large. Its name is not used: the content says what it is.

    Args:
        content: the file.
        size: height and width of the returned image, in pixels.
        resized: the shorter side after resizing, before the center is cropped. Default: ``size``.
        channels: 1 for the luminance, 3 for RGB, 4 for the four bands of RGBA files.
        white: the value of white, if the image has 16 bits per channel. Default: 65535.

    Raises:
        InputError: the file is empty or larger than `MAX_BYTES` (AS260), neither PNG, JPEG nor
            WebP (AS261), has more than `MAX_PIXELS` (AS262) or several frames (AS263), or is
            damaged or cannot be used (AS264), such as one that is brighter than white.
    """
    if not content:
        raise InputError("AS260", f"the image file is empty; {_REMEDY}")
    if len(content) > MAX_BYTES:
        raise InputError(
            "AS260",
            f"the image file has {len(content) / 2**20:.1f} MiB; send one of at most "
            f"{MAX_BYTES // 2**20} MiB",
        )
    kind = _kind_of(content)
    width, height, frames = _header(content, kind)
    white = white or MAX_16_BIT
    try:
        with refused_bombs():
            found = decode(io.BytesIO(content), resized or size, channels=channels, white=white)
    except Exception as error:  # Pillow's decoders raise exceptions of many types
        raise _damaged(kind, error) from None
    assert found.pixels is not None  # the level of white is given
    notes = []
    if frames > 1:  # a JPEG with previews, as phones write it
        notes.append(f"only the first of {frames} pictures in the file is used")
    if found.turned:
        notes.append("it was turned upright, as its EXIF orientation says")
    if found.transparent:
        notes.append("transparent pixels were put on white")
    if found.cropped:
        notes.append("its sides were cut off to make it a square")
    if found.highest is not None:
        notes.append(f"of its 16 bits per channel, {white} is white")
    pixels = crop_center(found.pixels[None], size)[0].contiguous()
    return Upload(pixels, kind, width, height, tuple(notes))


def _kind_of(content: bytes) -> str:
    """Return the format of a file by its content."""
    for kind, start in _FORMATS.items():
        if content.startswith(start):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    what = "no PNG, JPEG or WebP"
    if re.search(rb"<svg[\s>]", content[:_START], re.IGNORECASE):
        what = "an SVG drawing, which has no pixels"
    raise InputError("AS261", f"the image file is {what}; {_REMEDY}")


def _header(content: bytes, kind: str) -> tuple[int, int, int]:
    """Return width, height and number of frames; nothing is decoded."""
    try:
        with refused_bombs(), Image.open(io.BytesIO(content), formats=[kind]) as image:
            width, height = image.size
            frames, is_album = int(getattr(image, "n_frames", 1)), image.format == "MPO"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_many_pixels(None) from None
    except Exception as error:  # as above
        raise _damaged(kind, error) from None
    if width * height > MAX_PIXELS:
        raise _too_many_pixels((width, height))
    if frames > 1 and not is_album:
        raise InputError(
            "AS263",
            f"the image file is an animation of {frames} frames; send a single picture",
        )
    return width, height, frames


def _too_many_pixels(size: tuple[int, int] | None) -> InputError:
    has = "too many pixels" if size is None else f"{size[0]}×{size[1]} pixels"
    return InputError(
        "AS262",
        f"the picture in the image file has {has}; send one of at most "
        f"{MAX_PIXELS // 10**6} megapixels",
    )


def _damaged(kind: str, error: Exception) -> InputError:
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return _too_many_pixels(None)
    reason = first_line(error).split(" <")[0].rstrip(":.") or type(error).__name__
    return InputError(
        "AS264", f"the {kind} file is damaged or cannot be used ({reason}); save it again"
    )
