"""``attnscope inspect``"""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.commands.options import NameArgument
from attnscope.errors import InputError, first_line


@dataclass(frozen=True)
class Inspect:
    """Say which gates a network has, and what became of every other bounded activation."""

    target: NameArgument
    """A run folder, timm:NAME, torchvision:NAME, or package.module:callable of your own."""
    image_size: int | None = None
    """Pixels. Default: the network's own."""
    all_kinds: bool = False
    """Also gates of the features' own shape (full) and from parameters alone (static)."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> None:
        import json

        import torch

        from attnscope.kinds import KINDS
        from attnscope.networks.source import NetworkSource
        from attnscope.networks.summary import describe_gates

        target = NetworkSource(self.target, image_size=self.image_size).load()
        size = target.image_size
        if size < 8:
            raise InputError(f"image size is {size}; it must be 8 or more")
        noise = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
        kinds = tuple(KINDS) if self.all_kinds else None
        try:
            found = describe_gates(target.model, noise, "4 images of noise", kinds)
        except InputError:
            raise
        except Exception as error:  # whatever somebody's network raises
            raise InputError(
                f"{self.target} does not run on images of 3×{size}×{size} "
                f"({type(error).__name__}: {first_line(error)}); try another --image-size"
            ) from None
        print(json.dumps(found.to_dict(), indent=2) if self.json else found)
