"""Augment whole batches on the device, with independent random numbers for each image."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.augmentation import Augmentation
from attnscope.data.images import Normalization

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as in torchvision
# The ranges of a resized crop, as in Szegedy et al. 2015 and torchvision's RandomResizedCrop.
_AREA_RANGE = (0.08, 1.0)  # share of the image's area
_ASPECT_RANGE = (3 / 4, 4 / 3)  # width / height
_CROP_ATTEMPTS = 10  # if none of these crops fits into the image, a center crop is taken


class _RandomNumbers:
    """Random numbers for some images of a training step.

    The numbers are drawn on the CPU for all images of the step, and the rows that are needed are
    selected afterwards. An image is therefore augmented in the same way whether the step runs as
    one batch, as several accumulated batches or on several devices.
    """

    def __init__(
        self, generator: torch.Generator, device: torch.device, total: int, rows: slice
    ) -> None:
        self._generator, self._device, self._total, self._rows = generator, device, total, rows

    def integers(self, high: int) -> Tensor:
        """Return integers from 0 to ``high - 1``, shape ``(N, 1)``."""
        drawn = torch.randint(high, (self._total, 1), generator=self._generator)
        return drawn[self._rows].to(self._device)

    def uniform(self, low: float, high: float, count: int = 1) -> Tensor:
        """Return floats between ``low`` and ``high``, shape ``(N, count)``."""
        drawn = torch.rand(self._total, count, generator=self._generator)
        return (low + (high - low) * drawn[self._rows]).to(self._device)


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
    random = _RandomNumbers(generator, images.device, len(images) if total is None else total, rows)
    a, unit = augmentation, size / 32
    if a.brightness or a.contrast or a.saturation or a.hue:
        images = jitter_colors(images.float() / 255, random, a) * 255
    x = normalization.apply(images)
    flip = a.flip and may_flip
    if a.resized_crop:
        x = _resized_crop(x, random, size, flip=flip)
    elif x.shape[-1] != size:
        margin = (x.shape[-1] - size) // 2
        x = x[:, :, margin : margin + size, margin : margin + size]
    if not a.resized_crop:
        x = _crop_and_flip(x, random, round(a.crop_padding * unit), flip=flip)
    if a.rotation:
        x = _rotate(x, random.uniform(-a.rotation, a.rotation)[:, 0])
    if a.cutout:
        x = _cut_out(x, random, round(a.cutout * unit))
    return x.contiguous(memory_format=torch.channels_last)


def jitter_colors(images: Tensor, random: _RandomNumbers, augmentation: Augmentation) -> Tensor:
    """Change brightness, contrast, saturation and hue in a random order, image by image.

    The changes are those of torchvision's ``ColorJitter``. The four factors and the order in which
    they are applied are drawn separately for each image. Saturation and hue do not change gray
    images.

    Args:
        images: float, ``(N, 3, H, W)``, or ``(N, 1, H, W)`` for gray images, values from 0 to 1.
        random: The random numbers of these images.
        augmentation: The ranges of the four factors.

    Returns:
        float, of the same shape, values from 0 to 1.
    """
    a = augmentation
    changes: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = [
        (blend, random.uniform(max(0.0, 1 - width), 1 + width)[:, 0])
        for width, blend in (
            (a.brightness, _blend_black),
            (a.contrast, _blend_mean),
            (a.saturation, _blend_gray),
        )
    ]
    changes.append((shift_hue, random.uniform(-a.hue, a.hue)[:, 0]))
    order = random.uniform(0, 1, 4).argsort(1)
    if images.shape[1] == 1:
        changes = changes[:2]
    images = images.clone()
    for position in range(4):
        for number, (change, factor) in enumerate(changes):
            chosen = torch.nonzero(order[:, position] == number)[:, 0]
            if len(chosen):
                images[chosen] = change(images[chosen], factor[chosen, None, None, None])
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
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    k = (offset + shifted * 6) % 6
    return high - (high - low) * torch.minimum(k, 4 - k).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(_GRAY_WEIGHTS, device=images.device)[:, None, None]
    return (images * weights).sum(1, keepdim=True)


def _blend_black(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 1)


def _blend_mean(images: Tensor, factor: Tensor) -> Tensor:
    mean = _gray(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factor).clamp(0, 1)


def _blend_gray(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(images).expand_as(images), images, factor).clamp(0, 1)


def _resized_crop(images: Tensor, random: _RandomNumbers, size: int, *, flip: bool) -> Tensor:
    """Crop each image at random and resize the crop, as torchvision's ``RandomResizedCrop``."""
    n, _, height, width = images.shape
    area = random.uniform(*_AREA_RANGE, _CROP_ATTEMPTS) * height * width
    aspect = random.uniform(
        math.log(_ASPECT_RANGE[0]), math.log(_ASPECT_RANGE[1]), _CROP_ATTEMPTS
    ).exp()
    wide, high = (area * aspect).sqrt(), (area / aspect).sqrt()
    fits = (wide <= width) & (high <= height)
    first = fits.float().argmax(1, keepdim=True)  # the first crop that fits
    none_fits = ~fits.any(1)
    side = float(min(width, height))
    wide = torch.where(none_fits, side, wide.gather(1, first)[:, 0])
    high = torch.where(none_fits, side, high.gather(1, first)[:, 0])
    left = random.uniform(0, 1)[:, 0] * (width - wide)
    top = random.uniform(0, 1)[:, 0] * (height - high)
    # The coordinates of affine_grid run from -1 to 1 across the image.
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2] = wide / width, (2 * left + wide) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = high / height, (2 * top + high) / height - 1
    if flip:
        theta[:, 0, 0] *= 1 - 2 * random.integers(2)[:, 0]
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


def _crop_and_flip(images: Tensor, random: _RandomNumbers, padding: int, *, flip: bool) -> Tensor:
    """Pad by reflection, crop at random to the original size, and mirror half of the images."""
    if not (padding or flip):
        return images
    n, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(n, -1)
    columns = torch.arange(width, device=device).expand(n, -1)
    if padding:
        images = F.pad(images, (padding,) * 4, mode="reflect")
        rows = rows + random.integers(2 * padding + 1)
        columns = columns + random.integers(2 * padding + 1)
    if flip:
        columns = torch.where(random.integers(2).bool(), columns.flip(1), columns)
    sample = torch.arange(n, device=device)[:, None, None]
    # Indexing the channels-last view copies whole pixels and keeps the memory format.
    pixels = images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def _cut_out(images: Tensor, random: _RandomNumbers, side: int) -> Tensor:
    """Set a square around a random pixel to 0, the mean color: Cutout, DeVries and Taylor 2017."""
    height, width = images.shape[2:]
    top, left = (random.integers(length) - side // 2 for length in (height, width))
    y, x = (torch.arange(length, device=images.device) for length in (height, width))
    in_rows, in_columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(hole, 0.0)
