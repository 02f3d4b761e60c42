"""Predictions of the network: confusion, precision and recall, calibration, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.statistics.registry import statistic


@statistic("Counts of images by true and predicted class.")
def confusion_matrix(recording: Recording) -> pd.DataFrame:
    """Count images by true and predicted class.

    Args:
        recording: recording of one network.

    Returns:
        ``K × K`` table of counts. The index is the true class, the columns are the predicted class,
        both in the order of ``recording.classes``. Classes that do not occur are included.
    """
    from sklearn import metrics  # imported here because the import takes a second

    classes = recording.classes
    with warnings.catch_warnings():
        # A recording may hold images of a single class.
        warnings.filterwarnings("ignore", "A single label was found", UserWarning)
        counts = metrics.confusion_matrix(
            recording.labels, recording.predictions, labels=range(len(classes))
        )
    return pd.DataFrame(
        counts,
        index=pd.Index(classes, name="true"),
        columns=pd.Index(classes, name="predicted"),
    )


@statistic("Precision, recall and F1 of each class.")
def class_metrics(recording: Recording) -> pd.DataFrame:
    """Compute precision, recall and F1 of each class.

    ``precision = TP / (TP + FP)``, ``recall = TP / (TP + FN)`` and ``F1 = 2 TP / (2 TP + FP +
    FN)``.

    Args:
        recording: recording of one network.

    Returns:
        One row per class:

        - ``class``
        - ``precision``, ``recall``, ``f1``: 0 to 1. A ratio 0 / 0 is NaN: the precision of a class
          that is never predicted, the recall of a class without images.
        - ``support``: number of images of the class.
    """
    from sklearn import metrics  # imported here because the import takes a second

    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        recording.labels,
        recording.predictions,
        labels=range(len(recording.classes)),
        zero_division=np.nan,
    )
    return pd.DataFrame(
        {
            "class": recording.classes,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            # scikit-learn returns floating-point counts if no image is correct.
            "support": support.astype(np.int64),
        }
    )


@statistic("Confidence against accuracy, in bins.")
def calibration(recording: Recording, bins: int = 15) -> pd.DataFrame:
    """Compare confidence with accuracy in bins of equal width (Guo et al. 2017, ICML).

    Confidence is the softmax probability of the predicted class. A bin includes its upper edge and
    excludes its lower edge.

    Args:
        recording: recording of one network.
        bins: number of bins.

    Returns:
        One row per bin:

        - ``low``, ``high``: edges of the bin.
        - ``confidence``, ``accuracy``: means over the images of the bin, 0 to 1; NaN in an empty
          bin.
        - ``count``: number of images.

    Raises:
        InputError: bins is below 1.
    """
    if bins < 1:
        raise InputError(
            "AS702",
            f"the number of calibration bins is {bins}; it must be at least 1, for example 15",
        )
    confidence = _confidence(recording)
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges, confidence) - 1
    count = np.bincount(index, minlength=bins)
    right = recording.right
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "confidence": _ratio(np.bincount(index, confidence, bins), count),
            "accuracy": _ratio(np.bincount(index, right, bins), count),
            "count": count,
        }
    )


@statistic("The expected calibration error.")
def calibration_error(recording: Recording) -> float:
    """Compute the expected calibration error, 0 to 1 (Guo et al. 2017, ICML, equation 3).

    It is the mean over the images of ``|accuracy - confidence|`` of their bin, with the 15 bins of
    `calibration`. A perfectly calibrated network has a positive error by chance, which grows as the
    bins hold fewer images.

    Args:
        recording: recording of one network.

    Returns:
        The expected calibration error.
    """
    table = calibration(recording)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["count"]).sum() / len(recording))


@statistic("Misclassified images, the most confident first.")
def misclassified(recording: Recording) -> pd.DataFrame:
    """List the misclassified images, most confident first.

    Args:
        recording: recording of one network.

    Returns:
        One row per image:

        - ``row``: row in the recording.
        - ``path``
        - ``label``, ``prediction``: names of the true and the predicted class.
        - ``confidence``: softmax probability of the predicted class, 0 to 1. Images with equal
          confidence keep their order.
    """
    classes = np.array(recording.classes)
    wrong = np.flatnonzero(recording.labels != recording.predictions)
    confidence = _confidence(recording)[wrong]
    order = np.argsort(-confidence, kind="stable")
    wrong = wrong[order]
    return pd.DataFrame(
        {
            "row": wrong,
            "path": recording.rows["path"].to_numpy()[wrong],
            "label": classes[recording.labels[wrong]],
            "prediction": classes[recording.predictions[wrong]],
            "confidence": confidence[order],
        }
    )


def _confidence(recording: Recording) -> NDArray[np.float64]:
    return recording.probabilities[np.arange(len(recording)), recording.predictions]


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return ``part / whole``; NaN where ``whole`` is 0."""
    ratio = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio
