"""Maps of single images, and the choice of gates to show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attnscope.kinds import Gate
from attnscope.plots.subjects import has_grad_cam
from attnscope.recording.recording import Recording

SEED = 0
"""Seed of every random choice of images."""
_GATES = 16


def some_gates(gates: list[Gate]) -> tuple[list[Gate], str]:
    """Return at most 16 gates, evenly spaced over depth, and a sentence if some are left out."""
    if len(gates) <= _GATES:
        return gates, ""
    chosen = np.linspace(0, len(gates) - 1, _GATES).round().astype(int)
    return [
        gates[i] for i in chosen
    ], f"{_GATES} of {len(gates)} gates are shown, evenly spaced over depth. "


def grad_cam_of(recording: Recording, rows: Sequence[int]) -> NDArray[np.float32] | None:
    """Return Grad-CAM of the predicted class after the ReLU, ``(len(rows), h, w)``, or None."""
    if not has_grad_cam(recording):
        return None
    maps: NDArray[np.float32] = np.maximum(recording.grad_cam(rows=list(rows)), 0)
    return maps


def gate_of(recording: Recording, gate: str, rows: Sequence[int]) -> NDArray[np.float32]:
    """Return the maps of a gate for some images, ``(len(rows), h, w)``."""
    return np.concatenate([recording.spatial(gate, slice(i, i + 1)) for i in rows])
