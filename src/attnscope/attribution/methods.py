"""Attribution methods by name: what made the network decide as it did, as one map an image.

Another method is one file with one call of `register_attribution`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from attnscope.registry import Registry

Explain = Callable[[nn.Module, Tensor, Tensor, str], Tensor]
"""``fn(model, images, target, layer) -> maps``: images ``(n, C, H, W)`` as the network gets them,
the class to explain for each ``(n,)``, the path of a module (empty for a method of the input) ->
signed attributions ``(n, h, w)``, summed over channels."""


@dataclass(frozen=True)
class Attribution:
    """One attribution method."""

    name: str
    about: str
    """One line: what it computes, and how many passes it costs."""
    grid: Literal["layer", "input"]
    """Whether its maps lie on the grid of a layer or of the image."""
    explain: Explain


def _check(method: Attribution) -> None:
    if not method.about.strip():
        raise ValueError("its about must be a text")
    if method.grid not in ("layer", "input"):
        raise ValueError(f"its grid is '{method.grid}'; it must be layer or input")
    if not callable(method.explain):
        raise TypeError("its explain must be a function")


ATTRIBUTIONS: Registry[Attribution] = Registry("attribution method", _check)
"""All methods by name."""


def register_attribution(method: Attribution) -> Attribution:
    """Add an attribution method.

    Raises:
        InputError: its name is taken, or it is not complete.
    """
    return ATTRIBUTIONS.register(method.name, method)
