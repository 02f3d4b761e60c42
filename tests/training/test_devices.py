"""Devices and precisions by name."""

from __future__ import annotations

import pytest
import torch

from attnscope.training.devices import choose_device, choose_precision
from tests.making import refused
from tests.training.toys import CPU


def test_devices_and_precisions() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_precision("bf16", CPU)
    assert not choose_precision("fp32", CPU)
    assert choose_precision("auto", CPU) in (True, False)


@pytest.mark.parametrize(
    ("name", "code"), [("gpu", "AS130"), ("meta", "AS130"), ("cuda:99", "AS131")]
)
def test_an_unknown_or_missing_device_is_refused(name: str, code: str) -> None:
    with refused(code, names=(f"'{name}'",)):
        choose_device(name)


def test_an_unknown_precision_is_refused() -> None:
    with refused("AS132", names=("'fp8'", "auto, fp32, bf16")):
        choose_precision("fp8", CPU)
