"""Items of data sets of users: an image, a label and a path, in any usual form."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnscope.errors import InputError

IMAGE_KEYS = ("image", "images", "img", "pixel_values", "input", "inputs", "x", "data")
LABEL_KEYS = ("label", "labels", "target", "targets", "y", "class")
PATH_KEYS = ("path", "image_path", "img_path", "file", "filename", "file_name")
"""Keys of items that are dictionaries."""
_FORMS = (
    "it must be an image tensor, or a tuple (image, label) or (image, label, path), or a dict with "
    "the keys 'image' and 'label'"
)


@dataclass(frozen=True)
class Item:
    """One item of a data set."""

    image: Tensor
    """``(C, H, W)``, or ``(C, L)`` for a sequence and ``(C, D, H, W)`` for a volume."""
    label: object = None
    """A class index, a vector, a number, a mask ...; None if there is none."""
    path: str | None = None
    """Where the image comes from; None if the data set does not say it."""


def parse_item(item: object, row: int) -> Item:
    """Return the image, the label and the path of an item of a data set.

    Args:
        item: The item.
        row: Its index, for messages.

    Raises:
        InputError: The item has another form, its image is not a tensor of floats, or its path is
            not UTF-8.
    """
    path: object = None
    if isinstance(item, Tensor):
        image, label = item, None
    elif isinstance(item, Mapping):
        image, label = _value(item, IMAGE_KEYS, required=True), _value(item, LABEL_KEYS)
        path = _value(item, PATH_KEYS)
    elif isinstance(item, (tuple, list)) and 1 <= len(item) <= 3:
        image, label, path = (*item, None, None)[:3]
    else:
        length = f" of length {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise InputError(
            "AS668",
            f"an item of the data set is of type {type(item).__name__}{length}; {_FORMS}: change "
            "its __getitem__",
        )
    if path is not None and not isinstance(path, (str, os.PathLike, int)):
        raise InputError(
            "AS668",
            f"the path of an item of the data set is of type {type(path).__name__}; it must be "
            "text: change its __getitem__",
        )
    return Item(_image(image), label, None if path is None else _text(str(path), row))


def _text(path: str, row: int) -> str:
    """Return a path after checking that a table of a recording can store it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(
            "AS216",
            f"the path {path!a} of item {row} of the data set is not UTF-8; rename the file, or "
            "change its __getitem__",
        ) from None
    return path


def _image(image: object) -> Tensor:
    """Return an image after checking its type and axes."""
    if not isinstance(image, Tensor) or not 2 <= image.ndim <= 4:
        has = (
            f"shape {tuple(image.shape)}"
            if isinstance(image, Tensor)
            else f"type {type(image).__name__}"
        )
        raise InputError(
            "AS668",
            f"an image of the data set has {has}; it must be a tensor (C, H, W), (C, L) or "
            "(C, D, H, W): give the data set a transform",
        )
    if not image.is_floating_point():
        raise InputError(
            "AS668",
            f"an image of the data set has the type {image.dtype}; it "
            "must be as the network gets it: convert bytes by image.float() / 255",
        )
    return image


def _value(item: Mapping[Any, Any], keys: Sequence[str], required: bool = False) -> Any:
    """Return the value of the one key that an item has.

    Raises:
        InputError: It has several of them, or none although it is required.
    """
    found = [key for key in keys if key in item]
    if len(found) > 1 or (required and not found):
        has = ", ".join(map(repr, list(item)[:8])) or "none"
        wanted = "more than one" if len(found) > 1 else "none"
        raise InputError(
            "AS668",
            f"an item of the data set has the keys {has}, {wanted} of which is one of "
            f"{', '.join(keys)}; {_FORMS}: change its __getitem__",
        )
    return item[found[0]] if found else None


def item_count(dataset: object) -> int:
    """Return the length of a map-style data set.

    Raises:
        InputError: It has no length or no items, such as an iterable data set or a loader.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            "AS674",
            f"the data set is a {type(dataset).__name__}, which has no length or no items; pass a "
            "map-style data set, such as the dataset of a DataLoader",
        )
    return len(dataset)


def class_names_of(dataset: object) -> list[str]:
    """Return the class names of a data set: its ``classes``, or those of what it is a part of.

    Returns:
        The names; empty if there are none.

    Raises:
        InputError: A name is neither text nor a number, or joined data sets have other names.
    """
    seen: list[object] = []
    while dataset is not None and dataset not in seen:
        classes = getattr(dataset, "classes", None)
        if isinstance(classes, Sequence) and classes:
            return [_class_name(name) for name in classes]
        seen.append(dataset)
        joined = getattr(dataset, "datasets", None)  # of torch's ConcatDataset
        if isinstance(joined, (list, tuple)) and joined:
            names = [class_names_of(part) for part in joined]
            if any(other != names[0] for other in names):
                raise InputError(
                    "AS663",
                    "the joined data sets have different classes; pass classes= as a list of "
                    "strings, and give all data sets the same labels",
                )
            return names[0]
        dataset = getattr(dataset, "dataset", None)  # of torch's Subset
    return []


def _class_name(name: object) -> str:
    """Return the name of a class; a class of torchvision's ImageNet has several words."""
    if isinstance(name, (tuple, list)) and all(isinstance(word, str) for word in name):
        return ", ".join(name)
    if isinstance(name, (str, int)):
        return str(name)
    raise InputError(
        "AS663", f"the class {name!r:.60} has no valid name; pass classes= as a list of strings"
    )


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Return the images of a batch as one tensor.

    Raises:
        InputError: They have different sizes.
    """
    sizes = sorted({tuple(image.shape) for image in images})
    if len(sizes) > 1:
        raise InputError(
            "AS669",
            f"images of the data set have the shapes {sizes[0]} and {sizes[1]}; resize all to one "
            "size",
        )
    return torch.stack(list(images))
