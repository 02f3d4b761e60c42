"""Mean and standard deviation of the color channels. Imports torch when it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnscope.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per RGB channel of pixels in 0 to 1.

    Raises:
        InputError: a standard deviation is not above 0.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not min(self.std) > 0:
            raise InputError(f"--std {min(self.std):g} must be above 0")

    def apply(self, images: Tensor) -> Tensor:
        """uint8 ``(N, 3, H, W)`` -> normalized float32, of the same shape and channels-last."""
        import torch

        # One multiplication and one addition, channels-last: what the first convolution wants.
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        x = images.to(torch.float32, memory_format=torch.channels_last)
        return x.mul_(1 / (255 * std)).sub_(mean / std)

    def undo(self, images: Tensor) -> Tensor:
        """Normalized float ``(N, 3, H, W)`` -> uint8, rounded and clipped to 0..255."""
        import torch

        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
