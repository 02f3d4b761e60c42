"""Augment whole batches on the device, each sample with its own draw."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.augmentation import Augmentation
from attnscope.data.images import Normalization

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in torchvision
_AREA = (0.08, 1.0)  # of a resized crop, and its width over its height; Szegedy et al. 2015
_SHAPE = (3 / 4, 4 / 3)
_ATTEMPTS = 10  # draws of a resized crop until one lies within the image


class _Draws:
    """Random numbers for some samples of a step, which do not depend on how the step is split.

    Every number is drawn for all the samples of the step, and on the CPU, so that one device that
    accumulates two halves and two devices with a half each see the same images.
    """

    def __init__(
        self, generator: torch.Generator, device: torch.device, total: int, rows: slice
    ) -> None:
        self._generator, self._device, self._total, self._rows = generator, device, total, rows

    def integers(self, high: int) -> Tensor:
        """0 to ``high - 1``, ``(N, 1)``."""
        drawn = torch.randint(high, (self._total, 1), generator=self._generator)
        return drawn[self._rows].to(self._device)

    def uniform(self, low: float, high: float, count: int = 1) -> Tensor:
        """``(N, count)``."""
        drawn = torch.rand(self._total, count, generator=self._generator)
        return (low + (high - low) * drawn[self._rows]).to(self._device)


def augment(
    images: Tensor,
    normalization: Normalization,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    size: int,
    may_flip: bool = True,
    total: int | None = None,
    rows: slice = slice(None),
) -> Tensor:
    """Images as a network in training gets them.

    Args:
        images: uint8, ``(N, 3, H, W)``, of ``size`` pixels or (for resized crops) larger.
        normalization: is applied after the colors are changed.
        augmentation: what is done; its pixels are those of an image of 32, and scaled.
        generator: on the CPU.
        size: side of what is returned, in pixels.
        may_flip: whether a mirrored image keeps its class.
        total: samples of the whole step, of which ``images`` are the ``rows``.
        rows: which; together they get what one call with all images would give them.

    Returns:
        float32 ``(N, 3, size, size)``, channels-last.
    """
    draws = _Draws(generator, images.device, len(images) if total is None else total, rows)
    a, unit = augmentation, size / 32
    if a.brightness or a.contrast or a.saturation or a.hue:
        images = jitter_colors(images.float() / 255, draws, a) * 255
    x = normalization.apply(images)
    flip = a.flip and may_flip
    if a.resized_crop:
        x = _resized_crop(x, draws, size, flip=flip)
    elif x.shape[-1] != size:
        margin = (x.shape[-1] - size) // 2
        x = x[:, :, margin : margin + size, margin : margin + size]
    if not a.resized_crop:
        x = _crop_and_flip(x, draws, round(a.crop_padding * unit), flip=flip)
    if a.rotation:
        x = _rotate(x, draws.uniform(-a.rotation, a.rotation)[:, 0])
    if a.cutout:
        x = _erase(x, draws, round(a.cutout * unit))
    return x.contiguous(memory_format=torch.channels_last)


def jitter_colors(images: Tensor, draws: _Draws, augmentation: Augmentation) -> Tensor:
    """Brightness, contrast, saturation and hue of images ``(N, 3, H, W)`` in 0 to 1.

    As torchvision's ``ColorJitter``: four factors and their order, drawn for each image.
    """
    a = augmentation
    changes: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = [
        (blend, draws.uniform(max(0.0, 1 - width), 1 + width)[:, 0])
        for width, blend in (
            (a.brightness, _blend_black),
            (a.contrast, _blend_mean),
            (a.saturation, _blend_gray),
        )
    ]
    changes.append((turn_hue, draws.uniform(-a.hue, a.hue)[:, 0]))
    order = draws.uniform(0, 1, 4).argsort(1)
    images = images.clone()
    for position in range(4):
        for number, (change, factor) in enumerate(changes):
            chosen = torch.nonzero(order[:, position] == number)[:, 0]
            if len(chosen):
                images[chosen] = change(images[chosen], factor[chosen, None, None, None])
    return images


def turn_hue(images: Tensor, by: Tensor) -> Tensor:
    """Images ``(N, 3, H, W)`` in 0 to 1 with the hue turned by shares of the color circle."""
    high, _ = images.max(1, keepdim=True)
    low, _ = images.min(1, keepdim=True)
    chroma = (high - low).clamp_min(1e-12)
    red, green, blue = images.chunk(3, 1)
    hue = torch.where(
        high == red,
        (green - blue) / chroma,
        torch.where(high == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma),
    )
    turned = hue / 6 + by
    # HSV to RGB in one line for all sectors: Wikipedia, "HSL and HSV", alternative formula.
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    k = (offset + turned * 6) % 6
    return high - (high - low) * torch.minimum(k, 4 - k).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, device=images.device)[:, None, None]
    return (images * weights).sum(1, keepdim=True)


def _blend_black(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 1)


def _blend_mean(images: Tensor, factor: Tensor) -> Tensor:
    mean = _gray(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factor).clamp(0, 1)


def _blend_gray(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(images).expand_as(images), images, factor).clamp(0, 1)


def _resized_crop(images: Tensor, draws: _Draws, size: int, *, flip: bool) -> Tensor:
    """A part of each image, of random area, shape and place, resized; as ``RandomResizedCrop``."""
    n, _, height, width = images.shape
    area = draws.uniform(*_AREA, _ATTEMPTS) * height * width
    shape = draws.uniform(math.log(_SHAPE[0]), math.log(_SHAPE[1]), _ATTEMPTS).exp()
    wide, high = (area * shape).sqrt(), (area / shape).sqrt()
    fits = (wide <= width) & (high <= height)
    first = fits.float().argmax(1, keepdim=True)  # the first attempt that lies within
    whole = ~fits.any(1)
    side = float(min(width, height))
    wide = torch.where(whole, side, wide.gather(1, first)[:, 0])
    high = torch.where(whole, side, high.gather(1, first)[:, 0])
    left = draws.uniform(0, 1)[:, 0] * (width - wide)
    top = draws.uniform(0, 1)[:, 0] * (height - high)
    # affine_grid's coordinates go from -1 to 1 over the image.
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2] = wide / width, (2 * left + wide) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = high / height, (2 * top + high) / height - 1
    if flip:
        theta[:, 0, 0] *= 1 - 2 * draws.integers(2)[:, 0]
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turned counter-clockwise about the center; what comes from outside is 0, the mean color."""
    angle = torch.deg2rad(degrees)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin(), angle.sin()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _crop_and_flip(images: Tensor, draws: _Draws, padding: int, *, flip: bool) -> Tensor:
    """A crop of the same size that moves within a reflected border; half are mirrored."""
    if not (padding or flip):
        return images
    n, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(n, -1)
    columns = torch.arange(width, device=device).expand(n, -1)
    if padding:
        images = F.pad(images, (padding,) * 4, mode="reflect")
        rows = rows + draws.integers(2 * padding + 1)
        columns = columns + draws.integers(2 * padding + 1)
    if flip:
        columns = torch.where(draws.integers(2).bool(), columns.flip(1), columns)
    sample = torch.arange(n, device=device)[:, None, None]
    # Indexing pixels of the channels-last view copies whole pixels and keeps that layout.
    pixels = images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def _erase(images: Tensor, draws: _Draws, side: int) -> Tensor:
    """Cutout, DeVries and Taylor 2017: a square about a random pixel becomes 0, the mean color."""
    height, width = images.shape[2:]
    top, left = (draws.integers(length) - side // 2 for length in (height, width))
    y, x = (torch.arange(length, device=images.device) for length in (height, width))
    in_rows, in_columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(hole, 0.0)
