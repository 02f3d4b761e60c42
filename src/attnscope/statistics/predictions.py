"""Predictions of the network: confusion, precision and recall, calibration, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import normal_interval, t_interval
from attnscope.statistics.reading import row_chunks
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
    confidence = recording.confidence
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
    bins hold fewer images; `calibration_summary` removes it.

    Args:
        recording: recording of one network.

    Returns:
        The expected calibration error.
    """
    table = calibration(recording)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["count"]).sum() / len(recording))


CALIBRATION_MEASURES = {
    "calibration_error": "calibration error",
    "brier": "Brier score",
    "log_loss": "log loss",
}
"""The measures of `calibration_summary` -> their names in texts."""


@statistic("Calibration error without its bias, Brier score and log loss, with intervals.")
def calibration_summary(recording: Recording, bins: int = 15) -> pd.DataFrame:
    """Measure how well the probabilities fit, with intervals.

    The gap of a bin is its accuracy minus its confidence. The absolute gap is positive by chance,
    and so is the expected calibration error of a calibrated network (Roelofs et al. 2022, AISTATS).
    Here the absolute gap of a bin is replaced by the sign of the gap in a random half of its images
    times the gap in the other half, averaged over all halves, which is 0 on average in a calibrated
    bin. With the standard error s of the gap of a calibrated bin, ``s² = Σ c (1 - c) / n²`` for
    confidences c, and ``z = gap / s``, it is ``s (z (2 Φ(z) - 1) - 2 φ(z))``. Where the gaps are as
    large as their standard errors it is too small by up to half a standard error; large gaps remain
    as they are.

    The interval of the calibration error begins 1.96 standard errors below the debiased error, and
    ends 1.96 standard errors above the error that is not debiased, because the truth lies between
    both on average. Neither is cut at 0. The Brier score (Brier 1950, Monthly Weather Review 78)
    and the log loss are means over images with Student's t interval (95%); both are proper scores,
    which cannot be improved by probabilities other than the true ones. There is no test.

    Args:
        recording: recording of one network.
        bins: number of bins of equal width, as in `calibration`.

    Returns:
        One row per measure:

        - ``measure``: ``calibration_error``, ``brier`` or ``log_loss``.
        - ``value``: the debiased expected calibration error, which can be slightly negative; the
          Brier score, 0 to 2, the sum over the classes; the log loss in nats.
        - ``low``, ``high``: 95% CI, which contains the value; NaN with one image.
        - ``images``: number of images.

    Raises:
        InputError: bins is below 1.
    """
    table = calibration(recording, bins)
    confidence, right = recording.confidence, recording.right.astype(np.float64)
    images = len(recording)
    index = np.searchsorted(np.linspace(0, 1, bins + 1), confidence) - 1
    count = table["count"].to_numpy()
    gap = np.nan_to_num((table["accuracy"] - table["confidence"]).to_numpy())
    calibrated = np.sqrt(
        np.bincount(index, confidence * (1 - confidence), bins) / np.maximum(count, 1) ** 2
    )
    z = np.divide(gap, calibrated, out=np.zeros(bins), where=calibrated > 0)
    halved = calibrated * (z * (2 * stats.norm.cdf(z) - 1) - 2 * stats.norm.pdf(z))
    debiased = np.where(calibrated > 0, halved, np.abs(gap))
    apart = (right - confidence) - gap[index]
    observed = np.bincount(index, apart**2, bins) / np.maximum(count * (count - 1), 1)
    share = count / images
    error = float(np.sqrt((share**2 * np.maximum(observed, calibrated**2)).sum()))
    value, plain = float(share @ debiased), float(share @ np.abs(gap))
    low, high = normal_interval(value, error)[0], normal_interval(plain, error)[1]
    if images < 2:
        low = high = np.nan
    # Neither the value nor the interval is cut at 0: the mean of cut values would be too large.
    rows = [("calibration_error", value, low, high)]
    brier, loss = np.zeros(images), np.zeros(images)
    every, labels = recording.logits, recording.labels
    for piece in row_chunks(images, every.shape[1]):
        logits = every[piece].astype(np.float64)
        own = np.arange(len(logits)), labels[piece]
        logits -= special.logsumexp(logits, axis=1, keepdims=True)
        loss[piece] = -logits[own]
        chance = np.exp(logits)
        brier[piece] = (chance**2).sum(1) - 2 * chance[own] + 1
    for name, scores in (("brier", brier), ("log_loss", loss)):
        std = scores.std(ddof=1) if images > 1 else np.nan
        ends = t_interval(scores.mean(), std / np.sqrt(images), max(images - 1, 1))
        low, high = (max(float(end), 0.0) for end in ends)
        rows.append((name, float(scores.mean()), low, high))
    frame = pd.DataFrame(rows, columns=["measure", "value", "low", "high"])
    return frame.assign(images=images)


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
        - ``loss``: negative logarithm of the softmax probability of the true class, in nats.
    """
    classes = np.array(recording.classes)
    wrong = np.flatnonzero(recording.labels != recording.predictions)
    confidence = recording.confidence[wrong]
    order = np.argsort(-confidence, kind="stable")
    wrong = wrong[order]
    loss, logits = np.empty(len(wrong)), recording.logits
    for piece in row_chunks(len(wrong), logits.shape[1]):
        of_wrong = logits[wrong[piece]].astype(np.float64)
        true = of_wrong[np.arange(len(of_wrong)), recording.labels[wrong[piece]]]
        loss[piece] = special.logsumexp(of_wrong, axis=1) - true
    return pd.DataFrame(
        {
            "row": wrong,
            "path": recording.rows["path"].to_numpy()[wrong],
            "label": classes[recording.labels[wrong]],
            "prediction": classes[recording.predictions[wrong]],
            "confidence": confidence[order],
            "loss": loss,
        }
    )


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return ``part / whole``; NaN where ``whole`` is 0."""
    ratio = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio
