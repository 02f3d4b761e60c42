"""The settings of augmentation: what is done to each training image. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.settings import check_types, require


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, each with its own draw."""

    crop_padding: int = 0
    """Border within which the crop moves, for images of 32 pixels; scaled with the size."""
    resized_crop: bool = False
    """Instead: a crop of 8 to 100 % of the area and 3:4 to 4:3 in shape, resized."""
    flip: bool = False
    """Mirror half of the images; never done for digits."""
    brightness: float = 0.0
    """Multiplied by a factor of 1 ± this; so are contrast and saturation. In random order."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Turned by ± this share of the color circle; 0 to 0.5."""
    rotation: float = 0.0
    """Turned by ± these degrees; the corners get the mean color."""
    cutout: int = 0
    """Side of the erased square for images of 32 pixels; scaled with the size; 0 is none."""

    def __post_init__(self) -> None:
        check_types(self)
        # Reflection needs a border that is smaller than the image.
        require(0 <= self.crop_padding < 32, "crop_padding", self.crop_padding, "0 to 31")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(value >= 0, name, value, "0 or more")
        require(0 <= self.hue <= 0.5, "hue", self.hue, "0 to 0.5")
        require(0 <= self.rotation <= 180, "rotation", self.rotation, "0 to 180 degrees")
        require(self.cutout >= 0, "cutout", self.cutout, "0 or more")
