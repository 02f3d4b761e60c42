"""Devices and precisions by name."""

from __future__ import annotations

import torch

from attnscope.training.devices import choose_device, choose_precision
from tests.training.toys import (
    CPU,
)


def test_devices_and_precisions() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_precision("bf16", CPU)
    assert not choose_precision("fp32", CPU)
    assert choose_precision("auto", CPU) in (True, False)
