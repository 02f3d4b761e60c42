"""The settings of a capture, checked in one place. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnscope.errors import InputError
from attnscope.kinds import KINDS

if TYPE_CHECKING:
    from attnscope.networks.outputs import Choice

PRECISIONS = ("fp32", "bf16")
SHARD_IMAGES = 2048
"""Images per shard. A shard of a ResNet18-CBAM at 32×32 pixels has about 45 MB."""


@dataclass(frozen=True)
class CaptureSettings:
    """The settings of `attnscope.capture`.

    Raises:
        InputError: A value is out of range, or two values contradict each other.
    """

    grad_cam_layers: Sequence[str] | None = None
    """Paths of the modules to explain. None: the one with the last map larger than 1×1. Empty: no
    Grad-CAM."""
    batch_size: int = 128
    precision: str = "fp32"
    """``fp32``, or ``bf16`` for autocast. Gates are stored in float32 either way."""
    moments: bool = False
    """Record sums over the images of each class instead of single images."""
    pooled_inputs: bool = False
    """Also record the pooled input of each gate."""
    attributions: Sequence[str] = ()
    """Names of attribution methods besides Grad-CAM."""
    attribution_images: int = 200
    """Number of images, evenly spaced over the data set, for which these are recorded."""
    shard_images: int = SHARD_IMAGES
    """Images per shard, rounded up to whole batches."""
    kinds: Sequence[str] | None = None
    """Names of the kinds of gates to record. None: those that `find_gates` looks for."""
    compile: bool = False
    """Compile the network. It is not done if it cannot be done, which a line of the log says."""
    output: Choice | None = None
    """Which output of the network has the class scores: a key, an index, ``module:function``, a
    function, or one of `attnscope.networks.output_forms.OUTPUT_FORMS`. None: it is told by looking
    at the output for a few images."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                "AS670", f"the precision is '{self.precision}'; it must be fp32 or bf16"
            )
        for kind in self.kinds or ():
            if not KINDS.find(kind).per_image:
                raise InputError(
                    "AS678",
                    f"gates of kind {kind} are the same for every image and cannot be recorded; "
                    "leave the kind out, and read such a gate from the parameters of the network",
                )
        for name in ("batch_size", "shard_images", "attribution_images"):
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise InputError("AS671", f"{name} is {value}; it must be at least 1")
        if self.moments and self.pooled_inputs:
            raise InputError(
                "AS672", "moments cannot hold pooled inputs; choose moments or pooled_inputs"
            )
        if self.moments and self.attributions:
            raise InputError(
                "AS673",
                "moments cannot hold attributions of single images; choose moments or attributions",
            )

    @property
    def rows_a_shard(self) -> int:
        """Images per shard in whole batches, so that batches do not depend on shard boundaries."""
        return -(-self.shard_images // self.batch_size) * self.batch_size
