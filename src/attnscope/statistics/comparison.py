"""Comparisons of two networks on the same images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.kinds import PER_CHANNEL
from attnscope.recording.attributed import GRAD_CAM
from attnscope.recording.recording import Recording
from attnscope.statistics.agreement import SCORES, mean_scores, score_intervals, score_maps
from attnscope.statistics.inference import holm, mcnemar
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import order_test
from attnscope.statistics.splits import expect_positive


@statistic(
    "Accuracies of two networks, with McNemar tests of their difference.",
    takes=("recording", "recording"),
)
def compare_accuracy(a: Recording, b: Recording) -> pd.DataFrame:
    """Compare the accuracies of two networks on the same images.

    The test is the exact McNemar test (McNemar 1947, Psychometrika 12). Null hypothesis: an image
    that exactly one network classifies correctly is equally likely to be either network's. p is
    two-sided, from the binomial distribution, and 1 if there is no such image. ``p_holm`` is
    corrected over the classes that have images (Holm 1979, Scandinavian Journal of Statistics 6).
    The sampling unit is the image: p says nothing about networks trained with other seeds.

    Args:
        a: recording of the first network.
        b: recording of the second network.

    Returns:
        One row for ``all`` images, then one row per class:

        - ``class``: ``all`` or the class name.
        - ``count``: number of images.
        - ``accuracy_a``, ``accuracy_b``: accuracies, 0 to 1.
        - ``difference``: ``accuracy_b - accuracy_a``.
        - ``only_a``, ``only_b``: images that only this network classifies correctly.
        - ``p``, ``p_holm``: the row ``all`` is a test of its own, and its ``p_holm`` equals its
          ``p``.

        For a class without images count is 0 and accuracies, difference and p are NaN.

    Raises:
        InputError: the recordings do not hold the same images.
    """
    expect_same_images(a, b)
    right_a, right_b = a.right, b.right
    members = [np.ones(len(a), bool), *(a.labels == k for k in range(len(a.classes)))]
    rows = []
    for name, inside in zip(["all", *a.classes], members, strict=True):
        count = int(inside.sum())
        only_a = int((inside & right_a & ~right_b).sum())
        only_b = int((inside & right_b & ~right_a).sum())
        accuracy_a = (inside & right_a).sum() / count if count else np.nan
        accuracy_b = (inside & right_b).sum() / count if count else np.nan
        rows.append(
            {
                "class": name,
                "count": count,
                "accuracy_a": accuracy_a,
                "accuracy_b": accuracy_b,
                "difference": accuracy_b - accuracy_a,
                "only_a": only_a,
                "only_b": only_b,
                "p": mcnemar(right_a[inside], right_b[inside]) if count else np.nan,
            }
        )
    frame = pd.DataFrame(rows)
    p = frame["p"].to_numpy()
    frame["p_holm"] = np.concatenate([p[:1], holm(p[1:])])
    return frame


@statistic(
    "Distance of each class profile from the mean profile, in two networks.",
    takes=("recording", "recording"),
)
def compare_profiles(a: Recording, b: Recording) -> pd.DataFrame:
    """Measure how far the profile of each class lies from the mean profile, in two networks.

    The profile of a class is the mean of each channel over the images of the class. The mean
    profile is the unweighted mean of the class profiles. The distance is the root mean square of
    their difference over the channels. Each network is measured by itself: channels of two networks
    are never matched by number, and the networks may have different numbers of channels. Sampling
    noise alone makes a distance positive, by about the standard error of the channel means.

    Args:
        a: recording of the first network.
        b: recording of the second network.

    Returns:
        One row per channel gate that both networks have, in the order of a, and class:

        - ``gate``, ``class``
        - ``distance_a``, ``distance_b``: distances in units of the gate; NaN for a class without
          images.

    Raises:
        InputError: the recordings do not hold the same images, or no channel gate has the same name
            in both networks.
    """
    expect_same_images(a, b)
    shared = shared_channel_gates(a, b)
    frames = [
        pd.DataFrame(
            {
                "gate": name,
                "class": a.classes,
                "distance_a": _profile_distances(a, name),
                "distance_b": _profile_distances(b, name),
            }
        )
        for name in shared
    ]
    return pd.concat(frames, ignore_index=True)


@statistic(
    "Whether the distances of `compare_profiles` order the classes similarly in two networks.",
    takes=("recording", "recording"),
)
def compare_class_order(a: Recording, b: Recording, seed: int = 0) -> pd.DataFrame:
    """Test whether the distances of `compare_profiles` order the classes alike in two networks.

    The statistic is Spearman's rho over the classes that have images. Null hypothesis: the order in
    b is independent of the order in a, so that all orders are equally likely. p is two-sided. All
    orders are enumerated for up to seven classes; 9,999 random orders are drawn for more.

    With classes of unequal sizes p is hard to interpret: the means of small classes are noisy, so
    that small classes lie far from the mean profile in both networks even if the gates hold no
    class information.

    Args:
        a: recording of the first network.
        b: recording of the second network.
        seed: seed of the random orders.

    Returns:
        One row per channel gate that both networks have:

        - ``gate``
        - ``spearman``: -1 to 1.
        - ``p``

        Both numbers are NaN with fewer than three classes, or if all distances of a network are
        equal.

    Raises:
        InputError: the recordings do not hold the same images, or no channel gate has the same name
            in both networks.
    """
    rows = []
    for name, distances in compare_profiles(a, b).groupby("gate", sort=False):
        of_gate = distances.dropna()
        rho, p = order_test(
            of_gate["distance_a"].to_numpy(), of_gate["distance_b"].to_numpy(), seed
        )
        rows.append({"gate": name, "spearman": rho, "p": p})
    return pd.DataFrame(rows)


@statistic(
    "Agreement between the Grad-CAM of two networks, image by image.",
    takes=("recording", "recording"),
)
def compare_grad_cam(
    a: Recording,
    b: Recording,
    target: str = "predicted",
    seed: int = 0,
    attribution: str = GRAD_CAM,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Compare the Grad-CAM of two networks, image by image.

    The maps are compared after the ReLU, on the coarser of the two grids, with the scores of
    `map_agreement`. Each network's map is that of its last recorded layer. Null hypothesis: the
    agreement equals that of a's map with b's map of another image (``null_spearman``,
    ``null_iou``). With the target ``predicted``, the two maps explain different classes where the
    networks disagree.

    Args:
        a: recording of the first network.
        b: recording of the second network.
        target: class that the map explains, ``predicted`` or ``true``.
        seed: seed of the pairing of images in the null.
        attribution: attribution method to compare instead of Grad-CAM. It must be recorded for the
            same images in both recordings.
        resamples: number of bootstrap resamples.

    Returns:
        One row for ``all`` images, then one row per class:

        - ``class``: ``all`` or the class name.
        - ``spearman``, ``iou``, ``null_spearman``, ``null_iou``: means over the scored images, NaN
          if there are none.
        - ``spearman_low``, ``spearman_high``, ``iou_low``, ``iou_high``: ends of their 95%
          percentile bootstrap intervals over images (Efron 1979, Annals of Statistics 7); NaN with
          fewer than two scored images.
        - ``above_null``, ``above_null_low``, ``above_null_high``: mean of ``spearman -
          null_spearman`` with its 95% CI.
        - ``scored``: number of scored images.
        - ``constant``: number of images that are not scored because a map is constant (usually all
          zero after the ReLU).

    Raises:
        InputError: the recordings do not hold the same images, a recording lacks the attribution,
            the attributions are of different images, the target is unknown, or resamples is below
            1.
    """
    expect_positive("resamples", resamples, 1000)
    expect_same_images(a, b)
    map_a, map_b = (
        np.maximum(recording.attribution(attribution, target=target), 0) for recording in (a, b)
    )
    rows = a.attributed_rows(attribution)
    if not np.array_equal(rows, b.attributed_rows(attribution)):
        raise InputError(
            "AS724",
            f"{a.folder} and {b.folder} have {attribution} of different images; capture both with "
            "the same --attribution-images",
        )
    labels = a.labels[rows]
    scores = score_maps(map_a, map_b, labels, seed)
    means = mean_scores(scores, labels, a.classes)[["class", *SCORES, "scored", "constant"]]
    intervals = score_intervals(scores, labels, len(a.classes), resamples, seed)
    return pd.concat([means, intervals], axis=1)


def _profile_distances(recording: Recording, gate: str) -> NDArray[np.float64]:
    values = recording.channel(gate)
    profiles = class_moments(values, recording.labels, len(recording.classes)).mean
    known = ~np.isnan(profiles[:, 0])
    distances = np.full(len(profiles), np.nan)
    offset = profiles[known] - profiles[known].mean(0)
    distances[known] = np.sqrt((offset**2).mean(1))
    return distances


def shared_channel_gates(a: Recording, b: Recording) -> list[str]:
    """Return the names of the channel gates that both networks have, in the order of the first.

    Raises:
        InputError: there are none.
    """
    names_b = {gate.name for gate in b.gates_with(PER_CHANNEL)}
    shared = [gate.name for gate in a.gates_with(PER_CHANNEL) if gate.name in names_b]
    if not shared:
        raise InputError(
            "AS725",
            f"{a.folder} and {b.folder} have no channel gate with the same name; compare networks "
            "with attention modules in the same places",
        )
    return shared


def expect_same_images(a: Recording, b: Recording) -> None:
    """Raise an error unless two recordings hold the same images in the same order.

    Raises:
        InputError: classes, numbers of images, paths or labels differ.
    """
    pair = f"{a.folder} and {b.folder} do not hold the same images"
    remedy = "capture both networks on the same split of the same data"
    if a.classes != b.classes:
        odd = sorted(set(a.classes) ^ set(b.classes))
        what = f"only one has the class '{odd[0]}'" if odd else "the order of the classes differs"
        raise InputError("AS720", f"{pair}: {what}; {remedy}")
    if len(a) != len(b):
        raise InputError("AS721", f"{pair}: they hold {len(a)} and {len(b)} images; {remedy}")
    for column, code in (("path", "AS722"), ("label", "AS723")):
        differ = (a.rows[column] != b.rows[column]).to_numpy()
        if differ.any():
            row = int(differ.argmax())
            values = f"{a.rows[column][row]} and {b.rows[column][row]}"
            raise InputError(code, f"{pair}: the {column}s in row {row} are {values}; {remedy}")
