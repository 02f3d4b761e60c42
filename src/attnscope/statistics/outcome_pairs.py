"""The outcomes of edits image by image, and what two edits of the same images differ in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy.typing import NDArray

from attnscope.shapes import Array
from attnscope.statistics.inference import mcnemar, paired_accuracy_change, paired_t
from attnscope.statistics.paired import (
    FEWEST_MOVED,
    Sharing,
    accuracy_interval,
    find_sharing,
    mean_interval,
    moved,
    shared_t,
    sign_flip,
)
from attnscope.statistics.resampling import bootstrap_interval


@dataclass(frozen=True)
class ImageOutcomes:
    """The outcomes of one edit, with one entry for each image."""

    rows: NDArray[np.int64]
    """``(N,)``, rows of the recording."""
    right: NDArray[np.bool_] | NDArray[np.float64]
    """``(N,)``, whether the image is correct; the share of its donors if an image has several."""
    log_loss: NDArray[np.float64]
    """``(N,)``, in nats."""
    counts: NDArray[np.int64]
    """``(N,)``, number of donors."""
    donors: NDArray[np.int64]
    """``(2, R)``, the row and the donor of each outcome that has a donor."""

    @classmethod
    def of(cls, outcomes: pd.DataFrame) -> ImageOutcomes:
        """Take the mean over the donors of each image, in the order of the images."""
        rows, right = outcomes["row"].to_numpy(), is_right(outcomes)
        log_loss = outcomes["log_loss"].to_numpy(np.float64)
        donors = np.empty((2, 0), np.int64)
        if "donor" in outcomes:
            donor = outcomes["donor"].to_numpy(np.int64)
            donors = np.stack([rows, donor])[:, donor >= 0]
        if not outcomes["row"].duplicated().any():
            return cls(rows, right, log_loss, np.ones(len(rows), np.int64), donors)
        images, first, place, counts = np.unique(
            rows, return_index=True, return_inverse=True, return_counts=True
        )
        order = np.argsort(first)
        means = [
            (np.bincount(place, np.asarray(values, np.float64)) / counts)[order]
            for values in (right, log_loss)
        ]
        return cls(images[order], means[0], means[1], counts[order], donors)

    def take(self, rows: NDArray[np.int64]) -> ImageOutcomes:
        """Return some of the images."""
        places = pd.Index(self.rows).get_indexer(pd.Index(rows))
        donors = self.donors[:, np.isin(self.donors[0], rows)]
        return ImageOutcomes(
            rows, self.right[places], self.log_loss[places], self.counts[places], donors
        )


def paired_images(first: pd.DataFrame, second: pd.DataFrame) -> tuple[ImageOutcomes, ImageOutcomes]:
    """Return the outcomes of two edits on the images that have both, in one order."""
    a, b = ImageOutcomes.of(first), ImageOutcomes.of(second)
    shared = pd.Index(a.rows).intersection(pd.Index(b.rows)).to_numpy()
    return a.take(shared), b.take(shared)


def accuracy_difference(before: ImageOutcomes, after: ImageOutcomes) -> Float64[Array, " images"]:
    """Return the difference in accuracy of each image, -1 to 1, ``(N,)``."""
    found: NDArray[np.float64] = after.right.astype(np.float64) - before.right.astype(np.float64)
    return found


def log_loss_difference(before: ImageOutcomes, after: ImageOutcomes) -> Float64[Array, " images"]:
    """Return the difference in log loss of each image, ``(N,)``; positive if it is worse after."""
    return after.log_loss - before.log_loss


def sharing_of(before: ImageOutcomes, after: ImageOutcomes) -> Sharing | None:
    """Return which images share a donor in either edit; None if none do."""
    rows, donors = np.concatenate([before.donors, after.donors], axis=1)
    if not len(rows):
        return None
    place = pd.Index(before.rows).get_indexer(pd.Index(rows))
    return find_sharing(place, donors, len(before.rows))


def paired_changes(
    before: ImageOutcomes, after: ImageOutcomes, resamples: int, seed: int
) -> dict[str, float]:
    """Return the changes in accuracy and log loss of the same images, with their intervals."""
    difference, shift = accuracy_difference(before, after), log_loss_difference(before, after)
    sharing = sharing_of(before, after)
    if sharing is None and before.right.dtype == after.right.dtype == bool:
        change, low, high = paired_accuracy_change(before.right, after.right)
    else:
        change, low, high = float(difference.mean()), np.nan, np.nan
        if sharing is None or sharing.is_enough:
            inflation = 1.0 if sharing is None else sharing.inflation(difference)
            low, high = accuracy_interval(difference, inflation)
    if sharing is None:
        ends = bootstrap_interval(shift[:, None], resamples, seed)
        log_loss_low, log_loss_high = ends[0][0], ends[1][0]
    else:
        log_loss_low, log_loss_high = mean_interval(shift, sharing)
    return {
        "change": change,
        "low": low,
        "high": high,
        "log_loss_change": float(shift.mean()),
        "log_loss_low": log_loss_low,
        "log_loss_high": log_loss_high,
    }


def paired_tests(before: ImageOutcomes, after: ImageOutcomes) -> dict[str, float]:
    """Return p of the accuracy and of the log loss."""
    sharing, shift = sharing_of(before, after), log_loss_difference(before, after)
    if before.right.dtype == after.right.dtype == bool:
        p = mcnemar(before.right, after.right)
    else:
        steps = np.lcm.reduce(np.unique(np.concatenate([before.counts, after.counts])))
        p = sign_flip(np.rint(steps * accuracy_difference(before, after)).astype(np.int64))
    if sharing is None:
        p_log_loss = paired_t(before.log_loss, after.log_loss)
    else:
        p = float(np.maximum(p, shared_t(accuracy_difference(before, after), sharing)))
        p_log_loss = shared_t(shift, sharing)
    if 0 < moved(shift) < FEWEST_MOVED:
        p_log_loss = np.nan
    return {"p": p, "p_log_loss": p_log_loss}


def is_right(outcomes: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether each outcome is correct, ``(R,)``."""
    right: NDArray[np.bool_] = (outcomes["prediction"] == outcomes["label"]).to_numpy()
    return right
