"""Normalization, applied and undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from attnscope.data.images import Normalization
from attnscope.data.known import DATA_SOURCES
from tests.making import refused


def every_value() -> Tensor:
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    return torch.cat([x, x.flip(2), x.transpose(2, 3)], 1).repeat(2, 1, 1, 1)


@pytest.mark.parametrize(
    "normalization",
    [
        *(source.normalization for source in DATA_SOURCES.values() if source.normalization),
        Normalization((0.0, 0.5, 1.0), (1 / 255, 0.5, 1.0)),
    ],
)
def test_normalization_is_undone_exactly(normalization: Normalization) -> None:
    images = every_value()
    x = normalization.apply(images)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    mean, std = (np.array(v)[:, None, None] for v in (normalization.mean, normalization.std))
    np.testing.assert_allclose(x, (images.numpy() / 255 - mean) / std, rtol=1e-4, atol=1e-4)
    assert torch.equal(normalization.undo(x), images)
    assert torch.equal(images, every_value()), "not changed in place"


def test_values_out_of_range_are_clipped() -> None:
    x = torch.tensor([-9.0, 9.0]).expand(1, 3, 1, 2)
    assert Normalization((0.5,) * 3, (0.5,) * 3).undo(x)[0, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("mean", "std", "named"),
    [
        ((127.5,) * 3, (127.5,) * 3, ("mean 127.5", "--mean 0.5 0.5 0.5 --std 0.5 0.5 0.5")),
        ((0.4, 0.5, 0.6), (0.2, 64.0, 0.2), ("deviation 64", "--std 0.0007843 0.251 ")),
        ((-0.1,), (1.0,), ("mean -0.1",)),
    ],
)
def test_values_for_other_pixels_than_0_to_1_are_refused(
    mean: tuple[float, ...], std: tuple[float, ...], named: tuple[str, ...]
) -> None:
    with refused("AS235", names=named):
        Normalization(mean, std).expect_unit_scale()


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, 1 / 255), (0.5, 0.5)])
def test_values_for_pixels_of_0_to_1_are_accepted(values: tuple[float, float]) -> None:
    Normalization(values[:1], values[1:]).expect_unit_scale()


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_standard_deviation_that_is_not_positive_is_refused(std: float) -> None:
    with refused("AS223", names=("--std", f"{std:g}")):
        Normalization((0.5, 0.5, 0.5), (0.5, std, 0.5))
