"""The network of a recording, where it is found, and what it gives for single channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cached.caching import resource, statistic
from cached.found import Run

if TYPE_CHECKING:
    from attnscope.live import LiveNetwork


@resource
def network(run: Run) -> LiveNetwork:
    """``LiveNetwork.open``

    Raises:
        InputError: the network is not found, or has changed.
    """
    from attnscope.live import LiveNetwork  # it imports torch, which takes seconds

    return LiveNetwork.open(run.recording)


@statistic
def channel_maps(
    run: Run, gate: str, channel: int, rows: list[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the features of a channel before and after its gate, ``(n, h, w)`` each.

    Raises:
        InputError: the network or the images are not found, or the gate has no such maps.
    """
    return network(run).features(np.array(rows), gate, channel)
