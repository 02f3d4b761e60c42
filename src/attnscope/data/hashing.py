"""SHA-256 of data sets."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attnscope.data.images import LabeledImages
from attnscope.data.items import parse_item

_ITEMS = 4  # at the start and at the end


def hash_data(dataset: LabeledImages | Dataset[Any]) -> str:
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
    for i in sorted({*range(min(count, _ITEMS)), *range(max(count - _ITEMS, 0), count)}):
        item = parse_item(dataset[i], i)
        digest.update(f"{i} {_text(item.label)} {tuple(item.image.shape)}\n".encode())
        digest.update(_bytes(item.image))
    return digest.hexdigest()


def _text(label: object) -> str:
    """Return a label as text, an index as the number alone."""
    try:
        values = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):  # None, or a dict of a detection data set
        return "none" if label is None else type(label).__name__
    if values.numel() == 1:
        value = float(values)
        return str(int(value)) if value.is_integer() else repr(value)
    return hashlib.sha256(_bytes(values)).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
