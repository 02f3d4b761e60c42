"""Settings of data: what is refused, what is cropped, what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnscope.data.load import load_data
from attnscope.errors import InputError
from tests.data.making import RNG, load, refused, save


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("mnist", {}, "data source 'mnist' is not known; take one of digits, cifar10, cifar100"),
        ("", {}, "data source '' is not known"),
        ("folder:", {}, "data source 'folder:' is not known"),
        ("digits:x", {}, "data source 'digits:x' is not known"),
        ("digits", {"image_size": 7}, "image size 7 must lie between 8 and 1024"),
        ("digits", {"image_size": 1025}, "image size 1025 must lie"),
        ("digits", {"validation_share": 0.0}, "validation share 0.0 must lie between 0 and 1"),
        ("digits", {"validation_share": float("nan")}, "validation share nan"),
        ("digits", {"seed": -1}, "seed -1 must be 0 or more"),
        ("cifar10", {"image_size": 224}, "60000 images of 224×224 need 8.4 GiB of memory, more"),
        ("folder:/nowhere/at/all", {}, "folder /nowhere/at/all does not exist; check the path"),
    ],
)
def test_bad_arguments_are_one_line(source: str, options: dict[str, Any], said: str) -> None:
    refused(lambda: load_data(source, download=False, **options), said)


def test_images_to_crop_from() -> None:
    """Held-out images are the middles of larger ones; training images stay large."""
    data, large = load_data(image_size=24, resize=30), load_data(image_size=30)
    assert data.image_size == 24
    assert torch.equal(data.train.images, large.train.images)
    assert data.normalization == large.normalization
    for part in ("validation", "test"):
        middle = getattr(large, part).images[:, :, 3:27, 3:27]
        assert torch.equal(getattr(data, part).images, middle)
        assert getattr(data, part).paths == getattr(large, part).paths
    assert torch.equal(data.train.center_crop(24).images, data.train.images[:, :, 3:27, 3:27])
    for resize, size in ((20, 24), (40, None), (2000, 24)):
        with pytest.raises(InputError, match=f"resize {resize} must lie between the image size"):
            load_data(image_size=size, resize=resize)


def test_normalization_is_measured_on_the_training_part_alone(root: Path) -> None:
    for file in (root / "train").rglob("*.png"):
        save(file, RNG.integers(0, 200, (12, 12, 3), dtype=np.uint8))
    data = load(root)
    pixels = data.train.images.numpy() / 255
    np.testing.assert_allclose(data.normalization.mean, pixels.mean((0, 2, 3)), atol=6e-5)
    np.testing.assert_allclose(data.normalization.std, pixels.std((0, 2, 3)), atol=6e-5)


def test_a_set_of_one_color_has_a_deviation(root: Path) -> None:
    for file in root.rglob("*.png"):
        save(file, 77)
    data = load(root)
    assert min(data.normalization.std) > 0
    assert torch.equal(
        data.normalization.undo(data.normalization.apply(data.test.images)), data.test.images
    )
