"""Images that visitors send: decoded as those of a folder, and refused before they do harm."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnscope.data import uploads
from attnscope.data.decoding import decode
from attnscope.data.uploads import MAX_BYTES, decode_upload
from tests.making import refused

RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, with pixels of one row only."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    start = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + width))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_upload_is_decoded_as_a_file_of_a_folder(
    kind: str, channels: int, tmp_path: Path
) -> None:
    content = saved(PICTURE, kind)
    file = tmp_path / "picture"
    file.write_bytes(content)
    found = decode_upload(content, 16, channels=channels)
    wanted = decode(file, 16, channels=channels).pixels
    assert wanted is not None
    assert torch.equal(found.pixels, wanted)
    assert (found.kind, found.width, found.height) == (kind, 60, 40)
    assert len(found.notes) == 1  # cropped
    cropped = decode_upload(content, 16, resized=24, channels=channels).pixels
    larger = decode(file, 24, channels=channels).pixels
    assert larger is not None
    assert torch.equal(cropped, larger[:, 4:20, 4:20])


def test_16_bits_are_scaled_by_the_white_of_the_folder(tmp_path: Path) -> None:
    values = RNG.integers(0, 4096, (20, 20)).astype(np.uint16)
    content = saved(Image.fromarray(values), "PNG")
    found = decode_upload(content, 20, channels=1, white=4095)
    np.testing.assert_array_equal(found.pixels[0], (values / 4095 * 255).round())
    assert any("4095" in note for note in found.notes)
    assert decode_upload(content, 20, channels=1).pixels.max() == 16, "65535 is white otherwise"
    values[3, 4] = 4096
    with refused("AS264", names=("4096", "4095")):
        decode_upload(saved(Image.fromarray(values), "PNG"), 20, white=4095)


def test_orientation_transparency_and_deep_pixels_are_as_in_a_folder(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(RNG.integers(0, 65536, (20, 20)).astype(np.uint16))
    clear = PICTURE.convert("RGBA")
    clear.putalpha(90)
    for image, kind, options in (
        (PICTURE, "JPEG", {"exif": exif}),
        (deep, "PNG", {}),
        (clear, "PNG", {}),
    ):
        content = saved(image, kind, **options)
        (tmp_path / "picture").write_bytes(content)
        wanted = decode(tmp_path / "picture", 8, white=65535).pixels
        assert wanted is not None
        found = decode_upload(content, 8)
        assert torch.equal(found.pixels, wanted)
        assert found.notes


def test_files_that_are_empty_or_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("AS260"):
        decode_upload(b"", 8)
    with refused("AS260", names=(20,)):
        decode_upload(saved(PICTURE, "PNG") + bytes(MAX_BYTES), 8)


@pytest.mark.parametrize(
    "content",
    [
        b"<?xml version='1.0'?>\n<!-- -->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html></html>",
        b"RIFF0000WAVEfmt ",
        saved(PICTURE, "GIF"),
        saved(PICTURE, "BMP"),
        saved(PICTURE, "TIFF"),
        bytes(100),
    ],
    ids=["svg", "html", "wave", "gif", "bmp", "tiff", "zeros"],
)
def test_other_formats_are_refused_by_their_content(content: bytes) -> None:
    with refused("AS261"):
        decode_upload(content, 8)


def test_an_svg_is_called_one() -> None:
    with refused("AS261", names=("SVG",)):
        decode_upload(b'<svg viewBox="0 0 1 1"></svg>', 8)


@pytest.mark.parametrize("size", [(8000, 7000), (12000, 9000), (60000, 60000)])
def test_bombs_are_refused_by_their_header(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit, above that of Pillow's warning, and above that of its error."""
    monkeypatch.setattr(uploads, "decode", lambda *_, **__: pytest.fail("it was decoded"))
    with refused("AS262", names=(50,)):
        decode_upload(png_header(*size), 8)


def test_animations_are_refused() -> None:
    frames = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in (0, 200)]
    for kind in ("PNG", "WEBP"):
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        with refused("AS263", names=(2,)):
            decode_upload(content, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_files_are_refused(kind: str) -> None:
    content = saved(PICTURE, kind)
    for length in (12, 30, len(content) // 2, len(content) - 60):
        with refused("AS264", names=(kind,)):
            decode_upload(content[:length], 8)


def test_the_first_picture_of_a_jpeg_with_several_is_used() -> None:
    content = saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(180)])
    found = decode_upload(content, 8)
    assert torch.equal(found.pixels, decode_upload(saved(PICTURE, "JPEG"), 8).pixels)
    assert "2" in found.notes[0]


def test_gray_files_do_not_have_four_channels() -> None:
    with refused("AS264"):
        decode_upload(saved(PICTURE.convert("L"), "PNG"), 8, channels=4)
