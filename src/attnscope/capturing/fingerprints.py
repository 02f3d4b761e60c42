"""SHA-256 of data sets."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attnscope.capturing.batching import SAMPLE_IMAGES
from attnscope.data.images import LabeledImages


def hash_data(dataset: LabeledImages | Dataset[tuple[Tensor, int]]) -> str:
    """Return the SHA-256 of a data set.

    For `LabeledImages` it covers all paths, labels and pixels. For any other data set it covers the
    first four and the last four items, because reading all of them would take as long as the
    capture. A change between them is not detected.
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
