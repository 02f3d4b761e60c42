"""Single channels of the network of a recording."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cached.caching import statistic
from cached.found import Run
from cached.live import network as network


@statistic
def channel_maps(
    run: Run, gate: str, channel: int, rows: list[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the features of a channel before and after its gate, ``(n, h, w)`` each.

    Raises:
        InputError: the network or the images are not found, or the gate has no such maps.
    """
    return network(run).features(np.array(rows), gate, channel)
