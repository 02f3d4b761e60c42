"""The choice of device and precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from attnscope.errors import InputError

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """Return the device with a name.

    Args:
        name: ``auto`` (a GPU if there is one, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``. Under
            torchrun, ``auto`` and ``cuda`` give each process its own GPU.

    Raises:
        InputError: AS130, the name is unknown; AS131, the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _unknown_device(name) from None
    if device.type not in ("cpu", "cuda"):
        raise _unknown_device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            "AS131",
            f"device '{name}' is not available (PyTorch finds {torch.cuda.device_count()} CUDA "
            "GPUs); choose auto or cpu",
        )
    return device


def _unknown_device(name: str) -> InputError:
    return InputError("AS130", f"device '{name}' is unknown; choose auto, cpu, cuda or cuda:N")


def choose_precision(name: str, device: torch.device) -> bool:
    """Return whether to run under bfloat16 autocast.

    Args:
        name: ``auto`` (bfloat16 if the hardware multiplies it natively), ``fp32`` or ``bf16``.
        device: where the network runs.

    Raises:
        InputError: AS132, the name is unknown.
    """
    if name not in PRECISIONS:
        raise InputError(
            "AS132", f"precision '{name}' is unknown; choose one of {', '.join(PRECISIONS)}"
        )
    if name != "auto":
        return name == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AMX tiles a CPU converts to float32 and back, which is slower than float32.
    # The function is not public, so other versions of torch may lack it.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_amx())


@contextmanager
def autocast_block(device: torch.device, enabled: bool) -> Iterator[None]:
    """Run a block under bfloat16 autocast if ``enabled``."""
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to a device. With a GPU, the host does not wait for the copy."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def place_images(images: Tensor, device: torch.device) -> Tensor:
    """Move images to a device, or pin them in CPU memory if they need over half its free memory."""
    if device.type == "cuda" and 2 * images.nbytes > torch.cuda.mem_get_info(device)[0]:
        return images.pin_memory()
    return images.to(device)
