"""Augmentation of batches, compared with loops, with torchvision and with counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from attnscope.data import augment as module
from attnscope.data.augment import augment
from attnscope.data.augmentation import Augmentation
from attnscope.data.images import Normalization
from attnscope.training.recipes import RECIPES

Array = NDArray[Any]
UNIT = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NOTHING = Augmentation()


def random_images(count: int, size: int = 32, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, size, size), generator=generator).to(torch.uint8)


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_numbers(how: Augmentation, count: int, size: int = 32) -> module.Numbers:
    return module.draw_numbers(how, seeded(), count, size=size)


# --- crop, flip, cutout -----------------------------------------------------------------------


def draws(seed: int, n: int, size: int, padding: int, flip: bool, cutout: int) -> Iterator[Any]:
    """The random numbers of `augment` for each image: row, column, flip, row and column of the hole."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, wanted: bool) -> list[int]:
        if not wanted:
            return [0] * n
        return torch.randint(high, (n, 1), generator=generator).flatten().tolist()

    rows, columns = draw(2 * padding + 1, padding > 0), draw(2 * padding + 1, padding > 0)
    flips = draw(2, flip)
    return zip(rows, columns, flips, draw(size, cutout > 0), draw(size, cutout > 0), strict=True)


def slow_augment(x: Array, padding: int, cutout: int, drawn: Iterator[Any]) -> Array:
    out = np.empty_like(x)
    n, channels, size, _ = x.shape
    for i, (row, column, flip, hole_y, hole_x) in zip(range(n), drawn, strict=True):
        for c in range(channels):
            padded = np.pad(x[i, c], padding, mode="reflect")
            cropped = padded[row : row + size, column : column + size]
            out[i, c] = cropped[:, ::-1] if flip else cropped
            for y in range(hole_y - cutout // 2, hole_y - cutout // 2 + cutout):
                for z in range(hole_x - cutout // 2, hole_x - cutout // 2 + cutout):
                    if 0 <= y < size and 0 <= z < size:
                        out[i, c, y, z] = 0
    return out


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("cutout", [0, 1, 4, 5])
@pytest.mark.parametrize("size", [32, 64])
def test_crop_flip_and_cutout_equal_loops(padding: int, flip: bool, cutout: int, size: int) -> None:
    """Lengths in pixels refer to images of 32 pixels and scale with the size."""
    images = random_images(9, size)
    normalization = Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
    how = Augmentation(crop_padding=padding, flip=flip, cutout=cutout)
    before = images.clone()
    found = augment(images, normalization, how, seeded(7), size=size)
    x, unit = normalization.apply(images).numpy(), size // 32
    drawn = draws(7, 9, size, padding * unit, flip, cutout * unit)
    np.testing.assert_array_equal(
        found.numpy(), slow_augment(x, padding * unit, cutout * unit, drawn)
    )
    assert torch.equal(images, before), "not changed in place"
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_digits_are_never_mirrored() -> None:
    images = random_images(20)
    for resized in (False, True):
        how = Augmentation(flip=True, resized_crop=resized)
        plain = augment(images, UNIT, replace(how, flip=False), seeded(), size=32)
        assert torch.equal(augment(images, UNIT, how, seeded(), size=32, may_flip=False), plain)
        assert not torch.equal(augment(images, UNIT, how, seeded(), size=32), plain)


@pytest.mark.parametrize(
    ("how", "low", "high"),
    [
        (Augmentation(crop_padding=4), 60, 81),  # of 81 possible crops, 200 draws hit about 74
        (Augmentation(flip=True), 2, 2),
        (Augmentation(cutout=8), 150, 200),  # of 1,024
        (Augmentation(resized_crop=True), 200, 200),
        (Augmentation(rotation=15), 200, 200),
        (Augmentation(brightness=0.2), 200, 200),
        (Augmentation(contrast=0.2), 200, 200),
        (Augmentation(saturation=0.2), 200, 200),
        (Augmentation(hue=0.1), 200, 200),
    ],
)
def test_each_image_has_its_own_draw(how: Augmentation, low: int, high: int) -> None:
    images = random_images(1).repeat(200, 1, 1, 1)
    found = augment(images, UNIT, how, seeded(1), size=32)
    assert low <= len(torch.unique(found.flatten(1), dim=0)) <= high


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_step_is_augmented_alike_however_it_is_split(recipe: Any) -> None:
    images = random_images(20)
    how = replace(recipe.augmentation, cutout=8)
    whole = augment(images, UNIT, how, seeded(), size=32)
    pieces = [
        augment(images[rows], UNIT, how, seeded(), size=32, total=20, rows=rows)
        for rows in (slice(0, 7), slice(7, 8), slice(8, 20))
    ]
    assert torch.equal(torch.cat(pieces), whole)


def test_augmentation_depends_on_its_generator_only() -> None:
    images, how = random_images(20), replace(RECIPES["staged"].augmentation, cutout=4)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + 50)
        torch.randn(3)
        found.append(augment(images, UNIT, how, seeded(seed), size=32))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


# --- colors ----------------------------------------------------------------------------------


def test_colors_equal_torchvision_image_by_image() -> None:
    count = 60
    images = random_images(count, 8).float() / 255
    images[0], images[1] = 0.5, 0.0  # gray and black have no hue
    how = Augmentation(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.2)
    found = module.jitter_colors(images, random_numbers(how, count))
    generator = seeded()
    factors = [
        low + (high - low) * torch.rand(count, 1, generator=generator)[:, 0]
        for low, high in ((0.6, 1.4), (0.7, 1.3), (0.5, 1.5), (-0.2, 0.2))
    ]
    orders = torch.rand(count, 4, generator=generator).argsort(1)
    changes = [tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue]
    assert len({tuple(order) for order in orders.tolist()}) > 12, "orders are random too"
    for i in range(count):
        expected = images[i]
        for number in orders[i].tolist():
            expected = changes[number](expected, factors[number][i].item())
        assert (found[i] - expected).abs().max() < 2e-6
    assert (found - images).abs().max() > 0.2


def test_a_hue_shift_of_a_third_permutes_the_primary_colors() -> None:
    primaries = torch.eye(3)[:, :, None, None]
    shifted = module.shift_hue(primaries, torch.full((3, 1, 1, 1), 1 / 3))
    torch.testing.assert_close(shifted, primaries.roll(-1, 0), atol=1e-6, rtol=0)


def test_colors_are_changed_before_normalization() -> None:
    """The brightness factor applies to the pixel, not to the normalized value."""
    images = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    normalization = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    found = augment(images, normalization, Augmentation(brightness=0.5), seeded(3), size=32)
    factor = 0.5 + torch.rand(1, generator=seeded(3)).item()
    expected = (min(1.0, 200 / 255 * factor) - 0.5) / 0.25
    torch.testing.assert_close(found, torch.full_like(found, expected))


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_on_a_device_are_those_of_the_cpu(channels: int) -> None:
    """The variant for devices, on the CPU: it never asks which images get a change."""
    images = random_images(60, 8).float()[:, :channels] / 255
    how = Augmentation(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.2)
    numbers = random_numbers(how, 60)
    found = module._jitter_without_waiting(images, numbers, numbers["order"].argsort(1))
    expected = module.jitter_colors(images, numbers)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert (found - images).abs().max() > 0.2


# --- rotation and resized crops ---------------------------------------------------------------


def test_rotation_equals_scipy() -> None:
    images = random_images(6, 32)
    found = augment(images, UNIT, Augmentation(rotation=30), seeded(), size=32)
    angles = (60 * torch.rand(6, 1, generator=seeded()) - 30)[:, 0]
    for image, result, angle in zip(images, found, angles.tolist(), strict=True):
        expected = ndimage.rotate(
            image.numpy() / 255.0, angle, axes=(2, 1), reshape=False, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(result.numpy(), expected, atol=2e-5)


def test_rotation_is_counterclockwise() -> None:
    image = torch.zeros(1, 3, 33, 33)
    image[:, :, 16, 28] = 1  # to the right of the center
    rotated = module._rotate(image, torch.tensor([90.0]))
    assert rotated[0, 0, 4, 16] == pytest.approx(1, abs=1e-4), "now above it"


def test_resized_crops_have_the_documented_areas_aspects_and_places() -> None:
    """Each pixel of the image holds its own coordinates, which tell where a crop was taken."""
    size, n = 64, 400
    ramp = (torch.arange(size) + 0.5) / size
    image = torch.stack(
        [ramp.expand(size, size), ramp[:, None].expand(size, size), ramp * 0 + 0 * ramp[:, None]]
    )
    numbers = random_numbers(Augmentation(resized_crop=True), n)
    crops = module._resized_crop(image.repeat(n, 1, 1, 1), numbers, 32)
    x, y = crops[:, 0], crops[:, 1]
    assert (x - x[:, :1]).abs().max() < 1e-5, "columns are straight"
    assert (y - y[:, :, :1]).abs().max() < 1e-5
    # Measured between the second and the second-to-last pixel, because borders reflect.
    wide = (x[:, 0, 30] - x[:, 0, 1]) / 29 * 32
    high = (y[:, 30, 0] - y[:, 1, 0]) / 29 * 32
    area, shape = wide * high, wide / high
    assert 0.08 <= area.min() < 0.12
    assert 0.9 < area.max() <= 1.0001
    assert 3 / 4 - 1e-3 <= shape.min() < 0.8
    assert 1.25 < shape.max() <= 4 / 3 + 1e-3
    assert abs(area.mean() - 0.54) < 0.06, "uniform, except that some large crops do not fit"
    left = x[:, 0].mean(1) - wide / 2
    top = y[:, :, 0].mean(1) - high / 2
    assert min(left.min(), top.min()) >= -1e-3
    assert (left + wide).max() <= 1 + 1e-3
    assert torch.corrcoef(torch.stack([left, top]))[0, 1].abs() < 0.9
    assert 0.4 < (left / (1 - wide).clamp_min(1e-3)).mean() < 0.6, "anywhere"


def test_half_of_the_resized_crops_are_mirrored() -> None:
    ramp = torch.arange(64) / 64
    image = ramp.expand(3, 64, 64)
    numbers = random_numbers(Augmentation(resized_crop=True, flip=True), 300)
    crops = module._resized_crop(image.repeat(300, 1, 1, 1), numbers, 32)
    mirrored = (crops[:, 0, 0, -1] < crops[:, 0, 0, 0]).float().mean()
    assert abs(mirrored - 0.5) < 4 * math.sqrt(0.25 / 300)


def test_larger_images_without_a_resized_crop_are_center_cropped() -> None:
    images = random_images(3, 40)
    found = augment(images, UNIT, NOTHING, seeded(), size=32)
    assert torch.equal((found * 255).round().to(torch.uint8), images[:, :, 4:36, 4:36])


def test_gray_images_are_jittered_as_equal_channels_are() -> None:
    """Saturation and hue do not change them."""
    gray = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    how = Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    found = module.jitter_colors(gray, random_numbers(how, 6))
    colors = module.jitter_colors(gray.expand(-1, 3, -1, -1), random_numbers(how, 6))
    torch.testing.assert_close(found, colors[:, :1], atol=1e-3, rtol=0)
    assert found.shape == gray.shape
    assert not torch.equal(found, gray)


@pytest.mark.parametrize("channels", [1, 4])
def test_crops_keep_the_channels(channels: int) -> None:
    images = torch.randint(256, (3, channels, 16, 16), dtype=torch.uint8)
    same = Normalization((0.0,) * channels, (1.0,) * channels)
    how = Augmentation(resized_crop=True, rotation=10, cutout=4)
    found = module.augment(images, same, how, seeded(), size=16)
    assert found.shape == (3, channels, 16, 16)
