"""Stratified splits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attnscope.errors import InputError


def stratified_split(
    labels: NDArray[np.int64], classes: list[str], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split images into two sets, class by class.

    Args:
        labels: The label of each image, ``(N,)``.
        classes: The names of the classes.
        share: The share of each class to hold out. At least one image of each class is held out,
            and at least one is kept.
        seed: The random seed.

    Returns:
        The rows that are kept and the rows that are held out, each in ascending order.

    Raises:
        InputError: A class has only one image.
    """
    generator = np.random.default_rng(seed)
    held_out = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            raise InputError(
                "AS218",
                f"the class {classes[label]} has only one training image; it needs at least two, "
                "because one is held out for validation; add images or a validation split",
            )
        held_out.append(rows[: min(max(1, round(share * len(rows))), len(rows) - 1)])
    out = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), out), out
