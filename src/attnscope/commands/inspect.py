"""``attnscope inspect``"""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.commands.options import TargetArgument, expect_image_size
from attnscope.errors import InputError, first_line


@dataclass(frozen=True)
class Inspect:
    """List the gates of a network, and why other activations are not gates."""

    target: TargetArgument
    """Network: a run folder, timm:NAME, torchvision:NAME, folded:FOLDER or
    package.module:callable."""
    image_size: int | None = None
    """Height and width of the images in pixels. Default: that of the network."""
    channels: int | None = None
    """Channels of the images. Default: those of a run, else 3."""
    all_kinds: bool = False
    """List the gates of all kinds: also activations such as SiLU written by hand (activation),
    gates that do not depend on the image (static), and multipliers without bounds (unbounded)."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> None:
        import json

        import torch

        from attnscope.kinds import KINDS
        from attnscope.networks.channels import channels_of, expect_channels
        from attnscope.networks.known import NetworkSource
        from attnscope.networks.number_types import number_type
        from attnscope.networks.summary import describe_gates

        source = NetworkSource(self.target, image_size=self.image_size, channels=self.channels)
        target = source.load()
        size = target.image_size
        expect_image_size(size)
        channels = channels_of(target.model) if self.channels is None else self.channels
        if channels < 1:
            raise InputError("AS960", f"channels is {channels}; it must be at least 1")
        shape = (4, channels, size, size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        noise = noise.to(number_type(target.model))
        kinds = tuple(KINDS) if self.all_kinds else None
        try:
            found = describe_gates(target.model, noise, "4 images of noise", kinds)
        except InputError:
            raise
        except Exception as error:  # a network can raise anything
            expect_channels(target.model, noise)
            raise InputError(
                "AS961",
                f"{self.target} does not run on images of {channels}×{size}×{size} "
                f"({type(error).__name__}: {first_line(error)}); try another --image-size",
            ) from None
        print(json.dumps(found.to_dict(), indent=2) if self.json else found)
