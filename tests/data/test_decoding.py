"""Decoding of unusual image files."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from attnscope.data.images import LabeledImages
from attnscope.data.load import DataSettings
from attnscope.data.sources import LoadedSplits
from tests.data.making import RNG, Array, load, save, write_folder
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


def on_white(pixels: Array, alpha: Array | float) -> Array:
    return np.asarray((pixels * (alpha / 255)) + (255 - alpha))


def test_gray_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    gray = PICTURE[:, :, 2]
    alpha = np.full((12, 12, 1), 128, np.uint8)
    palette = Image.fromarray(PICTURE).quantize(8)
    cases = {
        "L": (Image.fromarray(gray), gray[:, :, None].repeat(3, 2)),
        "LA": (
            Image.fromarray(np.concatenate([gray[:, :, None], alpha], 2)),
            on_white(gray[:, :, None].repeat(3, 2), 128),
        ),
        "1": (Image.fromarray(gray > 100), (gray > 100)[:, :, None].repeat(3, 2) * 255),
        "P": (palette, PICTURE),
        "RGBA": (Image.fromarray(np.concatenate([PICTURE, alpha], 2)), on_white(PICTURE, 128)),
    }
    for name, (image, expected) in cases.items():
        assert image.mode == name
        file = tmp_path / name / "test/cow/image.png"
        file.parent.mkdir(parents=True)
        image.save(file)
        found = one_image(tmp_path / name).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, expected, atol=1 if image.mode[-1] == "A" else 0)


def test_transparent_colors_of_palettes_are_composed_on_white(tmp_path: Path) -> None:
    file = tmp_path / "test/cow/image.png"
    file.parent.mkdir(parents=True)
    palette = Image.fromarray(PICTURE).quantize(4)
    index = np.asarray(palette)
    alpha = np.array([0, 128, 255, 3])
    palette.save(file, transparency=bytes(alpha.tolist()))
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, on_white(PICTURE, alpha[index][:, :, None]), atol=1)


def test_hidden_colors_of_transparent_pixels_do_not_appear(tmp_path: Path) -> None:
    pixels = np.zeros((12, 12, 4), np.uint8)
    pixels[:6], pixels[6:] = (200, 0, 0, 255), (0, 180, 0, 0)
    save(tmp_path / "test/cow/image.png", pixels)
    found = one_image(tmp_path)
    assert found[:, 0, 0].tolist() == [200, 0, 0]
    assert found[:, 11, 0].tolist() == [255, 255, 255]


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


@pytest.mark.parametrize("alone", [False, True])
def test_12_bits_are_told_from_all_splits_together(tmp_path: Path, alone: bool) -> None:
    """4095 is white, although no image of the test split is that bright."""
    dim = (DEEP // 33).astype(np.uint16)
    assert 1900 < dim.max() < 2000
    save(tmp_path / "test/cow/image.png", dim)
    save(tmp_path / "train/ant/bright.png", np.minimum(DEEP, 4095))
    write_folder(tmp_path)
    for i in range(2):
        save(tmp_path / f"train/cow/{i}.png")
    settings = DataSettings(f"folder:{tmp_path}")
    found = settings.load_test() if alone else settings.load()
    split = found.splits[-1] if isinstance(found, LoadedSplits) else found.test
    pixels = split.images[split.paths.index("test/cow/image.png")].numpy()
    np.testing.assert_array_equal(pixels[1], (dim / 4095 * 255).round())
    (note,) = found.notes
    assert "4095" in note
    assert "12 bits" in note
    # One image that uses 16 bits makes all of them images of 16 bits: a dark one stays dark.
    save(tmp_path / "train/ant/bright.png", DEEP)
    found = settings.load_test() if alone else settings.load()
    split = found.splits[-1] if isinstance(found, LoadedSplits) else found.test
    pixels = split.images[split.paths.index("test/cow/image.png")].numpy()
    np.testing.assert_array_equal(pixels[1], (dim / 257).round())


DEEP_COLORS = np.stack([DEEP, DEEP[::-1], DEEP.T], 2)


def test_16_bit_color_is_scaled_not_clipped(tmp_path: Path) -> None:
    png(tmp_path / "test/cow/image.png", DEEP_COLORS, 2)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, (DEEP_COLORS / 257).round())


@pytest.mark.parametrize("alone", [False, True])
def test_colors_of_12_bits_are_told_from_all_splits_together(tmp_path: Path, alone: bool) -> None:
    dim = DEEP_COLORS // 33
    png(tmp_path / "test/cow/image.png", dim, 2)
    png(tmp_path / "train/ant/bright.png", np.minimum(DEEP_COLORS, 4095), 2)
    write_folder(tmp_path)
    save(tmp_path / "train/cow/0.png")
    save(tmp_path / "train/cow/1.png")
    settings = DataSettings(f"folder:{tmp_path}")
    found = settings.load_test() if alone else settings.load()
    split = found.splits[-1] if isinstance(found, LoadedSplits) else found.test
    pixels = split.images[split.paths.index("test/cow/image.png")].permute(1, 2, 0)
    np.testing.assert_array_equal(pixels.numpy(), (dim / 4095 * 255).round())
    assert "12 bits" in found.notes[0]


def test_opacity_of_16_bits_has_its_own_scale(tmp_path: Path) -> None:
    """It does not count as a bright value, and composes on white as in 8 bits."""
    opacity = np.full((12, 12, 1), 0x8080, np.uint16)
    colors = DEEP_COLORS // 16  # 12 bits
    png(tmp_path / "test/cow/image.png", np.dstack([colors, opacity]), 6)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    expected = on_white((colors / 4095 * 255).round(), 128)
    np.testing.assert_allclose(found, expected, atol=1)
    png(tmp_path / "train/bee/deep/image.png", np.dstack([colors, opacity]), 6)  # only scanned
    notes = DataSettings(f"folder:{tmp_path}").load_test().notes
    assert any("12 bits" in note for note in notes)


def test_the_fourth_of_four_bands_of_16_bits_is_a_band(tmp_path: Path) -> None:
    bands = np.dstack([DEEP_COLORS // 16, DEEP])
    for split in ("train", "test"):
        for name in ("ant", "cow"):
            for i in range(2):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                file = tmp_path / "one" / f"{split}{name}{i}" / "image.png"
                png(file, bands, 6)
                file.rename(tmp_path / split / name / f"{i}.png")
    shutil.rmtree(tmp_path / "one")
    data = load(tmp_path, channels=4)
    expected = (bands / 257).round()
    np.testing.assert_array_equal(data.test.images[0].permute(1, 2, 0).numpy(), expected)
    assert "16 bits" in data.notes[-1]


def test_16_bit_color_is_turned_upright(tmp_path: Path) -> None:
    file = tmp_path / "test/cow/image.png"
    png(file, DEEP_COLORS, 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()[6:]  # without "Exif" and two zeros
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + block))
    content = file.read_bytes()
    file.write_bytes(content[:33] + chunk + content[33:])  # after the signature and the header
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, np.rot90((DEEP_COLORS / 257).round(), -1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_16_bit_color_of_tiff_files_is_scaled(tmp_path: Path, order: str, compressed: bool) -> None:
    """Other decoders of Pillow read these: its own, and libtiff."""
    data = DEEP_COLORS.astype(f"{order}u2").tobytes()
    if compressed:
        data = zlib.compress(data)
    sizes = {256: 12, 257: 12, 258: 122, 259: 8 if compressed else 1, 262: 2, 273: 128, 277: 3}
    sizes |= {278: 12, 279: len(data)}
    head = struct.pack(f"{order}2sHIH", {"<": b"II", ">": b"MM"}[order], 42, 8, len(sizes))
    tags = b"".join(
        # Tag 258 (bits per channel) has three values, which lie behind the tags.
        struct.pack(f"{order}HHII", tag, 3, 3, value)
        if tag == 258
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in sizes.items()
    )
    file = tmp_path / "test/cow/image.tif"
    file.parent.mkdir(parents=True)
    file.write_bytes(head + tags + struct.pack(f"{order}I3H", 0, 16, 16, 16) + data)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, (DEEP_COLORS / 257).round())


def test_16_bit_pixels_that_cannot_be_read_are_refused(root: Path) -> None:
    """Pillow reads the upper 8 bits, so that gray images of 12 bits would be black."""
    png(root / "test/ant/deep/image.png", DEEP_COLORS[:, :, :2], 4)
    with refused("AS212", names=("1 of 13", "test/ant/deep/image.png", "LA;16B")):
        load(root)


def test_16_bits_per_pixel_are_not_16_bits_per_channel(tmp_path: Path) -> None:
    """A BMP of 5, 6 and 5 bits per channel."""
    packed = np.full((12, 12), 0x1F << 11, "<u2")  # red
    head = struct.pack("<2sIII", b"BM", 70 + packed.nbytes, 0, 70)
    head += struct.pack("<IiiHHIIiiII", 56, 12, 12, 1, 16, 3, packed.nbytes, 0, 0, 0, 0)
    head += struct.pack("<IIII", 0xF800, 0x07E0, 0x1F, 0)
    file = tmp_path / "test/cow/image.bmp"
    file.parent.mkdir(parents=True)
    file.write_bytes(head + packed.tobytes())
    assert one_image(tmp_path)[:, 0, 0].tolist() == [255, 0, 0]


def test_one_channel_is_the_luminance(tmp_path: Path) -> None:
    save(tmp_path / "test/cow/image.png", PICTURE)
    found = one_image(tmp_path, channels=1)
    expected = (PICTURE @ [0.299, 0.587, 0.114]).round()
    np.testing.assert_array_equal(found.numpy(), expected[None])


def test_images_in_memory_become_gray_as_pillow_does_it() -> None:
    pixels = RNG.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    images = LabeledImages(
        torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.zeros(2, dtype=torch.int64), [], []
    )
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in pixels]
    np.testing.assert_array_equal(images.with_channels(1).images[:, 0], expected)
    assert images.with_channels(3) is images
    with refused("AS227", names=("3 channels", "4")):
        images.with_channels(4)


def test_four_channels_are_the_bands_of_the_file(tmp_path: Path) -> None:
    """The fourth band is no transparency: colors are neither composed nor weighted by it."""
    bands = np.dstack([PICTURE, np.arange(144, dtype=np.uint8).reshape(12, 12)])
    for split in ("train", "test"):
        for name in ("ant", "cow"):
            for i in range(2):
                save(tmp_path / split / name / f"{i}.png", bands)
    data = load(tmp_path, channels=4)
    np.testing.assert_array_equal(data.test.images[0].permute(1, 2, 0).numpy(), bands)
    half = load(tmp_path, channels=4, image_size=8).test.images[0]
    without = load(tmp_path, channels=3, image_size=8)
    assert len(data.normalization.mean) == 4
    plain = Image.fromarray(PICTURE).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(half[:3].permute(1, 2, 0).numpy(), np.asarray(plain))
    assert not np.array_equal(without.test.images[0].numpy(), half[:3].numpy())
    save(tmp_path / "test/ant/rgb.png", PICTURE)
    with refused("AS212", names=("test/ant/rgb.png", "4 channels")):
        load(tmp_path, channels=4)
    with refused("AS227", names=("2 channels",)):
        load(tmp_path, channels=2)


def test_changed_images_are_counted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    write_folder(tmp_path)
    for i in range(2):
        save(tmp_path / f"test/ant/turned{i}.png", PICTURE, exif=exif)
    transparent = np.dstack([PICTURE, np.full((12, 12), 9, np.uint8)])
    save(tmp_path / "train/ant/transparent.png", transparent)
    for i in range(3):
        save(tmp_path / f"test/ant/wide{i}.png", PICTURE[: 9 + i])
    notes = load(tmp_path).notes
    assert [line.removeprefix("of ").split()[0] for line in notes] == ["1", "2", "3"]
    assert "transparent" in notes[0]
    assert "EXIF" in notes[1]
    assert "square" in notes[2]


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
