"""The accuracy of a recording in one line, and advice if the order of the classes seems wrong."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from attnscope.errors import InputError
from attnscope.recording.reader import ShardReader
from attnscope.runs import Run

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


def describe_input(recording: ShardReader) -> str | None:
    """Return in one line how images were prepared for a network that attnscope did not train.

    A wrong size or normalization lowers the accuracy, and nothing else shows it.

    Args:
        recording: A recording or moments.

    Returns:
        The line, or None if the network is that of a run, or the user's code prepares the images.
    """
    if not recording.has_source:
        return None
    source = recording.source()
    network = source.network
    if network.is_run or source.data.is_data_set or network.normalization is None:
        return None
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values)
        for values in (network.normalization.mean, network.normalization.std)
    )
    return (
        f"The network got images of {network.image_size}×{network.image_size} pixels, normalized "
        f"by the mean {mean} and the standard deviation {std}; if it was trained with others, "
        "give --image-size, --mean and --std"
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


def describe_difference(recording: ShardReader) -> str | None:
    """Return in one line why the accuracy is not that which ``attnscope train`` reported.

    Args:
        recording: A recording or moments with class labels.

    Returns:
        The line, or None if the two are equal, or if there is nothing to compare with: the
        recording is not of the test split of a run, or is of the untrained network.
    """
    about = recording.about
    run = Run.holding(recording)
    if run is None or recording.split != "test" or about.get("untrained"):
        return None
    try:
        result = run.result
    except InputError:  # the run is not finished, and no accuracy was reported
        return None
    trained = (result.get("test") or {}).get("accuracy")
    if trained is None:
        return None
    recorded = float(recording.right.mean())
    images = len(recording)
    apart = abs(round(trained * images) - round(recorded * images))
    if not apart:
        return None
    precisions = result.get("precision", "unknown"), about.get("precision", "unknown")
    if precisions[0] != precisions[1]:
        why = f"the training evaluated in {precisions[0]} and this recording is in {precisions[1]}"
    else:
        why = (
            f"both are in {precisions[0]}; another device, another version of torch or other test "
            "images can be the reason"
        )
    return (
        f"The training reported a test accuracy of {trained:.2%}, and this recording has "
        f"{recorded:.2%} ({apart} of {images} images): {why}"
    )
