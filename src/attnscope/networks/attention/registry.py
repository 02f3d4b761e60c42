"""Attention modules by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from attnscope.errors import InputError
from attnscope.registry import Registry

BuildAttention = Callable[[int, int, int], nn.Module]
"""``(channels, reduction, kernel_size)`` -> a module that keeps the shape of ``(N, C, H, W)``.

Its children are its gates, in the order in which they act, each named after its kind in
`attnscope.kinds`: ``channel`` returns ``(N, C, 1, 1)``, ``spatial`` ``(N, 1, H, W)``."""
NO_ATTENTION = "none"
"""The name of a network without attention, which no module may have."""


def _check(build: BuildAttention) -> None:
    if not callable(build):
        raise TypeError("it must be a function (channels, reduction, kernel_size) -> module")


ATTENTIONS: Registry[BuildAttention] = Registry("attention module", _check)
"""All attention modules by name."""


def register_attention(name: str, build: BuildAttention) -> BuildAttention:
    """Add an attention module, which `build_model` and ``--attention`` then take.

    Raises:
        InputError: the name is taken.
    """
    if name == NO_ATTENTION:
        raise InputError(f"'{name}' is the network without attention; take another name")
    return ATTENTIONS.register(name, build)


def attention_names() -> tuple[str, ...]:
    """What a network's ``attention`` can be: ``none``, and every registered module."""
    return (NO_ATTENTION, *ATTENTIONS)


def build_attention(
    kind: str, channels: int, *, reduction: int = 16, kernel_size: int = 7
) -> nn.Module:
    """The attention module ``kind`` for ``channels`` channels.

    Args:
        kind: of `ATTENTIONS`: ``se``, ``eca``, ``cbam`` or one that was registered.
        channels: of the features that it gates.
        reduction: channels over hidden channels in the MLP of a channel gate.
        kernel_size: of the convolution of a spatial gate, in pixels; odd.

    Raises:
        InputError: ``kind`` is not known, or ``reduction`` leaves no hidden channel.
    """
    if kind not in ATTENTIONS:  # "none" is a network, and no module
        known = ", ".join(ATTENTIONS)
        raise InputError(f"attention module '{kind}' is not known; take one of {known}")
    return ATTENTIONS[kind](channels, reduction, kernel_size)
