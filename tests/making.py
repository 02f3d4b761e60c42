"""What tests of several folders make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path, train: int = 12, test: int = 6, seed: int = 0) -> Path:
    """Two classes of 16×16 pictures that differ in brightness: ``root/train`` and ``root/test``."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name, level in (("dark", 60), ("light", 190)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(level, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root
