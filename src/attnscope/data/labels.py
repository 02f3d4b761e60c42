"""What the labels of a data set are: class indices, or something that has no accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from attnscope.data.images import LabeledImages
from attnscope.data.items import parse_item
from attnscope.data.label_kinds import CLASS, MULTI_LABEL, NO_LABEL, OTHER_LABEL, VALUE
from attnscope.errors import InputError

NO_CLASS = -1
"""The class index of an image that has no class."""
_SAMPLE = 4
_INDEX, _FLOAT, _ONE_HOT, _MULTI_HOT = "index", "float", "one-hot", "multi-hot"
_CLASS_FORMS = {_INDEX, _FLOAT, _ONE_HOT}


def label_kind_of(
    dataset: LabeledImages | Dataset[Any], first: Sequence[object] | None = None
) -> str:
    """Return what the labels of a data set are, one of `attnscope.data.label_kinds.LABEL_KINDS`.

    The first items decide. Only labels that can be classes but need not be, such as rows of zeros
    and a one, are all looked at.

    Args:
        dataset: As for `attnscope.capture`.
        first: Labels of its first items; default: they are read.

    Raises:
        InputError: Some items have a label and others have none, or a label is text.
    """
    if isinstance(dataset, LabeledImages):
        return CLASS
    count = len(dataset)  # type: ignore[arg-type]
    if first is None:
        first = [parse_item(dataset[i], i).label for i in range(min(count, _SAMPLE))]
    forms = {_form(label) for label in first}
    if forms <= {_FLOAT, _ONE_HOT} and count > len(first):
        forms |= {_form(label) for label in _all_labels(dataset)}
    return _kind(forms)


def class_indices(labels: Sequence[object], kind: str) -> Tensor:
    """Return the class index of each label, ``(n,)`` in int64; -1 if labels are no classes.

    Args:
        labels: Labels of some items.
        kind: What they are.

    Raises:
        InputError: The label of an item is no class although those of other items are.
    """
    if kind != CLASS:
        return torch.full((len(labels),), NO_CLASS)
    forms = [_form(label) for label in labels]
    for label, form in zip(labels, forms, strict=True):
        if form not in _CLASS_FORMS:
            raise InputError(
                "AS668",
                f"a label of the data set is {_shown(label)}, and others are class indices; use "
                "one form of label in the whole data set",
            )
    indices = [
        int(torch.as_tensor(label).argmax()) if form == _ONE_HOT else int(label)  # type: ignore[call-overload]
        for label, form in zip(labels, forms, strict=True)
    ]
    return torch.tensor(indices)


def targets_of(labels: Sequence[object], kind: str) -> Tensor | None:
    """Return labels that are no classes as numbers, ``(n, T)`` in float32.

    Returns:
        The values or the marks of several classes; None for all other kinds.

    Raises:
        InputError: Labels have different lengths.
    """
    if kind not in (MULTI_LABEL, VALUE):
        return None
    rows = [torch.as_tensor(label, dtype=torch.float32).reshape(-1) for label in labels]
    if len({len(row) for row in rows}) > 1:
        raise InputError(
            "AS668",
            "labels of the data set have different lengths; give every image a label of the same "
            "length",
        )
    return torch.stack(rows)


def _all_labels(dataset: Dataset[Any]) -> Iterator[object]:
    """Yield the labels of all items, without reading images where torch keeps both apart."""
    if isinstance(dataset, TensorDataset):
        yield from dataset.tensors[1]
    elif isinstance(dataset, Subset) and isinstance(dataset.dataset, TensorDataset):
        yield from (dataset.dataset.tensors[1][i] for i in dataset.indices)
    else:
        for i in range(len(dataset)):  # type: ignore[arg-type]
            yield parse_item(dataset[i], i).label


def _form(label: object) -> str:
    """Return the form of one label: a class form, or the kind that it can only be."""
    if label is None:
        return NO_LABEL
    if isinstance(label, str):
        raise InputError(
            "AS668",
            f"a label of the data set is the text {label!r:.40}; it must be the index of a class: "
            "change its __getitem__",
        )
    try:
        values = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):  # such as the boxes of a detection data set
        return OTHER_LABEL
    if values.numel() == 1 and values.ndim < 2:
        if not values.is_floating_point():
            return _INDEX
        value = float(values)
        return _FLOAT if value.is_integer() else VALUE
    if values.ndim != 1 or not len(values):
        return OTHER_LABEL
    if ((values == 0) | (values == 1)).all():
        return _ONE_HOT if int(values.sum()) == 1 else _MULTI_HOT
    return VALUE


def _kind(forms: set[str]) -> str:
    """Return what labels of these forms are."""
    if forms <= {_INDEX, _FLOAT} or forms == {_ONE_HOT}:
        return CLASS
    if forms <= {_ONE_HOT, _MULTI_HOT}:
        return MULTI_LABEL
    if forms <= {_INDEX, _FLOAT, VALUE} or forms <= {_ONE_HOT, _MULTI_HOT, VALUE}:
        return VALUE
    if len(forms) == 1:
        return forms.pop()
    raise InputError(
        "AS668",
        f"labels of the data set have different forms ({', '.join(sorted(forms))}); use one form "
        "of label in the whole data set",
    )


def _shown(label: object) -> str:
    values = label.tolist() if isinstance(label, Tensor) else label
    return f"{values!r:.40}"
