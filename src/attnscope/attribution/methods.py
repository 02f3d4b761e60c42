"""The registry of attribution methods. Each gives one map per image.

A new method is one file with one call of `register_attribution`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from attnscope.registry import Registry

Explain = Callable[[nn.Module, Tensor, Tensor, str], Tensor]
"""``fn(model, images, target, layer) -> maps``.

``images`` are ``(n, C, H, W)`` as the network expects them, ``target`` is the explained class of
each image ``(n,)``, and ``layer`` is the path of a module, empty for a method of the input. The
result are signed attributions ``(n, h, w)``, summed over channels.
"""


@dataclass(frozen=True)
class Attribution:
    """One attribution method."""

    name: str
    about: str
    """One line: what it computes, and how many passes it costs."""
    grid: Literal["layer", "input"]
    """Whether its maps have the grid of a layer or of the input."""
    explain: Explain


def _check(method: Attribution) -> None:
    if not method.about.strip():
        raise ValueError("its about must be a non-empty string")
    if method.grid not in ("layer", "input"):
        raise ValueError(f"its grid is '{method.grid}'; it must be layer or input")
    if not callable(method.explain):
        raise TypeError("its explain must be a function")


ATTRIBUTIONS: Registry[Attribution] = Registry("attribution method", _check)
"""All registered methods by name."""


def register_attribution(method: Attribution) -> Attribution:
    """Register an attribution method.

    Returns:
        The method.

    Raises:
        InputError: the name is taken, or the method is incomplete.
    """
    return ATTRIBUTIONS.register(method.name, method)
