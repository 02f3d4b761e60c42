"""Two networks side by side on the same images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.kinds import PER_CHANNEL
from attnscope.recording.attributed import GRAD_CAM
from attnscope.recording.recording import Recording
from attnscope.statistics.agreement import SCORES, mean_scores, score_maps
from attnscope.statistics.inference import holm, mcnemar
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import order_test


@statistic(
    "Accuracies of two networks, and whether they differ (McNemar).",
    takes=("recording", "recording"),
)
def compare_accuracy(a: Recording, b: Recording) -> pd.DataFrame:
    """Accuracies of two networks on the same images, and whether they differ.

    The test is McNemar's (1947, Psychometrika 12) in its exact form. The null: of the images that
    one network alone gets right, each is as likely to be a's as b's; p is two-sided, from the
    binomial distribution, and 1 where there are none. p_holm is corrected over the classes that
    have images (Holm 1979, Scandinavian Journal of Statistics 6). The images are what is sampled: p
    says nothing of how another training of the same network would do.

    Returns:
        One row of ``all`` images, then one row a class: class, count, accuracy_a, accuracy_b (0 to
        1), difference (b minus a), only_a and only_b (images that this network alone gets right),
        p, p_holm. The row ``all`` is one test of its own: its p_holm is its p. A class without
        images has count 0 and NaN.

    Raises:
        InputError: the recordings are not of the same images.
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
    "How far each class's profile lies from the mean profile, in two networks.",
    takes=("recording", "recording"),
)
def compare_profiles(a: Recording, b: Recording) -> pd.DataFrame:
    """How far each class's profile lies from the mean profile, in the channel gates both have.

    A class's profile is the mean of each channel over the images of the class; the mean profile is
    the mean of the profiles, each class counting once. The distance is the root mean square of
    their difference over the channels. It is taken in each network by itself, so that channels of
    two networks are never matched by number, and their numbers of channels may differ. Sampling
    alone makes a distance positive, by about the standard error of the channel means.

    Returns:
        One row a gate, in the order of a, and class: gate, class, distance_a, distance_b, in units
        of the gates. NaN for a class without images.

    Raises:
        InputError: the recordings are not of the same images, or no channel gate has the same name
            in both.
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
    "How similarly two networks order the classes by those distances.",
    takes=("recording", "recording"),
)
def compare_class_order(a: Recording, b: Recording, seed: int = 0) -> pd.DataFrame:
    """How similarly two networks order the classes by the distances of ``compare_profiles``.

    Spearman's rho over the classes that have images. The null of p, two-sided: the order in b is
    unrelated to that in a, all orders being equally likely. All orders are counted up to seven
    classes; with more 9,999 are drawn.

    With classes of unlike sizes p says little: of gates that know nothing the classes with few
    images lie far out in both networks, since their means are the least certain.

    Args:
        a, b: recordings of the same images.
        seed: of the orders that are drawn.

    Returns:
        One row a gate: gate, spearman (-1 to 1), p. NaN with fewer than three classes, or where a
        network has all classes at one distance.

    Raises:
        InputError: as in ``compare_profiles``.
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
    "How alike the Grad-CAM of two networks is, image by image.", takes=("recording", "recording")
)
def compare_grad_cam(
    a: Recording,
    b: Recording,
    target: str = "predicted",
    seed: int = 0,
    attribution: str = GRAD_CAM,
) -> pd.DataFrame:
    """Grad-CAM of two networks after the ReLU, image by image at the coarser of their grids.

    Scores as in ``map_agreement``, of the last recorded layer of each. The null: b's Grad-CAM of
    another image, never the same, drawn by ``seed`` among the scored. With the target ``predicted``
    the two maps explain different classes where the networks disagree.

    Args:
        a: the first network.
        b: the second network.
        target: ``predicted`` or ``true``, the class that is explained.
        seed: of the other images.
        attribution: another method that was recorded of both, in the place of Grad-CAM; of the
            images of which it was.

    Returns:
        One row of ``all`` images, then one row a class: class, spearman, iou, null_spearman,
        null_iou (means over the scored images; NaN where there are none), scored (their number) and
        constant (that of the other images, which have a map that is constant, mostly zero after the
        ReLU).

    Raises:
        InputError: the recordings are not of the same images, one has no Grad-CAM (or other
            attribution), the attributions are not of the same images, or the target is not known.
    """
    expect_same_images(a, b)
    map_a, map_b = (
        np.maximum(recording.attribution(attribution, target=target), 0) for recording in (a, b)
    )
    rows = a.attributed_rows(attribution)
    if not np.array_equal(rows, b.attributed_rows(attribution)):
        raise InputError(
            f"{a.folder} and {b.folder} hold {attribution} of other images; capture both with the "
            "same --attribution-images"
        )
    labels = a.labels[rows]
    scores = score_maps(map_a, map_b, labels, seed)
    return mean_scores(scores, labels, a.classes)[["class", *SCORES, "scored", "constant"]]


def _profile_distances(recording: Recording, gate: str) -> NDArray[np.float64]:
    values = recording.channel(gate)
    profiles = class_moments(values, recording.labels, len(recording.classes)).mean
    known = ~np.isnan(profiles[:, 0])
    distances = np.full(len(profiles), np.nan)
    offset = profiles[known] - profiles[known].mean(0)
    distances[known] = np.sqrt((offset**2).mean(1))
    return distances


def shared_channel_gates(a: Recording, b: Recording) -> list[str]:
    """Names of the channel gates that both networks have, in the order of the first.

    Raises:
        InputError: there is none.
    """
    names_b = {gate.name for gate in b.gates_with(PER_CHANNEL)}
    shared = [gate.name for gate in a.gates_with(PER_CHANNEL) if gate.name in names_b]
    if not shared:
        raise InputError(
            f"{a.folder} and {b.folder} have no channel gate of the same name; "
            "compare networks whose attention stands at the same places"
        )
    return shared


def expect_same_images(a: Recording, b: Recording) -> None:
    """Refuses recordings of two networks that are not of the same images in the same order.

    Raises:
        InputError: classes, number, paths or labels differ.
    """
    pair = f"{a.folder} and {b.folder} are not of the same images"
    remedy = "capture both networks on the same part of the same data"
    if a.classes != b.classes:
        raise InputError(f"{pair}: their classes differ; {remedy}")
    if len(a) != len(b):
        raise InputError(f"{pair}: {len(a)} against {len(b)}; {remedy}")
    for column in ("path", "label"):
        differ = (a.rows[column] != b.rows[column]).to_numpy()
        if differ.any():
            row = int(differ.argmax())
            values = f"{a.rows[column][row]} against {b.rows[column][row]}"
            raise InputError(f"{pair}: in row {row} the {column} is {values}; {remedy}")
