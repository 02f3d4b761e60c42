"""Image folders for the tests, and helpers to load and compare data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attnscope.data.images import LabeledImages
from attnscope.data.load import Data, load_data

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def same(a: LabeledImages, b: LabeledImages) -> bool:
    return (
        a.paths == b.paths and torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    )


def save(file: Path, pixels: Array | int = 0, mode: str | None = None, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, int):
        pixels = np.full((12, 12, 3), pixels, np.uint8)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, **options)
    return file


def write_folder(root: Path, splits: tuple[str, ...] = ("train", "test"), count: int = 3) -> Path:
    """Two classes of one-color images in each split; every image has another color."""
    for p, split in enumerate(splits):
        for c, name in enumerate(("ant", "bee")):
            for i in range(count):
                save(root / split / name / f"{i}.png", 100 * p + 50 * c + i)
    return root


def load(root: Path, **options: Any) -> Data:
    return load_data(f"folder:{root}", **options)


def colors(split: LabeledImages) -> list[int]:
    """The gray value of each image, all of which have one color only."""
    assert (split.images.flatten(1) == split.images.flatten(1)[:, :1]).all()
    return split.images[:, 0, 0, 0].tolist()
