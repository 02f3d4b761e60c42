"""Normalization by the mean and standard deviation of each channel. Imports torch lazily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnscope.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, for pixel values from 0 to 1.

    If all channels have the same values, it applies to images of any number of channels.

    Raises:
        InputError: A standard deviation is not positive, or there are not as many means as
            standard deviations.
    """

    mean: tuple[float, ...]
    """Mean of each channel: red, green and blue, or as many as the images have."""
    std: tuple[float, ...]
    """Standard deviation of each channel."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # JSON contains lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.mean) != len(self.std) or not self.std:
            raise InputError(
                "AS229",
                f"the normalization has {len(self.mean)} means (--mean) and {len(self.std)} "
                "standard deviations (--std); give one of each per channel",
            )
        if not min(self.std) > 0:
            raise InputError(
                "AS223",
                f"the standard deviation for normalization (--std) is {min(self.std):g}; "
                "each value must be greater than 0",
            )

    def expect_unit_scale(self) -> None:
        """Refuse values that cannot be for pixel values from 0 to 1, such as a mean of 127.5.

        Old recordings may have such a normalization, so this is asked before images are captured,
        and not when a normalization is made.

        Raises:
            InputError: A mean is outside 0 to 1, or a standard deviation is greater than 1.
        """
        wrong = [f"mean {value:g}" for value in self.mean if not 0 <= value <= 1]
        wrong += [f"standard deviation {value:g}" for value in self.std if value > 1]
        if not wrong:
            return
        divided = (
            f"--{name} {' '.join(f'{value / 255:.4g}' for value in values)}"
            for name, values in (("mean", self.mean), ("std", self.std))
        )
        raise InputError(
            "AS235",
            f"the normalization has the {wrong[0]}, and pixel values are from 0 to 1, so that "
            "means are between 0 and 1 and standard deviations are at most 1; if the values are "
            f"for pixels from 0 to 255, divide them by 255: {' '.join(divided)}",
        )

    def of_channels(self, channels: int) -> Normalization:
        """Return the normalization of images with a number of channels.

        Raises:
            InputError: It has another number of channels, whose values differ.
        """
        if len(self.mean) == channels:
            return self
        if len({*self.mean}) == len({*self.std}) == 1:
            return Normalization(self.mean[:1] * channels, self.std[:1] * channels)
        raise InputError(
            "AS229",
            f"the normalization has {len(self.mean)} channels, and the images have {channels}; "
            f"give {channels} values for the mean and the standard deviation (--mean, --std)",
        )

    def apply(self, images: Tensor) -> Tensor:
        """Normalize images.

        Args:
            images: uint8, ``(N, C, H, W)``, values from 0 to 255.

        Returns:
            float32, ``(N, C, H, W)`` in channels-last memory format.

        Raises:
            InputError: The images have another number of channels.
        """
        import torch

        # One multiplication and one subtraction; convolutions are fastest in channels-last format.
        mean, std = self._tensors(images)
        x = images.to(torch.float32, memory_format=torch.channels_last)
        return x.mul_(1 / (255 * std)).sub_(mean / std)

    def undo(self, images: Tensor) -> Tensor:
        """Convert normalized images back to bytes.

        Args:
            images: float, ``(N, C, H, W)``, normalized; or sequences and volumes, ``(N, C, ...)``.

        Returns:
            uint8 of the same shape, rounded and clipped to 0 to 255.

        Raises:
            InputError: The images have another number of channels.
        """
        import torch

        return (self.restore(images) * 255).round().clamp(0, 255).to(torch.uint8)

    def restore(self, images: Tensor) -> Tensor:
        """Return the pixel values of normalized images, which are from 0 to 1 if it was applied.

        Args:
            images: As for `undo`.

        Returns:
            float32 of the same shape.

        Raises:
            InputError: The images have another number of channels.
        """
        mean, std = self._tensors(images)
        return images.float() * std + mean

    def _tensors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, with axes of length 1 for the positions."""
        import torch

        own = self.of_channels(images.shape[1])
        shape = (-1, *[1] * (images.ndim - 2))
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device).reshape(shape)
            for v in (own.mean, own.std)
        )
        return mean, std
