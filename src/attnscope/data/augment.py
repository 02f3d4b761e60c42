"""Augment whole batches on the device, with independent random numbers for each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.augmentation import Augmentation
from attnscope.data.normalization import Normalization, Normalizer

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as in torchvision
# The ranges of a resized crop, as in Szegedy et al. 2015 and torchvision's RandomResizedCrop.
_AREA_RANGE = (0.08, 1.0)  # share of the image's area
_ASPECT_RANGE = (3 / 4, 4 / 3)  # width / height
_CROP_ATTEMPTS = 10  # if none of these crops fits into the image, a center crop is taken

Numbers = Mapping[str, Tensor]
"""What was drawn for some images: a purpose -> float32 ``(N, count)`` or int64 ``(N, 1)``."""


@dataclass(frozen=True)
class _Draw:
    """Random numbers of one purpose: integers from 0 to ``below - 1``, or floats in a range."""

    below: int = 0
    low: float = 0.0
    high: float = 1.0
    count: int = 1

    def of(self, images: int, generator: torch.Generator) -> Tensor:
        """Return int64 ``(images, 1)``, or float32 ``(images, count)``."""
        if self.below:
            return torch.randint(self.below, (images, 1), generator=generator)
        drawn = torch.rand(images, self.count, generator=generator)
        return self.low + (self.high - self.low) * drawn


def _draws(a: Augmentation, size: int, *, flip: bool) -> Iterator[tuple[str, _Draw]]:
    """Yield what is drawn for an image, in the order in which it is drawn."""
    unit = size / 32
    if _changes_colors(a):
        for name in ("brightness", "contrast", "saturation"):
            width = getattr(a, name)
            yield name, _Draw(low=max(0.0, 1 - width), high=1 + width)
        yield "hue", _Draw(low=-a.hue, high=a.hue)
        yield "order", _Draw(count=4)
    if a.resized_crop:
        low, high = _AREA_RANGE
        yield "area", _Draw(low=low, high=high, count=_CROP_ATTEMPTS)
        low, high = map(math.log, _ASPECT_RANGE)
        yield "aspect", _Draw(low=low, high=high, count=_CROP_ATTEMPTS)
        yield "left", _Draw()
        yield "top", _Draw()
    elif padding := round(a.crop_padding * unit):
        yield "row", _Draw(below=2 * padding + 1)
        yield "column", _Draw(below=2 * padding + 1)
    if flip:
        yield "flip", _Draw(below=2)
    if a.rotation:
        yield "rotation", _Draw(low=-a.rotation, high=a.rotation)
    if a.cutout:
        yield "hole row", _Draw(below=size)
        yield "hole column", _Draw(below=size)


def _changes_colors(a: Augmentation) -> bool:
    return bool(a.brightness or a.contrast or a.saturation or a.hue)


def draw_numbers(
    augmentation: Augmentation,
    generator: torch.Generator,
    count: int,
    *,
    size: int,
    may_flip: bool = True,
) -> Numbers:
    """Draw the random numbers of some images.

    Args:
        augmentation: The augmentation settings.
        generator: A random generator on the CPU.
        count: Number of images, those of a whole training step: an image is then augmented in the
            same way whether the step runs as one batch, as several accumulated batches or on
            several devices.
        size: Height and width of the augmented images, in pixels.
        may_flip: Whether images may be mirrored without changing their class.

    Returns:
        The numbers for `augment_with`, on the CPU.
    """
    draws = _draws(augmentation, size, flip=augmentation.flip and may_flip)
    return {name: draw.of(count, generator) for name, draw in draws}


def augment(
    images: UInt8[Tensor, "images channels height width"],
    normalization: Normalization,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    size: int,
    may_flip: bool = True,
    total: int | None = None,
    rows: slice = slice(None),
) -> Float32[Tensor, "images channels size size"]:
    """Augment and normalize a batch of training images.

    Args:
        images: uint8, ``(N, C, H, W)``. Height and width are ``size``, or larger if the images are
            to be cropped.
        normalization: Mean and standard deviation; applied after the color jitter.
        augmentation: The augmentation settings. Lengths in pixels refer to images of 32 pixels and
            are scaled to ``size``.
        generator: A random generator on the CPU.
        size: Height and width of the returned images, in pixels.
        may_flip: Whether images may be mirrored without changing their class.
        total: Number of images in the whole training step, if ``images`` are only some of them.
        rows: The rows of the step that ``images`` are. Calls for parts of a step return the same
            images as one call for the whole step, given generators in the same state.

    Returns:
        float32 ``(N, C, size, size)`` in channels-last memory format.
    """
    count = len(images) if total is None else total
    drawn = draw_numbers(augmentation, generator, count, size=size, may_flip=may_flip)
    numbers = {name: values[rows].to(images.device) for name, values in drawn.items()}
    return augment_with(images, normalization, augmentation, numbers, size=size)


def augment_with(
    images: UInt8[Tensor, "images channels height width"],
    normalization: Normalization | Normalizer,
    augmentation: Augmentation,
    numbers: Numbers,
    *,
    size: int,
) -> Float32[Tensor, "images channels size size"]:
    """Augment and normalize a batch of training images with random numbers that were drawn before.

    On a device, nothing is copied from or to the host if ``normalization`` is a `Normalizer`.

    Args:
        images: As in `augment`.
        normalization: As in `augment`, or with its constants on the device.
        augmentation: The augmentation settings.
        numbers: Those of `draw_numbers` for these images, on their device.
        size: Height and width of the returned images, in pixels.

    Returns:
        float32 ``(N, C, size, size)`` in channels-last memory format.
    """
    a, unit = augmentation, size / 32
    if _changes_colors(a):
        images = jitter_colors(images.float() / 255, numbers) * 255
    x = normalization.apply(images)
    if a.resized_crop:
        x = _resized_crop(x, numbers, size)
    else:
        if x.shape[-1] != size:
            margin = (x.shape[-1] - size) // 2
            x = x[:, :, margin : margin + size, margin : margin + size]
        x = _crop_and_flip(x, numbers, round(a.crop_padding * unit))
    if a.rotation:
        x = _rotate(x, numbers["rotation"][:, 0])
    if a.cutout:
        x = _cut_out(x, numbers, round(a.cutout * unit))
    return x.contiguous(memory_format=torch.channels_last)


def jitter_colors(images: Tensor, numbers: Numbers) -> Tensor:
    """Change brightness, contrast, saturation and hue in a random order, image by image.

    The changes are those of torchvision's ``ColorJitter``. The four factors and the order in which
    they are applied are drawn separately for each image. Saturation and hue do not change gray
    images.

    Args:
        images: float, ``(N, 3, H, W)``, or ``(N, 1, H, W)`` for gray images, values from 0 to 1.
        numbers: The random numbers of these images.

    Returns:
        float, of the same shape, values from 0 to 1.
    """
    order = numbers["order"].argsort(1)
    if images.device.type != "cpu":
        return _jitter_without_waiting(images, numbers, order)
    changes: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = [
        (_blend_black, numbers["brightness"]),
        (_blend_mean, numbers["contrast"]),
        (_blend_gray, numbers["saturation"]),
        (shift_hue, numbers["hue"]),
    ]
    if images.shape[1] == 1:
        changes = changes[:2]
    images = images.clone()
    for position in range(4):
        for number, (change, factor) in enumerate(changes):
            chosen = torch.nonzero(order[:, position] == number)[:, 0]
            if len(chosen):
                images[chosen] = change(images[chosen], factor[chosen, :, None, None])
    return images


def _jitter_without_waiting(images: Tensor, numbers: Numbers, order: Tensor) -> Tensor:
    """Do what `jitter_colors` does without asking which images get a change at which position.

    The host would wait for the answer. Instead, every image gets two changes at each position, and
    one of them is kept. Brightness, contrast and saturation are one blend with another partner.
    """
    brightness, contrast, saturation, hue = (
        numbers[name][:, :, None, None] for name in ("brightness", "contrast", "saturation", "hue")
    )
    for position in range(4):
        number = order[:, position, None, None, None]
        gray = _gray(images)
        of_all = gray.mean((1, 2, 3), keepdim=True)
        partner = torch.where(number == 1, of_all, torch.where(number == 2, gray, 0.0))
        factor = torch.where(number == 1, contrast, saturation)
        factor = torch.where(number == 0, brightness, factor)
        blended = torch.lerp(partner.expand_as(images), images, factor).clamp(0, 1)
        if images.shape[1] == 1:
            images = torch.where(number < 2, blended, images)
        else:
            images = torch.where(number == 3, shift_hue(images, hue), blended)
    return images


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of RGB images.

    Args:
        images: float, ``(N, 3, H, W)``, values from 0 to 1.
        shift: float, ``(N, 1, 1, 1)``, as a fraction of the color circle.

    Returns:
        float, ``(N, 3, H, W)``, values from 0 to 1.
    """
    high, _ = images.max(1, keepdim=True)
    low, _ = images.min(1, keepdim=True)
    chroma = (high - low).clamp_min(1e-12)
    red, green, blue = images.chunk(3, 1)
    hue = torch.where(
        high == red,
        (green - blue) / chroma,
        torch.where(high == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma),
    )
    shifted = hue / 6 + shift
    # HSV to RGB without branches: Wikipedia, "HSL and HSV", alternative formula.
    # The offsets of red, green and blue; a tensor of them would be copied to the device each time.
    k = torch.cat([(offset + shifted * 6) % 6 for offset in (5.0, 3.0, 1.0)], 1)
    return high - (high - low) * torch.minimum(k, 4 - k).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    if images.device.type == "cpu":
        weights = torch.tensor(_GRAY_WEIGHTS)[:, None, None]
        return (images * weights).sum(1, keepdim=True)
    # A tensor of the weights would be copied to the device each time.
    red, green, blue = (w * x for w, x in zip(_GRAY_WEIGHTS, images.chunk(3, 1), strict=True))
    return red + green + blue


def _blend_black(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 1)


def _blend_mean(images: Tensor, factor: Tensor) -> Tensor:
    mean = _gray(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factor).clamp(0, 1)


def _blend_gray(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(images).expand_as(images), images, factor).clamp(0, 1)


def _resized_crop(images: Tensor, numbers: Numbers, size: int) -> Tensor:
    """Crop each image at random and resize the crop, as torchvision's ``RandomResizedCrop``."""
    n, _, height, width = images.shape
    area = numbers["area"] * height * width
    aspect = numbers["aspect"].exp()
    wide, high = (area * aspect).sqrt(), (area / aspect).sqrt()
    fits = (wide <= width) & (high <= height)
    first = fits.float().argmax(1, keepdim=True)  # the first crop that fits
    none_fits = ~fits.any(1)
    side = float(min(width, height))
    wide = torch.where(none_fits, side, wide.gather(1, first)[:, 0])
    high = torch.where(none_fits, side, high.gather(1, first)[:, 0])
    left = numbers["left"][:, 0] * (width - wide)
    top = numbers["top"][:, 0] * (height - high)
    # The coordinates of affine_grid run from -1 to 1 across the image.
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2] = wide / width, (2 * left + wide) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = high / height, (2 * top + high) / height - 1
    if "flip" in numbers:
        theta[:, 0, 0] *= 1 - 2 * numbers["flip"][:, 0]
    grid = F.affine_grid(theta, [n, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate normalized images counterclockwise about their centers; fill the corners with 0."""
    angle = torch.deg2rad(degrees)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin(), angle.sin()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _crop_and_flip(images: Tensor, numbers: Numbers, padding: int) -> Tensor:
    """Pad by reflection, crop at random to the original size, and mirror half of the images."""
    if not (padding or "flip" in numbers):
        return images
    n, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(n, -1)
    columns = torch.arange(width, device=device).expand(n, -1)
    if padding:
        images = F.pad(images, (padding,) * 4, mode="reflect")
        rows = rows + numbers["row"]
        columns = columns + numbers["column"]
    if "flip" in numbers:
        columns = torch.where(numbers["flip"].bool(), columns.flip(1), columns)
    sample = torch.arange(n, device=device)[:, None, None]
    # Indexing the channels-last view copies whole pixels and keeps the memory format.
    pixels = images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def _cut_out(images: Tensor, numbers: Numbers, side: int) -> Tensor:
    """Set a square around a random pixel to 0, the mean color: Cutout, DeVries and Taylor 2017."""
    height, width = images.shape[2:]
    top, left = (numbers[f"hole {axis}"] - side // 2 for axis in ("row", "column"))
    y, x = (torch.arange(length, device=images.device) for length in (height, width))
    in_rows, in_columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(hole, 0.0)
