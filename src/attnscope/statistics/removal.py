"""What happens to accuracy and to each class if a part of a network is replaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64
from scipy import special

from attnscope.shapes import Array
from attnscope.statistics.inference import paired_accuracy_change


@dataclass(frozen=True)
class Removal:
    """The predictions for the same images before and after an edit."""

    images: int
    accuracy: float
    """Accuracy before the edit, 0 to 1."""
    change: float
    """Change in accuracy, -1 to 1."""
    low: float
    """Lower end of the 95% CI of the change."""
    high: float
    """Upper end of the 95% CI of the change."""
    changed: int
    """Number of images whose predicted class changes."""
    classes: pd.DataFrame
    """One row per class, in the order of their numbers:

    - ``class``: number of the class.
    - ``images``: number of images of the class.
    - ``before``, ``after``: number of these that are predicted correctly.
    - ``probability``: change in the probability of the class, averaged over the images of the
      class; NaN without images.
    - ``elsewhere``: the same, averaged over the images of all other classes; NaN without these.
    """


def removal_effect(
    before: Float32[Array, "images classes"],
    after: Float32[Array, "images classes"],
    labels: Int64[Array, " images"],
) -> Removal:
    """Compare the predictions before and after an edit.

    The interval is Bonett and Price's (`paired_accuracy_change`).

    Args:
        before: logits of the unedited network, ``(n, K)``.
        after: logits of the edited network for the same images, ``(n, K)``.
        labels: class of each image, ``(n,)``.

    Returns:
        Accuracy and its change, and one row per class.
    """
    classes = before.shape[1]
    first, second = before.argmax(1), after.argmax(1)
    was, is_ = first == labels, second == labels
    change, low, high = paired_accuracy_change(was, is_)
    moved = special.softmax(after.astype(np.float64), 1) - special.softmax(
        before.astype(np.float64), 1
    )
    count = np.bincount(labels, minlength=classes)
    own = np.bincount(labels, moved[np.arange(len(labels)), labels], classes)
    others = len(labels) - count
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN without images
        inside, outside = own / count, (moved.sum(0) - own) / others
    return Removal(
        len(labels),
        float(was.mean()) if len(labels) else np.nan,
        change,
        low,
        high,
        int((first != second).sum()),
        pd.DataFrame(
            {
                "class": np.arange(classes),
                "images": count,
                "before": np.bincount(labels[was], minlength=classes),
                "after": np.bincount(labels[is_], minlength=classes),
                "probability": inside,
                "elsewhere": outside,
            }
        ),
    )
