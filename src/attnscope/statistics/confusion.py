"""Which classes a network confuses: pairs, an order of the classes, and a comparison of two."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.inference import paired_share_changes, share_intervals
from attnscope.statistics.registry import statistic

_BEST_ORDER = 300
"""Up to this number of classes the leaves of the tree are turned to their best order, whose time
grows with the square of the number of classes or faster."""


@statistic("Confused pairs of classes, the most frequent first.")
def confused_pairs(recording: Recording) -> pd.DataFrame:
    """List the pairs of a true class and another predicted class that occur.

    The interval is Wilson's (1927, JASA 22), over the images of the true class. There is no test.

    Args:
        recording: recording of one network.

    Returns:
        One row per pair, by decreasing count; ties are in the order of the true and then of the
        predicted class:

        - ``true``, ``predicted``: class names.
        - ``count``: number of images of the true class that are predicted as the other class.
        - ``images``: number of images of the true class.
        - ``rate``: ``count / images``, 0 to 1.
        - ``low``, ``high``: 95% CI of the rate.
    """
    labels, predictions = recording.labels, recording.predictions
    size = len(recording.classes)
    wrong = labels != predictions
    cells, count = np.unique(labels[wrong] * size + predictions[wrong], return_counts=True)
    order = np.argsort(-count, kind="stable")
    count = count[order]
    true, predicted = np.divmod(cells[order], size)
    images = np.bincount(labels, minlength=size)[true]
    rate = count / images
    low, high = share_intervals(rate, images)
    names = np.array(recording.classes, dtype=object)
    return pd.DataFrame(
        {
            "true": names[true],
            "predicted": names[predicted],
            "count": count,
            "images": images,
            "rate": rate,
            "low": low,
            "high": high,
        }
    )


@statistic(
    "Difference of the confusion matrices of two networks.", takes=("recording", "recording")
)
def compare_confusion(a: Recording, b: Recording) -> pd.DataFrame:
    """Compare how often two networks predict each class for the images of each true class.

    Both networks see the same images, so the interval is that of paired shares (Bonett and Price
    2012, Journal of Educational and Behavioral Statistics 37), over the images of the true class.
    It says nothing about networks trained with other seeds. There is no test.

    Args:
        a: recording of the first network.
        b: recording of the second network.

    Returns:
        One row per pair of a true and a predicted class that occurs in either network, in the order
        of the true and then of the predicted class, correct predictions included:

        - ``true``, ``predicted``: class names.
        - ``images``: number of images of the true class.
        - ``count_a``, ``count_b``: number of them that each network predicts as this class.
        - ``rate_a``, ``rate_b``: ``count / images``, 0 to 1.
        - ``difference``: ``rate_b - rate_a``.
        - ``low``, ``high``: 95% CI of the difference.

    Raises:
        InputError: the recordings do not hold the same images.
    """
    expect_same_images(a, b)
    size, labels = len(a.classes), a.labels
    of_a, of_b = (labels * size + recording.predictions for recording in (a, b))
    cells, place = np.unique(np.concatenate([of_a, of_b]), return_inverse=True)
    count_a, count_b, both = (
        np.bincount(numbers, minlength=len(cells))
        for numbers in (
            place[: len(labels)],
            place[len(labels) :],
            place[: len(labels)][of_a == of_b],
        )
    )
    true, predicted = np.divmod(cells, size)
    images = np.bincount(labels, minlength=size)[true]
    difference, low, high = paired_share_changes(count_b - both, count_a - both, images)
    names = np.array(a.classes, dtype=object)
    return pd.DataFrame(
        {
            "true": names[true],
            "predicted": names[predicted],
            "images": images,
            "count_a": count_a,
            "count_b": count_b,
            "rate_a": count_a / images,
            "rate_b": count_b / images,
            "difference": difference,
            "low": low,
            "high": high,
        }
    )


def order_by_confusion(counts: NDArray[np.int64]) -> list[int]:
    """Order the classes so that classes that are often confused are neighbors.

    The similarity of two classes is the mean of the two rates of confusion, ``(n_ij / n_i + n_ji /
    n_j) / 2``. Average linkage (Sokal and Michener 1958, University of Kansas Science Bulletin 38)
    merges them into a tree, whose leaves are the order. Up to 300 classes the branches are turned
    so that neighbors are as similar as the tree allows (Bar-Joseph et al. 2001, Bioinformatics 17).

    Args:
        counts: images by true and predicted class, ``(K, K)``.

    Returns:
        All class numbers. Without errors, and for fewer than three classes: ascending.
    """
    from scipy.cluster import hierarchy  # imported here because few pages need it
    from scipy.spatial.distance import squareform

    size = len(counts)
    totals = counts.sum(1, keepdims=True)
    rates = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    np.fill_diagonal(rates, 0)
    if size < 3 or not rates.any():
        return list(range(size))
    distances = 1 - (rates + rates.T) / 2
    np.fill_diagonal(distances, 0)
    tree = hierarchy.linkage(
        squareform(distances, checks=False), "average", optimal_ordering=size <= _BEST_ORDER
    )
    return [int(k) for k in hierarchy.leaves_list(tree)]
