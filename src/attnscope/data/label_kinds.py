"""The kinds of labels that a data set can have. Does not import torch."""

from __future__ import annotations

CLASS = "class"
MULTI_LABEL = "multi-label"
VALUE = "value"
OTHER_LABEL = "other"
NO_LABEL = "none"

LABEL_KINDS = {
    CLASS: "the index of a class",
    MULTI_LABEL: "several classes per image",
    VALUE: "numbers to predict",
    OTHER_LABEL: "masks, boxes or other labels that are not recorded",
    NO_LABEL: "no labels",
}
"""Kind -> what it is. Only images with class labels have an accuracy."""


def describe_labels(kind: str) -> str:
    """Return what labels of a kind are, for messages."""
    return LABEL_KINDS.get(kind, f"labels of the unknown kind '{kind}'")


def without_classes(kind: str) -> str:
    """Return that labels of a kind are no classes, for messages."""
    described = describe_labels(kind)
    return described if kind == NO_LABEL else f"no class labels ({described})"
