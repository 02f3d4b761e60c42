"""Which attribution methods besides Grad-CAM a recording holds, and for which images.

Grad-CAM comes from the same forward pass as everything else and is recorded for every image. Other
methods need many passes per image and are recorded for some images, which are spaced evenly over
the data set. Each class therefore has about its share of them, whether the images are sorted by
class or in random order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from attnscope.shapes import Array

GRAD_CAM = "grad_cam"
"""The method that is recorded for every image."""


@dataclass(frozen=True)
class Attributed:
    """A method with the layer that it explains."""

    method: str
    layer: str
    """Path of a module; empty for a method whose maps have the grid of the image."""

    def key(self, target: str) -> str:
        """Return the name of its array in a shard: float16, signed, ``(n, h, w)``."""
        return f"attribution/{self.method}/{self.layer}/{target}"


@dataclass(frozen=True)
class Attributions:
    """All attribution methods of a recording besides Grad-CAM."""

    methods: tuple[Attributed, ...] = ()
    images: int = 0
    """The largest number of images that have maps."""

    def rows(self, count: int) -> Int64[Array, " attributed"]:
        """Return the sorted rows of the images that have maps.

        Args:
            count: Number of images in the recording.
        """
        if not self.methods:
            return np.arange(0)
        return np.unique(
            np.linspace(0, count - 1, min(self.images, count)).round().astype(np.int64)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "methods": [[found.method, found.layer] for found in self.methods],
            "images": self.images,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Attributions:
        """Create an instance from the result of `to_dict`.

        Raises:
            TypeError, ValueError, KeyError: The value is something else.
        """
        methods = [Attributed(method, layer) for method, layer in value["methods"]]
        for text in (text for found in methods for text in (found.method, found.layer)):
            if not isinstance(text, str):
                raise TypeError(f"{text!r:.40} is not the name of an attribution method or layer")
        images = value["images"]
        if not isinstance(images, int) or images < 1:
            raise ValueError(f"the number of attributed images is {images!r:.40}")
        return cls(tuple(methods), images)
