"""Batches of a data set, as the network gets them and as pictures."""

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

SAMPLE_IMAGES = 4  # number of images on which the gates are found
_LARGEST_THUMBNAIL = 128  # pixels
IN_UNIT_RANGE = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Batch:
    """Some images of a data set."""

    x: Tensor
    """Input of the network, ``(n, 3, H, W)``."""
    pictures: Tensor
    """uint8, ``(n, 3, H, W)``."""
    labels: Tensor
    """int64, ``(n,)``."""
    paths: list[str]


def batches(
    dataset: LabeledImages | Dataset[tuple[Tensor, int]],
    rows: Sequence[int],
    batch_size: int,
    normalization: Normalization,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield batches of some rows of a data set, in their order.

    Args:
        dataset: As for `attnscope.capture`.
        rows: The rows.
        batch_size: Batch size.
        normalization: As for `attnscope.capture`.
        device: Device of the network inputs.

    Raises:
        InputError: An item is not an image with a label, or has values outside 0 to 1 although no
            normalization was given.
    """
    if isinstance(dataset, LabeledImages):
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            # A slice is a view of the images; other rows are copied.
            where = slice(chosen.start, chosen.stop) if isinstance(chosen, range) else list(chosen)
            images = dataset.images[where]
            x = normalization.apply(images.to(device))
            yield Batch(x, images, dataset.labels[where], [dataset.paths[i] for i in chosen])
        return
    start = 0
    # A loader draws a random number when it starts; keep it away from the global generator.
    own = torch.Generator()
    loader = DataLoader(Subset(dataset, rows), batch_size, generator=own, collate_fn=_collate)
    for x, labels in loader:
        pictures = normalization.undo(x)
        if normalization is IN_UNIT_RANGE and not 0 <= x.min() <= x.max() <= 1:
            raise InputError(
                "AS667",
                f"the images have values from {x.min():g} to {x.max():g}, outside 0 to 1; pass the "
                "normalization that was applied to them: "
                "normalization=attnscope.Normalization(mean, std)",
            )
        paths = [str(row) for row in rows[start : start + len(x)]]
        yield Batch(x.to(device), pictures, torch.as_tensor(labels), paths)
        start += len(x)


def _collate(items: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Return the images and labels of one batch.

    Raises:
        InputError: An item is something else, or the images have different sizes.
    """
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise InputError(
                "AS668",
                f"an item of the data set is of type {type(item).__name__}; it must be a tuple of "
                "an image (3, H, W) and a label: change its __getitem__",
            )
        image = item[0]
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
            has = (
                f"shape {tuple(image.shape)}"
                if isinstance(image, Tensor)
                else f"type {type(image).__name__}"
            )
            raise InputError(
                "AS668",
                f"an image of the data set has {has}; it must be a tensor (3, H, W): give the data "
                "set a transform",
            )
    sizes = sorted({tuple(image.shape[1:]) for image, _ in items})
    if len(sizes) > 1:
        raise InputError(
            "AS669",
            f"images of the data set have {sizes[0]} and {sizes[1]} pixels; resize all to one size",
        )
    return torch.stack([image for image, _ in items]), torch.tensor([int(y) for _, y in items])


def thumbnails(pictures: Tensor) -> NDArray[np.uint8]:
    """Shrink pictures whose longer side has more than 128 pixels to 128.

    Args:
        pictures: uint8, ``(n, 3, H, W)``.

    Returns:
        uint8, ``(n, h, w, 3)``.
    """
    pictures = pictures.cpu()  # the device on which bytes can be interpolated
    if max(pictures.shape[2:]) > _LARGEST_THUMBNAIL:
        scale = _LARGEST_THUMBNAIL / max(pictures.shape[2:])
        # Interpolating bytes is several times as fast as interpolating float32.
        pictures = F.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
    return to_numpy(pictures.permute(0, 2, 3, 1))


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array on the CPU."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
