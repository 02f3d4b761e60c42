"""The registry of attention modules."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from attnscope.errors import InputError
from attnscope.registry import Registry

BuildAttention = Callable[[int, int, int], nn.Module]
"""A function ``(channels, reduction, kernel_size) -> module``.

The module returns features of the same shape ``(N, C, H, W)``. Its children are its gates, in the
order in which they multiply, and each is named after its kind in `attnscope.kinds`: ``channel``
returns ``(N, C, 1, 1)`` and ``spatial`` returns ``(N, 1, H, W)``."""
NO_ATTENTION = "none"
"""The value of ``attention`` for a network without attention; reserved."""


def _check(build: BuildAttention) -> None:
    if not callable(build):
        raise TypeError("it must be a function (channels, reduction, kernel_size) -> module")


ATTENTIONS: Registry[BuildAttention] = Registry("attention module", _check)
"""The registered attention modules by name."""


def register_attention(name: str, build: BuildAttention) -> BuildAttention:
    """Register an attention module under a name, which `build_model` and ``--attention`` accept.

    Args:
        name: The name, such as ``se``.
        build: The function that builds the module; see `BuildAttention`.

    Returns:
        ``build``.

    Raises:
        InputError: The name is taken or reserved, or ``build`` is not callable.
    """
    if name == NO_ATTENTION:
        raise InputError(
            "AS311",
            f"the name '{name}' is reserved for networks without attention; choose another name",
        )
    return ATTENTIONS.register(name, build)


def attention_names() -> tuple[str, ...]:
    """Return the possible values of ``attention``: ``none`` and every registered module."""
    return (NO_ATTENTION, *ATTENTIONS)


def build_attention(
    kind: str, channels: int, *, reduction: int = 16, kernel_size: int = 7
) -> nn.Module:
    """Build an attention module.

    Args:
        kind: ``se``, ``eca``, ``cbam`` or another name in `ATTENTIONS`.
        channels: Number of channels of the features.
        reduction: Number of channels divided by the hidden channels of a channel gate.
        kernel_size: Kernel size of the convolution of a spatial gate, in pixels; odd.

    Returns:
        A module that multiplies features ``(N, C, H, W)`` by its gates.

    Raises:
        InputError: ``kind`` is unknown, ``reduction`` leaves no hidden channels, or
            ``kernel_size`` is not a positive odd number.
    """
    if kind not in ATTENTIONS:  # "none" is not a module
        known = ", ".join(ATTENTIONS)
        raise InputError(
            "AS302", f"the attention module '{kind}' is unknown; choose one of {known}"
        )
    return ATTENTIONS[kind](channels, reduction, kernel_size)
