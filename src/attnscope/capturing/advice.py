"""The accuracy of a recording in one line, and advice if the order of the classes seems wrong."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from attnscope.recording.reader import ShardReader

_MUST_MATCH = 0.8  # share of the images that another order must explain
_MUST_GAIN = 0.3  # by how much this share must exceed the accuracy
_IMAGES_PER_CLASS = 3  # of fewer images, some order fits by chance


def advise_classes(recording: ShardReader) -> str | None:
    """Return a line of advice if the confusion matrix is nearly a permutation of the classes.

    Args:
        recording: A recording or moments with class labels.
    """
    count = len(recording.classes)
    if len(recording) < _IMAGES_PER_CLASS * count or count < 2:
        return None
    matrix = confusion_matrix(recording.labels, recording.predictions, labels=np.arange(count))
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    share = matrix[rows, columns].sum() / matrix.sum()
    accuracy = matrix.trace() / matrix.sum()
    if share < _MUST_MATCH or share - accuracy < _MUST_GAIN:
        return None
    moved = next(row for row, column in zip(rows, columns, strict=True) if row != column)
    return (
        f"In another order of the classes, {share:.0%} of the predictions would be right: images "
        f"of the class {recording.classes[moved]} are predicted as "
        f"{recording.classes[columns[moved]]}; check the order with --class-order or --classes"
    )


def describe_accuracy(recording: ShardReader) -> str:
    """Return the accuracy; with classes of different sizes, the balanced accuracy as well.

    The balanced accuracy is the mean of the accuracies of the classes that have images.

    Args:
        recording: A recording or moments with class labels.
    """
    right, labels = recording.right, recording.labels
    present, counts = np.unique(labels, return_counts=True)
    accuracy = f"accuracy {right.mean():.2%}"
    if len(set(counts.tolist())) == 1:
        return accuracy
    balanced = np.mean([right[labels == label].mean() for label in present])
    return f"{accuracy}, balanced accuracy {balanced:.2%}"
