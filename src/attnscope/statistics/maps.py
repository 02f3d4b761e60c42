"""Where the spatial gates and Grad-CAM look, and whether they look at the same place."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.kinds import MAP
from attnscope.recording.attributed import GRAD_CAM
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from attnscope.statistics.agreement import (
    CONTROLS,
    INTERVALS,
    SCORES,
    mean_scores,
    score_intervals,
    score_maps,
)
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import expect_positive


@statistic(
    "The mean map of a gate over the images of each class.", takes=("recording", "gate"), trait=MAP
)
def class_mean_maps(recording: Recording | Moments, gate: str) -> NDArray[np.float64]:
    """The mean map of a spatial gate over the images of each class.

    Returns:
        ``(classes, H, W)`` in units of the gate; NaN for a class without images.

    Raises:
        InputError: there is no such gate, or it is no spatial gate.
    """
    if isinstance(recording, Moments):
        return recording.mean_map(gate)
    maps = recording.spatial(gate)
    return class_moments(maps, recording.labels, len(recording.classes)).mean


@statistic("The mean Grad-CAM over the images of each class.")
def class_mean_grad_cam(
    recording: Recording | Moments, target: str = "predicted"
) -> NDArray[np.float64]:
    """The mean Grad-CAM of the last recorded layer after the ReLU, over the images of each class.

    Args:
        recording: what to read.
        target: ``predicted`` or ``true``, the class whose logit Grad-CAM explains. The mean is
            over the images of one true class either way.

    Returns:
        ``(classes, h, w)``; NaN for a class without images. Grad-CAM has the unit of the logit and
        no bounds, and is not scaled here: an image with a steep logit weighs more.

    Raises:
        InputError: no Grad-CAM was recorded, or the target is not known.
    """
    if isinstance(recording, Moments):
        return recording.mean_grad_cam(target=target)
    maps = np.maximum(recording.grad_cam(target=target), 0)
    return class_moments(maps, recording.labels, len(recording.classes)).mean


@statistic(
    "Whether a gate and Grad-CAM look at the same place, image by image.",
    takes=("recording", "gate"),
    trait=MAP,
)
def map_agreement(
    recording: Recording,
    gate: str,
    target: str = "predicted",
    seed: int = 0,
    attribution: str = GRAD_CAM,
) -> pd.DataFrame:
    """A spatial gate against Grad-CAM after its ReLU, image by image, at the coarser grid.

    Both are brought to the coarser grid by means over areas, as in adaptive average pooling.
    Spearman's rho is over the pixels, ties sharing their mean rank. iou is the intersection over
    union of the top 20 % of the pixels of each (rounded, at least one); pixels that tie for the
    last places share them, and shares overlap by their minimum and unite by their maximum.

    The null: the Grad-CAM of another image, never the same, drawn by ``seed`` among the scored. It
    keeps what all images share, such as a network's liking for the center. Two maps that agree no
    better than that say nothing of the image. Two more say what such an agreement may be: the
    Grad-CAM of another image of the same true class keeps also what a class shares, and a Gaussian
    in the middle of the grid, its standard deviation a quarter of each side, is "the center", with
    which the gate alone is compared.

    Args:
        recording: what to read.
        gate: one with a map.
        target: ``predicted`` or ``true``, the class that the attribution explains.
        seed: of the other images.
        attribution: another method that was recorded, in the place of Grad-CAM; of the images of
            which it was (`Recording.attributed_rows`).

    Returns:
        One row an image: row, class (the true one), spearman (-1 to 1), iou (0 to 1),
        null_spearman, null_iou, same_class_spearman, same_class_iou, center_spearman, center_iou,
        scored. An image whose map is constant at the coarser grid, or whose Grad-CAM is (mostly:
        all zero after the ReLU), has no ranks: scored is False, the scores are NaN. NaN are also
        the null of one scored image alone, the same_class scores of the only scored image of its
        class, and the center scores on a grid of at most two cells a side, which has no center.

    Raises:
        InputError: there is no such spatial gate, no Grad-CAM (or other attribution) was recorded,
            or the target is not known.
    """
    explained = np.maximum(recording.attribution(attribution, target=target), 0)
    rows = recording.attributed_rows(attribution)
    maps, labels = recording.spatial(gate), recording.labels
    if attribution != GRAD_CAM:  # of Grad-CAM they are all, and a copy would double the memory
        maps, labels = maps[rows], labels[rows]
    frame = score_maps(maps, explained, labels, seed)
    frame.insert(0, "row", rows)
    frame.insert(1, "class", np.array(recording.classes)[labels])
    return frame


@statistic("Whether gates and Grad-CAM look at the same place, with intervals.")
def agreement_summary(
    recording: Recording,
    target: str = "predicted",
    seed: int = 0,
    resamples: int = 1000,
    attribution: str = GRAD_CAM,
) -> pd.DataFrame:
    """Means of ``map_agreement`` over the scored images, for every spatial gate, with intervals.

    The intervals are the 95 % percentile bootstrap's over images (Efron 1979, Annals of Statistics
    7), within the row's images, and of this network: another training is another matter.

    Args:
        recording: what to read.
        target: ``predicted`` or ``true``, the class whose logit Grad-CAM explains.
        seed: of the other images, and of the resamples.
        resamples: of the images.
        attribution: of `map_agreement`.

    Returns:
        For each gate one row of ``all`` images and then one row a class: gate, depth, class; the
        means spearman, iou, null_spearman, null_iou, same_class_spearman, same_class_iou,
        center_spearman, center_iou (NaN where no image is scored; the same_class means over images
        whose class has another scored one); spearman_low, spearman_high, iou_low, iou_high;
        above_null, the mean of spearman - null_spearman image by image, with above_null_low and
        above_null_high (NaN for one scored image); scored and constant (numbers of images that are
        scored, and that are not). A network without spatial gates gives no row.

    Raises:
        InputError: no Grad-CAM was recorded, the target is not known, or resamples is below 1.
    """
    expect_positive("resamples", resamples, 1000)
    classes = recording.classes
    frames = []
    for depth, gate in enumerate(recording.gates, start=1):
        if not gate.has(MAP):
            continue
        scores = map_agreement(recording, gate.name, target, seed, attribution)
        labels = recording.labels[scores["row"]]
        frame = mean_scores(scores, labels, classes)
        frame = frame.join(score_intervals(scores, labels, len(classes), resamples, seed))
        frames.append(frame.assign(gate=gate.name, depth=depth))
    columns = ["gate", "depth", "class", *SCORES, *CONTROLS, *INTERVALS, "scored", "constant"]
    return (
        pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    )
