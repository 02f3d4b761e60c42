"""Settings of the augmentation of training images. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.settings import check_types, require


@dataclass(frozen=True)
class Augmentation:
    """How each training image is changed, with random numbers of its own.

    Lengths in pixels refer to images of 32×32 pixels; they are scaled to the actual image size.

    Raises:
        InputError: A value has the wrong type or is out of range.
    """

    crop_padding: int = 0
    """Pixels of reflected padding before a random crop to the original size; 0 to 31."""
    resized_crop: bool = False
    """Take a random crop of 8 to 100% of the area with an aspect ratio of 3:4 to 4:3 and resize it.
    Replaces the padded crop."""
    flip: bool = False
    """Mirror half of the images from left to right; never applied to digits."""
    brightness: float = 0.0
    """Multiply the brightness by a random factor between 1 − this and 1 + this. Contrast and
    saturation work alike. The color changes are applied in a random order."""
    contrast: float = 0.0
    """Multiply the contrast by a random factor between 1 − this and 1 + this."""
    saturation: float = 0.0
    """Multiply the saturation by a random factor between 1 − this and 1 + this."""
    hue: float = 0.0
    """Shift the hue by up to this fraction of the color circle in either direction; 0 to 0.5."""
    rotation: float = 0.0
    """Rotate by up to this many degrees in either direction; corners get the mean color."""
    cutout: int = 0
    """Side of the square that is set to the mean color, in pixels; 0 means no cutout."""

    def __post_init__(self) -> None:
        check_types(self)
        # Reflection padding must be smaller than the image.
        require(0 <= self.crop_padding < 32, "crop_padding", self.crop_padding, "0 to 31")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(value >= 0, name, value, "0 or more")
        require(0 <= self.hue <= 0.5, "hue", self.hue, "0 to 0.5")
        require(0 <= self.rotation <= 180, "rotation", self.rotation, "0 to 180 degrees")
        require(self.cutout >= 0, "cutout", self.cutout, "0 or more")
