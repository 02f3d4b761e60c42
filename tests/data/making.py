"""Image folders for the tests, and what several tests ask of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnscope.data.images import LabeledImages
from attnscope.data.load import Data, load_data
from attnscope.errors import InputError

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def refused(action: Callable[[], object], *said: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for text in said:
        assert text in message, message


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


def fill(root: Path, parts: tuple[str, ...] = ("train", "test"), count: int = 3) -> Path:
    for p, part in enumerate(parts):
        for c, name in enumerate(("ant", "bee")):
            for i in range(count):
                save(root / part / name / f"{i}.png", 100 * p + 50 * c + i)
    return root


def load(root: Path, **options: Any) -> Data:
    return load_data(f"folder:{root}", **options)


def values(part: LabeledImages) -> list[int]:
    assert (part.images.flatten(1) == part.images.flatten(1)[:, :1]).all()
    return part.images[:, 0, 0, 0].tolist()
