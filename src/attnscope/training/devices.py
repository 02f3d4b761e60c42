"""Which device, which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from attnscope.errors import InputError

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one; under torchrun, each process has its own GPU.

    Raises:
        InputError: the device is not known or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}' is not known; take auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not known; take auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' is not there; take auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> bool:
    """Whether to run under bfloat16 autocast; ``auto`` says yes where the hardware multiplies it.

    Raises:
        InputError: the precision is not known.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision '{name}' is not known; take one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return name == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AMX tiles a CPU converts back and forth, and is slower than in float32.
    # The question is no public one yet, so that another torch may not know it.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_amx())


@contextmanager
def autocast_block(device: torch.device, enabled: bool) -> Iterator[None]:
    """Run a block under bfloat16 autocast, if ``enabled``."""
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


def place_images(images: Tensor, device: torch.device) -> Tensor:
    """On a GPU that has room for them twice; else where they are, to be brought batch by batch."""
    if device.type == "cuda" and 2 * images.nbytes > torch.cuda.mem_get_info(device)[0]:
        return images.pin_memory()
    return images.to(device)
