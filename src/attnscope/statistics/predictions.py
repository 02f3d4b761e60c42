"""What the network predicted, and how well it knew."""

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
    """Counts of images; the index is the true class, the columns are the predicted one.

    Returns:
        ``K × K``, both axes in the order of ``recording.classes``, whether a class occurs or not.
    """
    from sklearn import metrics  # here, since it takes a second to import

    classes = recording.classes
    with warnings.catch_warnings():
        # That one class is known and no other is what the recording says.
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
    """Precision ``TP / (TP + FP)``, recall ``TP / (TP + FN)`` and ``F1 = 2 TP / (2 TP + FP + FN)``.

    Returns:
        One row a class: class, precision, recall, f1 (0 to 1), support (images of the class). What
        would be 0 / 0 is NaN: the precision of a class that is never predicted, the recall of one
        without images.
    """
    from sklearn import metrics  # here, since it takes a second to import

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
            # Where no image is right, scikit-learn counts in floating point.
            "support": support.astype(np.int64),
        }
    )


@statistic("Confidence against accuracy, in bins.")
def calibration(recording: Recording, bins: int = 15) -> pd.DataFrame:
    """Confidence against accuracy, in ``bins`` bins of one width (Guo et al. 2017, ICML).

    Confidence is the softmax probability of the predicted class. A bin holds its upper edge, not
    its lower one.

    Returns:
        One row a bin: low, high (its edges), confidence and accuracy (means over its images; NaN in
        an empty bin), count.

    Raises:
        InputError: bins is below 1.
    """
    if bins < 1:
        raise InputError(f"calibration needs at least one bin, not {bins}; take 15")
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
    """The expected calibration error, 0 to 1 (Guo et al. 2017, ICML, equation 3).

    The mean over the images of ``|accuracy - confidence|`` of their bin, in the 15 bins of
    ``calibration``. A well calibrated network is above 0 too, by chance: the fewer images a bin
    has, the further.
    """
    table = calibration(recording)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["count"]).sum() / len(recording))


@statistic("Misclassified images, the most confident first.")
def misclassified(recording: Recording) -> pd.DataFrame:
    """The images whose predicted class is not the true one, the most confident first.

    Returns:
        One row an image: row (in the recording), path, label and prediction (names of classes),
        confidence (softmax probability of the predicted class). Equally confident images keep
        their order.
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
    """``part / whole``, and NaN where ``whole`` is 0."""
    ratio = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio
