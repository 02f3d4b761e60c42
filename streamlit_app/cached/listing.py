"""What the page of all runs shows: accuracies, which are read a few at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable

from attnscope.dashboard.inventory import read_accuracy
from attnscope.errors import InputError
from cached.found import Run

_known: dict[str, float] = {}
"""Key of a run -> accuracy; NaN if it has none, or cannot be read."""
_MOST = 20_000  # entries


def accuracies(runs: Iterable[Run], seconds: float) -> dict[str, float]:
    """Return label -> accuracy, 0 to 1, of the recordings for which it is known by now.

    Args:
        runs: the recordings.
        seconds: time in which those that are missing are read. The next call goes on.
    """
    end = time.monotonic() + seconds
    if len(_known) > _MOST:
        _known.clear()
    found = {}
    for run in runs:
        if run.key not in _known:
            if time.monotonic() >= end:
                continue
            try:
                _known[run.key] = read_accuracy(run.folder)
            except InputError:  # the page says that it is damaged, or opening it does
                _known[run.key] = float("nan")
        found[run.label] = _known[run.key]
    return found
