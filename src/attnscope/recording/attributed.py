"""What a recording holds of attribution methods beside Grad-CAM: of some images, which are stated.

Grad-CAM comes from the forward that gives everything else, and is recorded of every image. Other
methods cost many passes each and are recorded of some images, evenly over the data set, so that
each class has about its share where images are in the order of their classes or at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAD_CAM = "grad_cam"
"""The method that is recorded of every image."""


@dataclass(frozen=True)
class Attributed:
    """One method, and where its maps lie."""

    method: str
    layer: str
    """Path of a module; empty for a method whose maps lie on the grid of the image."""

    def key(self, target: str) -> str:
        """Name of its array in a shard: float16, signed, ``(n, h, w)``."""
        return f"attribution/{self.method}/{self.layer}/{target}"


@dataclass(frozen=True)
class Attributions:
    """All of them in one recording."""

    methods: tuple[Attributed, ...] = ()
    images: int = 0
    """Of how many images there are maps, at most."""

    def rows(self, count: int) -> NDArray[np.int64]:
        """Which images have maps, of ``count``: ``(n,)``, sorted."""
        if not self.methods:
            return np.arange(0)
        return np.unique(
            np.linspace(0, count - 1, min(self.images, count)).round().astype(np.int64)
        )

    def to_dict(self) -> dict[str, Any]:
        """The same of JSON values."""
        return {
            "methods": [[found.method, found.layer] for found in self.methods],
            "images": self.images,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Attributions:
        """What `to_dict` made.

        Raises:
            TypeError, ValueError, KeyError: it is something else.
        """
        methods = [Attributed(method, layer) for method, layer in value["methods"]]
        for text in (text for found in methods for text in (found.method, found.layer)):
            if not isinstance(text, str):
                raise TypeError(f"{text!r:.40} names no attribution method or layer")
        images = value["images"]
        if not isinstance(images, int) or images < 1:
            raise ValueError(f"attributions of {images!r:.40} images")
        return cls(tuple(methods), images)
