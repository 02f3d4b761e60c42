"""Maps of spatial gates and of Grad-CAM, and the agreement between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

from attnscope.errors import InputError
from attnscope.kinds import MAP, Gate
from attnscope.recording.attributed import GRAD_CAM
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.agreement import (
    CONTROLS,
    INTERVALS,
    SCORES,
    intervals_of_scores,
    mean_scores,
    score_maps,
)
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.registry import statistic
from attnscope.statistics.splits import expect_positive


@statistic(
    "Mean map of a gate over the images of each class.", takes=("recording", "gate"), trait=MAP
)
def class_mean_maps(
    recording: Recording | Moments, gate: str
) -> Float64[Array, "classes height width"]:
    """Average the maps of a gate over the images of each class.

    Args:
        recording: recording or moments of one network.
        gate: name of a spatial gate, or of a gate that has a map by a mean (`Gate.view`).

    Returns:
        One map per class in the order of ``recording.classes``, in units of the gate; NaN for a
        class without images.

    Raises:
        InputError: the gate does not exist or has no map.
    """
    if isinstance(recording, Moments):
        return recording.mean_map(gate)
    maps = recording.spatial(gate)
    return class_moments(maps, recording.labels, len(recording.classes)).mean


@statistic("Mean Grad-CAM over the images of each class.")
def class_mean_grad_cam(
    recording: Recording | Moments, target: str = "predicted"
) -> Float64[Array, "classes height width"]:
    """Average Grad-CAM over the images of each class.

    The map is that of the last recorded layer, after the ReLU (Selvaraju et al. 2017, ICCV). It has
    the unit of the logit and no bounds, and it is not normalized here: an image with a large
    gradient has a large weight in the mean.

    Args:
        recording: recording or moments of one network.
        target: class whose logit Grad-CAM explains, ``predicted`` or ``true``. The mean is over the
            images of one true class in both cases.

    Returns:
        One map per class in the order of ``recording.classes``; NaN for a class without images.

    Raises:
        InputError: the recording has no Grad-CAM, or the target is unknown.
    """
    if isinstance(recording, Moments):
        return recording.mean_grad_cam(target=target)
    maps = np.maximum(recording.grad_cam(target=target), 0)
    return class_moments(maps, recording.labels, len(recording.classes)).mean


def comparable_gates(recording: Recording, attribution: str = GRAD_CAM) -> list[Gate]:
    """Return the gates whose maps lie on the positions of the maps of an attribution.

    Left out are the maps of gates that vary along frames or slices alone, and of sequences, unless
    the attribution is one of a sequence: its maps have one row.

    Args:
        recording: recording of one network.
        attribution: an attribution method; without it, as for Grad-CAM of images.
    """
    rows = 0
    if attribution == GRAD_CAM and recording.grad_cam_layers:
        rows = recording.grad_cam(rows=slice(0, 0)).shape[1]
    elif attribution in recording.attribution_methods:
        rows = recording.attribution(attribution).shape[1]
    return [gate for gate in recording.gates_with(MAP) if _is_comparable(gate, rows)]


def _is_comparable(gate: Gate, rows: int) -> bool:
    view = gate.view(MAP)
    letters = set("HW" if view is None else "".join(view.into))
    return letters <= {"H", "W"} or (letters == {"L"} and rows == 1)


@statistic(
    "Agreement between a spatial gate and Grad-CAM, image by image.",
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
    """Compare a spatial gate with Grad-CAM, image by image.

    Grad-CAM is compared after its ReLU. Both maps are averaged to the coarser of the two grids, as
    in adaptive average pooling. The scores are Spearman's rho over the pixels, where tied pixels
    share their mean rank, and the intersection over union (IoU) of the top 20% of the pixels of
    each map, rounded, and at least one. Pixels that tie for the last places share them; the
    intersection of such shares is their minimum, and the union their maximum.

    Null hypothesis: the gate agrees with the Grad-CAM of its own image no better than with that of
    another image, drawn among the scored ones. This null includes everything that all images share,
    such as a preference of the network for the center. Two more controls explain an agreement: the
    Grad-CAM of another image of the same true class also includes what the images of a class share,
    and a Gaussian at the center of the grid, with a standard deviation of a quarter of each side,
    measures the preference of the gate for the center.

    Args:
        recording: recording of one network.
        gate: name of a spatial gate, or of a gate that has a map by a mean (`Gate.view`).
        target: class that the attribution explains, ``predicted`` or ``true``.
        seed: seed of the pairing of images in the controls.
        attribution: attribution method to use instead of Grad-CAM. Only the images for which it was
            recorded are compared (`Recording.attributed_rows`).

    Returns:
        One row per image:

        - ``row``: row in the recording.
        - ``class``: true class.
        - ``spearman``: -1 to 1.
        - ``iou``: 0 to 1.
        - ``null_spearman``, ``null_iou``: scores against the Grad-CAM of another image.
        - ``same_class_spearman``, ``same_class_iou``: scores against the Grad-CAM of another image
          of the same class.
        - ``center_spearman``, ``center_iou``: scores of the gate against the Gaussian.
        - ``scored``: False where a map is constant on the coarser grid, as Grad-CAM is where the
          ReLU sets all of it to zero. Such a map has no ranks, and all scores of the image are NaN.

        Also NaN are the null scores if only one image is scored, the same-class scores of the only
        scored image of a class, and the center scores on a grid with at most two cells per side,
        which has no center.

    Raises:
        InputError: the gate does not exist, has no map or has a map of other positions
            (`comparable_gates`), the attribution was not recorded, or the target is unknown.
    """
    explained = np.maximum(recording.attribution(attribution, target=target), 0)
    rows = recording.attributed_rows(attribution)
    if recording.info(gate).offers(MAP) and not _is_comparable(
        recording.info(gate), explained.shape[1]
    ):
        raise InputError(
            "AS714",
            f"gate '{gate}' varies along a sequence or along frames, and {attribution} has "
            f"{explained.shape[1]}×{explained.shape[2]} positions; choose a gate that varies along "
            "rows or columns of the image",
        )
    maps, labels = recording.spatial(gate), recording.labels
    if attribution != GRAD_CAM:  # Grad-CAM has all rows, and a copy would double the memory
        maps, labels = maps[rows], labels[rows]
    frame = score_maps(maps, explained, labels, seed)
    frame.insert(0, "row", rows)
    frame.insert(1, "class", np.array(recording.classes)[labels])
    return frame


@statistic("Mean agreement between spatial gates and Grad-CAM, with intervals.")
def agreement_summary(
    recording: Recording,
    target: str = "predicted",
    seed: int = 0,
    resamples: int = 1000,
    attribution: str = GRAD_CAM,
    class_intervals: bool = True,
    gates: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Average `map_agreement` over images, for every gate that has a map, with intervals.

    The intervals are 95% percentile bootstrap intervals over the images of the row (Efron 1979,
    Annals of Statistics 7). They are conditional on the trained network. Null hypothesis of
    ``above_null``: its mean is 0.

    Args:
        recording: recording of one network.
        target: class that the attribution explains, ``predicted`` or ``true``.
        seed: seed of the pairing of images in the controls, and of the resamples.
        resamples: number of bootstrap resamples.
        attribution: attribution method to use instead of Grad-CAM, as in `map_agreement`.
        class_intervals: whether the rows of the classes have intervals, which are NaN otherwise.
            Their time grows with the number of classes.
        gates: names of the gates that are scored. Default: all of `comparable_gates`.

    Returns:
        For each of the gates, in network order, one row for ``all`` images and one row per class.
        The table has no rows if there are none.

        - ``gate``
        - ``depth``: position of the gate in the network, from 1.
        - ``class``: ``all`` or the class name.
        - ``spearman``, ``iou``, ``null_spearman``, ``null_iou``, ``same_class_spearman``,
          ``same_class_iou``, ``center_spearman``, ``center_iou``: means over the scored images, NaN
          if there are none. The same-class means are over the images whose class has another scored
          image.
        - ``spearman_low``, ``spearman_high``, ``iou_low``, ``iou_high``: 95% CIs.
        - ``above_null``, ``above_null_low``, ``above_null_high``: mean over the images of
          ``spearman - null_spearman``, with its 95% CI; NaN if only one image is scored. All ends
          of intervals are NaN with fewer than two scored images.
        - ``scored``, ``constant``: number of images that are scored, and that are not because a map
          is constant.

    Raises:
        InputError: the attribution was not recorded, the target is unknown, resamples is below 1,
            or one of ``gates`` does not exist or cannot be scored.
    """
    expect_positive("resamples", resamples, 1000)
    classes = recording.classes
    if gates is None:
        scored = comparable_gates(recording, attribution)
    else:
        scored = [recording.info(name) for name in gates]
    if attribution not in recording.attribution_methods:
        scored = recording.gates_with(MAP)  # the first one raises the error
    places = [(place, gate) for place, gate in enumerate(recording.gates, 1) if gate in scored]
    scores = [map_agreement(recording, gate.name, target, seed, attribution) for _, gate in places]
    labels = recording.labels[scores[0]["row"]] if scores else recording.labels
    intervals = intervals_of_scores(
        scores, labels, len(classes), resamples, seed, of_classes=class_intervals
    )
    frames = [
        mean_scores(each, labels, classes).join(ends).assign(gate=gate.name, depth=depth)
        for (depth, gate), each, ends in zip(places, scores, intervals, strict=True)
    ]
    columns = ["gate", "depth", "class", *SCORES, *CONTROLS, *INTERVALS, "scored", "constant"]
    return (
        pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    )
