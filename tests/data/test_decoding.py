"""Decoding of unusual image files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tests.data.making import Array, load, save, write_folder
from tests.making import refused


def one_image(root: Path, **options: Any) -> Tensor:
    """The pixels of ``test/cow/image.*``."""
    write_folder(root)
    for i in range(2):
        save(root / f"train/cow/{i}.png")
    data = load(root, **options)
    (row,) = (i for i, path in enumerate(data.test.paths) if "/cow/" in path)
    return data.test.images[row]


COLORS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 120, 150]]], np.uint8)
PICTURE = COLORS.repeat(6, 0).repeat(6, 1)  # 12×12


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".ppm", ".Webp"])
def test_lossless_formats_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".Webp" else {}
    save(tmp_path / f"test/cow/image{suffix}", PICTURE, **options)
    np.testing.assert_array_equal(one_image(tmp_path).permute(1, 2, 0).numpy(), PICTURE)


def test_jpeg_and_the_first_frame_of_gif_are_read(tmp_path: Path) -> None:
    save(tmp_path / "a/test/cow/image.JPEG", PICTURE, quality=95, subsampling=0)
    found = one_image(tmp_path / "a").permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found.astype(int), PICTURE, atol=12)
    first, second = Image.fromarray(PICTURE), Image.new("RGB", (12, 12))
    (tmp_path / "b/test/cow").mkdir(parents=True)
    first.save(tmp_path / "b/test/cow/image.gif", save_all=True, append_images=[second])
    found = one_image(tmp_path / "b").permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, PICTURE, "the first frame")


def test_gray_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    gray = PICTURE[:, :, 2]
    alpha = np.full((12, 12, 1), 128, np.uint8)
    palette = Image.fromarray(PICTURE).quantize(8)
    cases = {
        "L": (Image.fromarray(gray), gray[:, :, None].repeat(3, 2)),
        "LA": (
            Image.fromarray(np.concatenate([gray[:, :, None], alpha], 2)),
            gray[:, :, None].repeat(3, 2),
        ),
        "1": (Image.fromarray(gray > 100), (gray > 100)[:, :, None].repeat(3, 2) * 255),
        "P": (palette, PICTURE),
        "RGBA": (Image.fromarray(np.concatenate([PICTURE, alpha], 2)), PICTURE),
    }
    for name, (image, expected) in cases.items():
        assert image.mode == name
        file = tmp_path / name / "test/cow/image.png"
        file.parent.mkdir(parents=True)
        image.save(file)
        found = one_image(tmp_path / name).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, expected, name)


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255, 3])])
def test_transparency_of_palettes_is_ignored(tmp_path: Path, transparency: int | bytes) -> None:
    file = tmp_path / "test/cow/image.png"
    file.parent.mkdir(parents=True)
    Image.fromarray(PICTURE).quantize(4).save(file, transparency=transparency)
    with Image.open(file) as written:
        assert "transparency" in written.info
    np.testing.assert_array_equal(one_image(tmp_path).permute(1, 2, 0).numpy(), PICTURE)


def png(file: Path, pixels: Array, color_type: int) -> None:
    """Write a PNG with 16 bits per channel, byte by byte, because Pillow writes gray ones only."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    file.parent.mkdir(parents=True)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


DEEP = np.linspace(0, 65535, 144).round().astype(np.uint16).reshape(12, 12)


def test_16_bit_gray_is_scaled_not_clipped(tmp_path: Path) -> None:
    png(tmp_path / "a/test/cow/image.png", DEEP, 0)
    save(tmp_path / "b/test/cow/image.tif", DEEP)
    expected = (DEEP / 257).round()
    assert (expected < 255).sum() > 140
    for name in "ab":
        for channel in one_image(tmp_path / name).numpy():
            np.testing.assert_array_equal(channel, expected)


def test_16_bit_color_is_scaled_not_clipped(tmp_path: Path) -> None:
    pixels = np.stack([DEEP, DEEP[::-1], DEEP.T], 2)
    png(tmp_path / "test/cow/image.png", pixels, 2)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, pixels / 257, atol=1)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (DEEP.astype(np.int32) * 3, "16 bits"),
        (DEEP.astype(np.int32) - 1, "16 bits"),
        (DEEP.astype(np.float32) / 65535, "floating-point"),
    ],
)
def test_pixels_of_unknown_scale_are_refused(root: Path, pixels: Array, reason: str) -> None:
    save(root / "test/ant/deep.tif", pixels)
    with refused("AS212", names=("1 of 13", "test/ant/deep.tif", reason)):
        load(root)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    save(tmp_path / "test/cow/image.jpg", PICTURE, "CMYK", quality=95, subsampling=0)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found.astype(int), PICTURE, atol=16)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # display rotated by 90° clockwise
    save(tmp_path / "test/cow/image.png", PICTURE, exif=exif)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, np.rot90(PICTURE, -1))


@pytest.mark.parametrize("limit", [100, 60])  # Pillow raises an error, or only warns
def test_decompression_bombs_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    save(root / "test/ant/bomb.png", np.zeros((16, 16, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", {100: 150, 60: 127}[limit])
    for folder in ("train", "test"):
        for file in (root / folder).rglob("?.png"):
            save(file, np.zeros((8, 8, 3), np.uint8))
    with refused("AS212", names=("1 of 13", "test/ant/bomb.png", "256 pixels")):
        load(root)
    assert len(load(root, skip_unreadable=True).skipped) == 1


def test_images_of_several_sizes_are_resized_and_cropped_to_224(tmp_path: Path) -> None:
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, :50], wide[:, 50:100], wide[:, 100:] = 10, 200, 90
    for name, pixels in {"wide": wide, "tall": wide.transpose(1, 0, 2)}.items():
        save(tmp_path / name / "test/cow/image.png", pixels)
        found = one_image(tmp_path / name)
        assert found.shape == (3, 224, 224)
        # The reference resizes the whole image and crops it afterwards, which needs more memory.
        whole = Image.fromarray(pixels)
        resized = whole.resize(tuple(round(s * 224 / 50) for s in whole.size), 2)
        left, top = ((s - 224) // 2 for s in resized.size)
        expected = np.array(resized.crop((left, top, left + 224, top + 224)))
        np.testing.assert_allclose(found.permute(1, 2, 0).int(), expected.astype(int), atol=1)


def test_a_very_long_image_needs_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sides are 2 and 20,000: resized as a whole, the image would have 500 million pixels."""
    save(tmp_path / "test/cow/image.png", np.full((2, 20_000, 3), 5, np.uint8))
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *a, **k: (sizes.append(size), resize(self, size, *a, **k))[1],
    )
    assert (one_image(tmp_path) == 5).all()
    assert set(sizes) == {(224, 224)}
