"""The arrays and rows of a shard, made from the results of forward passes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attnscope.capturing.batching import Batch
from attnscope.errors import InputError

_log = logging.getLogger(__name__)
PREDICTION, LOSS, FINITE, FORM = "row/prediction", "row/loss", "check/finite", "check/form"
"""Names of values that are no arrays of a shard: columns of the rows, and checks."""
_LARGE = 4 * 2**30
"""Bytes of a shard from which on a warning is given. Gates of kind full are as large as the
features."""


class ShardArrays:
    """The arrays of a shard, filled batch by batch."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._filled = 0
        self._arrays: dict[str, NDArray[Any]] = {}

    def add(self, arrays: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]) -> None:
        """Add the arrays of the next batch.

        Raises:
            InputError: An array has another shape than in earlier batches.
        """
        if not self._arrays:
            self._warn_if_large(arrays)
        start, self._filled = self._filled, self._filled + len(labels)
        for key, value in arrays.items():
            shape = (self._count, *value.shape[1:])
            # Allocate once and fill: joining batches at the end would need twice the memory.
            if key not in self._arrays:
                self._arrays[key] = np.empty(shape, value.dtype)
            whole = self._arrays[key]
            if whole.shape != shape:
                raise InputError(
                    "AS666",
                    f"{key} has shape {value.shape[1:]} in one batch and {whole.shape[1:]} in "
                    "another; resize all images to one size",
                )
            whole[start : self._filled] = value

    def _warn_if_large(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        sizes = {key: each.nbytes / len(each) * self._count for key, each in arrays.items()}
        total, largest = sum(sizes.values()), max(sizes, key=sizes.__getitem__)
        if total >= _LARGE:
            _log.warning(
                "a shard of %d images takes %.1f GB of memory and disk, of which %s takes %.1f GB; "
                "lower --shard-images if memory is short, or choose the gates with --kinds",
                self._count,
                total / 1e9,
                largest,
                sizes[largest] / 1e9,
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays, each with one row per image."""
        return self._arrays


def gate_values(
    seen: Mapping[str, Tensor], inputs: Mapping[str, Tensor], logits: Tensor | None
) -> dict[str, Tensor]:
    """Return the values of a batch, on its device: each gate and pooled input, and the logits."""
    values = {f"gate/{name}": found.float() for name, found in seen.items()}
    for name, found in inputs.items():
        # If positions stand in one row, the values of the gate have been reshaped to a grid.
        values[f"pooled/{name}"] = found.reshape(seen[name].shape)
    return values if logits is None else {**values, "logits": logits.float()}


def score_values(logits: Tensor, labels: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """Return what the rows of a batch need and the logits say, on their device.

    Args:
        logits: ``(N, K)``.
        labels: ``(N,)`` int64 on the same device; -1 for an image without a class.
        predicted: ``(N,)`` int64, the class with the highest logit.

    Returns:
        The predictions, the losses, which are NaN for an image without a class, and whether all
        logits of an image are finite.
    """
    loss = F.cross_entropy(logits.float(), labels.clamp(min=0), reduction="none")
    return {
        PREDICTION: predicted,
        LOSS: torch.where(labels >= 0, loss, torch.nan),
        FINITE: torch.isfinite(logits).all(1),
    }


def image_rows(batch: Batch, arrays: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """Return one row per image of a batch: path, label, prediction, loss.

    Args:
        batch: The images.
        arrays: What arrived of `score_values`. Without class scores, the prediction is -1 and the
            loss NaN.
    """
    return pd.DataFrame(
        {
            "path": batch.paths,
            "label": batch.labels.numpy(),
            "prediction": arrays.get(PREDICTION, -1),
            "loss": arrays.get(LOSS, np.nan),
        }
    )
