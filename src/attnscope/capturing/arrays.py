"""The arrays and rows of a shard, made from what a forward gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attnscope.capturing.batching import Batch, to_numpy
from attnscope.errors import InputError


class ShardArrays:
    """The arrays of a shard, filled batch by batch."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._filled = 0
        self._arrays: dict[str, NDArray[Any]] = {}

    def add(self, arrays: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]) -> None:
        """Add the arrays of the next batch."""
        start, self._filled = self._filled, self._filled + len(labels)
        for key, value in arrays.items():
            shape = (self._count, *value.shape[1:])
            # Made once and filled: batches that are joined at the end are held twice.
            if key not in self._arrays:
                self._arrays[key] = np.empty(shape, value.dtype)
            whole = self._arrays[key]
            if whole.shape != shape:
                raise InputError(
                    f"{key} is {value.shape[1:]} in one batch and {whole.shape[1:]} in another; "
                    "images of one recording must have one size"
                )
            whole[start : self._filled] = value

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays, each with one row an image."""
        return self._arrays


def gate_arrays(
    seen: Mapping[str, Tensor], inputs: Mapping[str, Tensor], logits: Tensor
) -> dict[str, NDArray[Any]]:
    """The arrays of a batch: each gate, each pooled input, the logits."""
    arrays = {f"gate/{name}": to_numpy(values.float()) for name, values in seen.items()}
    for name, values in inputs.items():
        # Where pixels stand in one row, the gate that was read has become a grid.
        arrays[f"pooled/{name}"] = to_numpy(values.reshape(seen[name].shape))
    return {**arrays, "logits": to_numpy(logits.float())}


def image_rows(batch: Batch, logits: Tensor) -> pd.DataFrame:
    """One row for each image of a batch: path, label, prediction, loss."""
    loss = F.cross_entropy(logits.float(), batch.labels.to(logits.device), reduction="none")
    return pd.DataFrame(
        {
            "path": batch.paths,
            "label": batch.labels.numpy(),
            "prediction": to_numpy(logits.argmax(1)),
            "loss": to_numpy(loss),
        }
    )
