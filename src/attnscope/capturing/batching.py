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

from attnscope.capturing.pictures import IN_UNIT_RANGE, as_rgb, to_bytes
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.items import Item, parse_item, stack_images
from attnscope.data.label_kinds import CLASS
from attnscope.data.labels import class_indices, targets_of
from attnscope.errors import InputError
from attnscope.training.devices import send

SAMPLE_IMAGES = 4  # number of images on which the gates are found
_LARGEST_THUMBNAIL = 128  # pixels


@dataclass(frozen=True)
class Batch:
    """Some images of a data set."""

    x: Tensor
    """Input of the network, ``(n, C, H, W)``; ``(n, C, L)`` for sequences, ``(n, C, D, H, W)`` for
    volumes."""
    pictures: Tensor
    """uint8, with the shape of ``x``: not normalized."""
    labels: Tensor
    """int64, ``(n,)``; -1 if the labels are no classes."""
    paths: list[str]
    targets: Tensor | None = None
    """float32, ``(n, T)``: labels that are values or marks of several classes."""


def batches(
    dataset: LabeledImages | Dataset[tuple[Tensor, int]],
    rows: Sequence[int],
    batch_size: int,
    normalization: Normalization,
    device: torch.device,
    label_kind: str = CLASS,
) -> Iterator[Batch]:
    """Yield batches of some rows of a data set, in their order.

    Args:
        dataset: As for `attnscope.capture`.
        rows: The rows.
        batch_size: Batch size.
        normalization: As for `attnscope.capture`.
        device: Device of the network inputs.
        label_kind: What the labels are, one of `attnscope.data.label_kinds.LABEL_KINDS`.

    Raises:
        InputError: An item is not an image with a label, or has values that are not finite or
            outside 0 to 1 although no normalization was given.
    """
    if isinstance(dataset, LabeledImages):
        parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        normalizer = normalization.on(device, dataset.shape[1])
        for images, part in zip(dataset.read(parts), parts, strict=True):
            x = normalizer.apply(send(images, device))
            indices = dataset.labels[torch.as_tensor(list(part))]
            yield Batch(x, images, indices, [dataset.paths[i] for i in part])
        return
    start = 0
    # A loader draws a random number when it starts; keep it away from the global generator.
    own = torch.Generator()
    loader = DataLoader(Subset(dataset, rows), batch_size, generator=own, collate_fn=list)
    for some in loader:
        numbers = rows[start : start + len(some)]
        items = [parse_item(item, row) for item, row in zip(some, numbers, strict=True)]
        x = _stack(items, normalization, numbers)
        labels = [item.label for item in items]
        yield Batch(
            send(x, device),
            to_bytes(x, normalization),
            class_indices(labels, label_kind),
            [
                str(row) if item.path is None else item.path
                for row, item in zip(numbers, items, strict=True)
            ],
            targets_of(labels, label_kind),
        )
        start += len(x)


def read_sample(
    dataset: LabeledImages | Dataset[Any], normalization: Normalization, device: torch.device
) -> tuple[Tensor, list[object] | None]:
    """Read the first images of a data set, each item once.

    Args:
        dataset: As for `attnscope.capture`.
        normalization: As for `attnscope.capture`.
        device: Device of the network inputs.

    Returns:
        Network inputs, and the labels of a data set that is not of `attnscope.data`.

    Raises:
        InputError: As for `batches`.
    """
    rows = range(min(len(dataset), SAMPLE_IMAGES))  # type: ignore[arg-type]
    if isinstance(dataset, LabeledImages):
        return next(batches(dataset, rows, SAMPLE_IMAGES, normalization, device)).x, None
    items = [parse_item(dataset[row], row) for row in rows]
    return _stack(items, normalization, rows).to(device), [item.label for item in items]


def _stack(items: Sequence[Item], normalization: Normalization, rows: Sequence[int]) -> Tensor:
    x = stack_images([item.image for item in items])
    if normalization is IN_UNIT_RANGE and x.ndim != 3 and not 0 <= x.min() <= x.max() <= 1:
        finite = torch.isfinite(x).flatten(1).all(1)
        if not finite.all():
            row = rows[int(finite.int().argmin())]
            raise InputError(
                "AS680",
                f"the image of item {row} of the data set has values that are NaN or infinite; "
                "repair it, or leave it out of the data set",
            )
        raise InputError(
            "AS667",
            f"the images have values from {x.min():g} to {x.max():g}, outside 0 to 1; pass the "
            "normalization that was applied to them (--mean and --std, or "
            "normalization=attnscope.Normalization(mean, std))",
        )
    return x


def thumbnails(pictures: Tensor) -> NDArray[np.uint8]:
    """Shrink pictures whose longer side has more than 128 pixels to 128.

    Args:
        pictures: uint8, ``(n, C, H, W)``, or sequences and volumes; see `as_rgb`.

    Returns:
        uint8, ``(n, h, w, 3)``.
    """
    pictures = as_rgb(pictures.cpu())  # the device on which bytes can be interpolated
    if max(pictures.shape[2:]) > _LARGEST_THUMBNAIL:
        scale = _LARGEST_THUMBNAIL / max(pictures.shape[2:])
        # Interpolating bytes is several times as fast as interpolating float32.
        pictures = F.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
    return to_numpy(pictures.permute(0, 2, 3, 1))


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array on the CPU."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
