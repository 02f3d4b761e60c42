"""Normalization by the mean and standard deviation of the color channels. Imports torch lazily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnscope.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each RGB channel, for pixel values from 0 to 1.

    Raises:
        InputError: A standard deviation is not positive.
    """

    mean: tuple[float, float, float]
    """Mean of red, green and blue."""
    std: tuple[float, float, float]
    """Standard deviation of red, green and blue."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # JSON contains lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not min(self.std) > 0:
            raise InputError(
                "AS223",
                f"the standard deviation for normalization (--std) is {min(self.std):g}; "
                "each of the three values must be greater than 0",
            )

    def apply(self, images: Tensor) -> Tensor:
        """Normalize images.

        Args:
            images: uint8, ``(N, 3, H, W)``, values from 0 to 255.

        Returns:
            float32, ``(N, 3, H, W)`` in channels-last memory format.
        """
        import torch

        # One multiplication and one subtraction; convolutions are fastest in channels-last format.
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        x = images.to(torch.float32, memory_format=torch.channels_last)
        return x.mul_(1 / (255 * std)).sub_(mean / std)

    def undo(self, images: Tensor) -> Tensor:
        """Convert normalized images back to bytes.

        Args:
            images: float, ``(N, 3, H, W)``, normalized.

        Returns:
            uint8, ``(N, 3, H, W)``, rounded and clipped to 0 to 255.
        """
        import torch

        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
