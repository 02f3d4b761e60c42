"""What a capture records and how, checked in one place. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.errors import InputError

PRECISIONS = ("fp32", "bf16")
SHARD_IMAGES = 2048
"""Images a shard; one of a ResNet18-CBAM at 32×32 takes about 45 MB."""


@dataclass(frozen=True)
class CaptureSettings:
    """The settings of `attnscope.capture`.

    Raises:
        InputError: a value is out of range, or two contradict each other.
    """

    grad_cam_layers: Sequence[str] | None = None
    """Paths of modules; None: the one with the last map larger than 1×1. Empty: no Grad-CAM."""
    batch_size: int = 128
    precision: str = "fp32"
    """``fp32``, or ``bf16`` for autocast; what is stored is float32 either way."""
    moments: bool = False
    """Record sums over the images of each class, and no single image."""
    pooled_inputs: bool = False
    """Record also what each gate multiplies, pooled."""
    attributions: Sequence[str] = ()
    """Attribution methods beside Grad-CAM, by name."""
    attribution_images: int = 200
    """Of how many images these are recorded, evenly over the data set."""
    shard_images: int = SHARD_IMAGES
    """Images a shard, rounded up to whole batches."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision '{self.precision}' is not known; take fp32 or bf16")
        for name in ("batch_size", "shard_images", "attribution_images"):
            if getattr(self, name) < 1:
                said = name.replace("_", " ")
                raise InputError(f"{said} is {getattr(self, name)}; it must be 1 or more")
        if self.moments and self.pooled_inputs:
            raise InputError("moments hold no pooled inputs of gates; leave one of the two out")
        if self.moments and self.attributions:
            raise InputError("moments hold no attributions of single images; leave one of them out")

    @property
    def rows_a_shard(self) -> int:
        """Whole batches, so that what a batch holds does not depend on where a shard ends."""
        return -(-self.shard_images // self.batch_size) * self.batch_size
