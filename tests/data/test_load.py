"""Settings of data: refusals, crops and the computed normalization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnscope.data import memory
from attnscope.data.load import load_data
from tests.data.making import RNG, load, save
from tests.making import refused


@pytest.mark.parametrize(
    ("source", "options", "code", "named"),
    [
        ("mnist", {}, "AS201", ("'mnist'", "digits, cifar10, cifar100, folder:PATH")),
        ("", {}, "AS201", ("''",)),
        ("folder:", {}, "AS201", ("'folder:'",)),
        ("digits:x", {}, "AS201", ("'digits:x'",)),
        ("digits", {"image_size": 7}, "AS221", ("7", "8", "1024")),
        ("digits", {"image_size": 1025}, "AS221", ("1025",)),
        ("digits", {"validation_share": 0.0}, "AS219", ("0.0",)),
        ("digits", {"validation_share": float("nan")}, "AS219", ("nan",)),
        ("digits", {"seed": -1}, "AS220", ("-1",)),
        ("folder:/nowhere/at/all", {}, "AS204", ("/nowhere/at/all",)),
    ],
)
def test_bad_arguments_are_refused(
    source: str, options: dict[str, Any], code: str, named: tuple[str, ...]
) -> None:
    with refused(code, names=named):
        load_data(source, download=False, **options)


def test_images_that_do_not_fit_into_half_of_the_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 16 * 2**30)
    with refused("AS217", names=("60000", "224×224", "8.4 GiB", "8.0 GiB", "--image-size")):
        load_data("cifar10", download=False, image_size=224)


def test_held_out_images_are_center_cropped_and_training_images_are_not() -> None:
    data, large = load_data(image_size=24, resize=30), load_data(image_size=30)
    assert data.image_size == 24
    assert torch.equal(data.train.images, large.train.images)
    assert data.normalization == large.normalization
    for split in ("validation", "test"):
        middle = getattr(large, split).images[:, :, 3:27, 3:27]
        assert torch.equal(getattr(data, split).images, middle)
        assert getattr(data, split).paths == getattr(large, split).paths
    assert torch.equal(data.train.center_crop(24).images, data.train.images[:, :, 3:27, 3:27])
    for resize, size in ((20, 24), (40, None), (2000, 24)):
        with refused("AS222", names=(resize,)):
            load_data(image_size=size, resize=resize)


def test_normalization_is_computed_from_the_training_split_only(root: Path) -> None:
    for file in (root / "train").rglob("*.png"):
        save(file, RNG.integers(0, 200, (12, 12, 3), dtype=np.uint8))
    data = load(root)
    pixels = data.train.images.numpy() / 255
    np.testing.assert_allclose(data.normalization.mean, pixels.mean((0, 2, 3)), atol=6e-5)
    np.testing.assert_allclose(data.normalization.std, pixels.std((0, 2, 3)), atol=6e-5)


def test_images_of_one_color_have_a_positive_standard_deviation(root: Path) -> None:
    for file in root.rglob("*.png"):
        save(file, 77)
    data = load(root)
    assert min(data.normalization.std) > 0
    assert torch.equal(
        data.normalization.undo(data.normalization.apply(data.test.images)), data.test.images
    )
