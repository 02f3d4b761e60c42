"""SHA-256 of weights, data sets and files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from attnscope.capturing.batching import SAMPLE_IMAGES, SHARD_IMAGES
from attnscope.data.images import LabelledImages


def hash_file(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(_bytes(value))
    return digest.hexdigest()


def hash_data(dataset: LabelledImages | Dataset[tuple[Tensor, int]]) -> str:
    """SHA-256 over paths, labels and pixels; of a set that is not in memory, over its ends.

    Reading the whole of such a set would take as long as capturing it: of its items the first and
    the last four count, and a change between them is not seen.
    """
    digest = hashlib.sha256()
    count = len(dataset)  # type: ignore[arg-type]
    if isinstance(dataset, LabelledImages):
        digest.update("\n".join(dataset.paths).encode())
        digest.update(_bytes(dataset.labels))
        for start in range(0, count, SHARD_IMAGES):
            digest.update(_bytes(dataset.images[start : start + SHARD_IMAGES]))
        return digest.hexdigest()
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
