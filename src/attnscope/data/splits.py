"""Stratified splits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attnscope.errors import InputError


def stratified_split(
    labels: NDArray[np.int64], classes: list[str], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows kept and rows held out, ``share`` of each class (at least one, never all), in order."""
    generator = np.random.default_rng(seed)
    held_out = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            raise InputError(
                f"class {classes[label]} has one training image only; "
                "two are needed to hold one out for validation"
            )
        held_out.append(rows[: min(max(1, round(share * len(rows))), len(rows) - 1)])
    out = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), out), out
