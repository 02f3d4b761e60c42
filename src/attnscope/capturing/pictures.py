"""Pictures of images that have no red, green and blue: gray images, bands, sequences, volumes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.normalization import Normalization

IN_UNIT_RANGE = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The normalization of a data set of a user that states none."""
_OVERSHOOT = 0.1  # beyond 0 to 1, as interpolation of images leaves it
_CLIPPED_SHARE = 0.1  # of the pixels of a sample
_CURVE_HEIGHT = 64  # pixels
_CURVE_WIDTH = 128  # pixels at most; longer sequences are drawn as the range of each column


def to_bytes(images: Tensor, normalization: Normalization) -> Tensor:
    """Convert inputs of a network to bytes.

    A sequence without a stated normalization can have any values. If some are outside 0 to 1, each
    channel of it is scaled from its lowest value (0) to its highest (255).

    Args:
        images: Float, ``(n, C, H, W)``, ``(n, C, D, H, W)`` or ``(n, C, L)``.
        normalization: What was applied to them.

    Returns:
        uint8 of the same shape.
    """
    if normalization is IN_UNIT_RANGE and images.ndim == 3:
        x = images.float()
        inside = ((x >= 0) & (x <= 1)).flatten(1).all(1)[:, None, None]
        low, high = x.amin(2, keepdim=True), x.amax(2, keepdim=True)
        scaled = (x - low) / torch.where(high > low, high - low, 1)
        images = torch.where(inside, x, scaled)
    return normalization.undo(images)


def as_rgb(values: Tensor) -> Tensor:
    """Return pictures of images of any shape.

    Gray images have three equal channels. Of more than three channels the first three are red,
    green and blue; of two, the first is shown in gray. Of a volume the middle slice is shown. A
    sequence is drawn as curves from 0 (bottom) to 255 (top), the first three channels in red, green
    and blue on black.

    Args:
        values: uint8, ``(n, C, H, W)``, ``(n, C, D, H, W)`` or ``(n, C, L)``.

    Returns:
        uint8, ``(n, 3, h, w)``.
    """
    if values.ndim == 3:
        return _curves(_three(values))
    if values.ndim == 5:
        values = values[:, :, values.shape[2] // 2]
    return _three(values)


def describe_picture(shape: tuple[int, ...], normalization: Normalization) -> str | None:
    """Return a note on what the pictures of an image of this shape show; None for RGB images.

    Args:
        shape: Shape of one image, without the axis of images.
        normalization: As for `to_bytes`.
    """
    channels, *sizes = shape
    bands = {1: "", 2: ", of the first of 2 channels", 3: ""}.get(
        channels, f", of the first three of {channels} channels"
    )
    if len(sizes) == 1:
        scale = (
            ", from its lowest to its highest value if some are outside 0 to 1"
            if normalization is IN_UNIT_RANGE
            else ""
        )
        return f"pictures show each sequence as a curve{bands}{scale}"
    if len(sizes) == 3:
        return f"pictures show slice {sizes[0] // 2 + 1} of {sizes[0]} of each volume{bands}"
    return f"pictures show a part of each image{bands}" if bands else None


def describe_clipping(images: Tensor, normalization: Normalization) -> str | None:
    """Return a note if pictures are clipped because the stated normalization is of other values.

    Args:
        images: Inputs of a network, float, ``(n, C, ...)``.
        normalization: What was stated that was applied to them.
    """
    if normalization is IN_UNIT_RANGE:
        return None  # values outside 0 to 1 are refused, or scaled
    pixels = normalization.restore(images)
    outside = ((pixels < -_OVERSHOOT) | (pixels > 1 + _OVERSHOOT)).float().mean().item()
    if outside < _CLIPPED_SHARE:
        return None
    return (
        f"without the stated normalization, pixels have values from {pixels.min():.3g} to "
        f"{pixels.max():.3g}, and {outside:.0%} of them are clipped to 0 to 1 in the pictures; "
        "means and standard deviations are for pixel values from 0 to 1, such as 0.5 and not 127.5"
    )


def _three(values: Tensor) -> Tensor:
    return values[:, :3] if values.shape[1] >= 3 else values[:, :1].repeat_interleave(3, dim=1)


def _curves(values: Tensor) -> Tensor:
    """Draw sequences ``(n, 3, L)``, one color for each channel, ``(n, 3, h, w)``."""
    # Each column shows the range from its value to the next one, so that the curve has no gaps.
    low = torch.minimum(values, values.roll(-1, 2)).float()
    high = torch.maximum(values, values.roll(-1, 2)).float()
    low[..., -1] = high[..., -1] = values[..., -1].float()
    if values.shape[2] > _CURVE_WIDTH:
        high = F.adaptive_max_pool1d(high, _CURVE_WIDTH)
        low = -F.adaptive_max_pool1d(-low, _CURVE_WIDTH)
    rows = torch.arange(_CURVE_HEIGHT - 1, -1, -1)[:, None]  # the first row is at the top
    scale = (_CURVE_HEIGHT - 1) / 255
    inside = (rows >= (low * scale).round()[:, :, None]) & (
        rows <= (high * scale).round()[:, :, None]
    )
    return inside.to(torch.uint8) * 255
