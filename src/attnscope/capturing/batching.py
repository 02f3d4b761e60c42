"""Batches of any data set, as the network gets them and as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from attnscope.data.images import LabeledImages, Normalization
from attnscope.errors import InputError

SAMPLE_IMAGES = 4  # images on which the gates are found
_LARGEST_THUMBNAIL = 128  # pixels
IN_UNIT_RANGE = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Batch:
    """Images of a data set."""

    x: Tensor
    """As the network gets it."""
    pictures: Tensor
    """uint8, ``(n, 3, H, W)``"""
    labels: Tensor
    paths: list[str]


def batches(
    dataset: LabeledImages | Dataset[tuple[Tensor, int]],
    rows: Sequence[int],
    batch_size: int,
    normalization: Normalization,
    device: torch.device,
) -> Iterator[Batch]:
    """The images of some rows of a data set, in their order.

    Args:
        dataset, normalization: of `capture`.
        rows: which.
        batch_size: images a batch.
        device: where they are wanted.

    Raises:
        InputError: an item is no image with a label, or its values say that it was normalized
            otherwise.
    """
    if isinstance(dataset, LabeledImages):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            # A slice is read where it lies; other rows are copied.
            where = slice(part.start, part.stop) if isinstance(part, range) else list(part)
            images = dataset.images[where]
            x = normalization.apply(images.to(device))
            yield Batch(x, images, dataset.labels[where], [dataset.paths[i] for i in part])
        return
    start = 0
    # A loader draws a number when it starts; not from the generator that all others draw from.
    own = torch.Generator()
    loader = DataLoader(Subset(dataset, rows), batch_size, generator=own, collate_fn=_collated)
    for x, labels in loader:
        pictures = normalization.undo(x)
        if normalization is IN_UNIT_RANGE and not 0 <= x.min() <= x.max() <= 1:
            raise InputError(
                "the images are not within 0 to 1; say with normalization= what was done to them"
            )
        paths = [str(row) for row in rows[start : start + len(x)]]
        yield Batch(x.to(device), pictures, torch.as_tensor(labels), paths)
        start += len(x)


def _collated(items: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Images and labels of one batch.

    Raises:
        InputError: an item is something else, or the images are of several sizes.
    """
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise InputError(
                f"an item of the data set is {type(item).__name__}; each must be an image "
                "(3, H, W) and a label"
            )
        image = item[0]
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
            what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise InputError(
                f"an image of the data set is {what}; each item must be a tensor (3, H, W) and a "
                "label: give the data set a transform"
            )
    sizes = sorted({tuple(image.shape[1:]) for image, _ in items})
    if len(sizes) > 1:
        raise InputError(
            f"images of the data set are {sizes[0]} and {sizes[1]} pixels; resize them to one size"
        )
    return torch.stack([image for image, _ in items]), torch.tensor([int(y) for _, y in items])


def thumbnails(pictures: Tensor) -> NDArray[np.uint8]:
    """uint8 ``(n, 3, H, W)`` -> ``(n, h, w, 3)``, the longer side at most 128 pixels."""
    pictures = pictures.cpu()  # where bytes can be interpolated, and will have to be
    if max(pictures.shape[2:]) > _LARGEST_THUMBNAIL:
        scale = _LARGEST_THUMBNAIL / max(pictures.shape[2:])
        # As bytes, which is several times as fast as in float32.
        pictures = F.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
    return to_numpy(pictures.permute(0, 2, 3, 1))


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A tensor as an array on the CPU."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
