"""SHA-256 of data sets."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attnscope.capturing.batching import SAMPLE_IMAGES
from attnscope.data.images import LabeledImages


def hash_data(dataset: LabeledImages | Dataset[tuple[Tensor, int]]) -> str:
    """SHA-256 over paths, labels and pixels; of a set that is not in memory, over its ends.

    Reading the whole of such a set would take as long as capturing it: of its items the first and
    the last four count, and a change between them is not seen.
    """
    if isinstance(dataset, LabeledImages):
        return dataset.sha256()
    digest = hashlib.sha256()
    count = len(dataset)  # type: ignore[arg-type]
    digest.update(f"{type(dataset).__module__}.{type(dataset).__qualname__}".encode())
    for i in sorted(
        {*range(min(count, SAMPLE_IMAGES)), *range(max(count - SAMPLE_IMAGES, 0), count)}
    ):
        image, label = dataset[i]
        digest.update(f"{i} {int(label)} {tuple(image.shape)}\n".encode())
        digest.update(_bytes(torch.as_tensor(image)))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
