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

        mean, std = self._tensors(images)
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

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
