"""The device, and products of matrices in full precision."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Deterministic products of matrices need it; it must be set before the first of them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

from tests.cuda import device_name


@pytest.fixture
def device() -> torch.device:
    return torch.device(device_name())


@pytest.fixture(autouse=True)
def no_tf32() -> Iterator[None]:
    """Compute in float32: TF32, the default of convolutions on a GPU, has a mantissa of 10 bits."""
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [each.fp32_precision for each in settings]
    for each in settings:
        each.fp32_precision = "ieee"
    yield
    for each, old in zip(settings, before, strict=True):
        each.fp32_precision = old


@pytest.fixture
def deterministic() -> Iterator[None]:
    """An operation whose result depends on the order of threads raises."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
