"""Maps of single images, and which gates and images are shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attnscope.kinds import Gate
from attnscope.plots.subjects import has_grad_cam
from attnscope.recording.recording import Recording

SEED = 0
"""Of every choice of images."""
_GATES = 16


def some_gates(gates: list[Gate]) -> tuple[list[Gate], str]:
    """At most as many gates as there are columns, evenly over depth, and a sentence about it."""
    if len(gates) <= _GATES:
        return gates, ""
    chosen = np.linspace(0, len(gates) - 1, _GATES).round().astype(int)
    return [gates[i] for i in chosen], f"{_GATES} of {len(gates)} gates, evenly over depth. "


def grad_cam_of(recording: Recording, rows: Sequence[int]) -> NDArray[np.float32] | None:
    """Grad-CAM of the predicted class after its ReLU, ``(len(rows), h, w)``; None without any."""
    if not has_grad_cam(recording):
        return None
    maps: NDArray[np.float32] = np.maximum(recording.grad_cam(rows=list(rows)), 0)
    return maps


def gate_of(recording: Recording, gate: str, rows: Sequence[int]) -> NDArray[np.float32]:
    """A gate of some images, ``(len(rows), h, w)`` for a map."""
    return np.concatenate([recording.gate(gate, slice(i, i + 1)) for i in rows])
