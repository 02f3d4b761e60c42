"""Comparison of two configurations over several seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.inference import holm, paired_interval, within
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import bootstrap_interval


@statistic("Accuracies of two configurations over seeds.", takes=("recordings", "recordings"))
def compare_seeds(
    a: Sequence[Recording], b: Sequence[Recording], resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare the accuracies of two configurations over seeds, class by class.

    Recordings are paired in order: the first of ``a`` with the first of ``b``, which have the same
    seed and so the same splits and order of images. The sampling unit is the seed: the interval is
    Student's t interval (95%) over the differences of the pairs, and p is that of the two-sided
    paired t test. Null hypothesis: the mean difference is 0. There is no bootstrap over seeds,
    because it is unreliable with fewer than ten seeds. ``image_low`` and ``image_high`` are a 95%
    percentile bootstrap over images (Efron 1979, Annals of Statistics 7), conditional on these
    networks: they show the uncertainty due to the choice of test images, not due to the seed.

    Args:
        a: recordings of the first configuration, of the same images, one per seed.
        b: as many recordings of the second configuration, in the same order of seeds.
        resamples: number of bootstrap resamples of the images, for all images and for each class.
        seed: seed of the resamples.

    Returns:
        One row for ``all`` images, then one row per class:

        - ``class``: ``all`` or the class name.
        - ``count``: number of images.
        - ``seeds``: number of pairs.
        - ``accuracy_a``, ``accuracy_b``: mean accuracies over seeds, 0 to 1.
        - ``difference``: ``accuracy_b - accuracy_a``.
        - ``low``, ``high``: 95% CI of the difference over seeds, at least -1 and at most 1.
        - ``p``
        - ``p_holm``: corrected over the classes (Holm 1979, Scandinavian Journal of Statistics 6).
          The row ``all`` is a test of its own, and its ``p_holm`` equals its ``p``.
        - ``image_low``, ``image_high``: 95% CI of the difference over images, given these networks.

        low, high and the p values are NaN with one pair, and if all pairs have the same difference,
        since there is no spread to test against. For a class without images count is 0 and
        accuracies, differences, intervals and p values are NaN.

    Raises:
        InputError: the recordings do not form pairs (`expect_pairs`), do not hold the same images,
            or resamples is below 1.
    """
    expect_pairs(a, b)
    for other in [*a[1:], *b]:
        expect_same_images(a[0], other)
    labels, classes = a[0].labels, a[0].classes
    right_a, right_b = (
        np.stack([recording.right for recording in kind]).astype(np.float64) for kind in (a, b)
    )
    rows = []
    members = [np.ones(len(labels), bool), *(labels == k for k in range(len(classes)))]
    for name, inside in zip(["all", *classes], members, strict=True):
        row: dict[str, object] = {"class": name, "count": int(inside.sum()), "seeds": len(a)}
        if inside.any():
            of_a, of_b = right_a[:, inside].mean(1), right_b[:, inside].mean(1)
            row |= {"accuracy_a": of_a.mean(), "accuracy_b": of_b.mean()}
            row |= within(paired_interval(of_b - of_a), -1, 1)
            per_image = (right_b - right_a)[:, inside].mean(0)
            low, high = bootstrap_interval(per_image[:, None], resamples, seed)
            row |= {"image_low": low[0], "image_high": high[0]}
        rows.append(row)
    columns = ["class", "count", "seeds", "accuracy_a", "accuracy_b", "difference", "low", "high"]
    frame = pd.DataFrame(rows, columns=[*columns, "p", "image_low", "image_high"])
    p = frame["p"].to_numpy(np.float64)
    frame.insert(columns.index("high") + 2, "p_holm", np.concatenate([p[:1], holm(p[1:])]))
    return frame


_OF_A_KIND = ("model", "source", "split", "training_sha256")


def group_by_kind(recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
    """Group recordings of networks that differ only in the seed.

    Two recordings have the same configuration if they agree in the network, the data source and the
    split, and, where these are known, in the settings of the run (recipe, epochs, weights and so
    on). Recordings of one configuration are ordered by seed if all seeds are known, otherwise as
    given.

    Args:
        recordings: recordings of several runs.

    Returns:
        The recordings by the name of their configuration. The name is the attention module if it
        distinguishes the configurations, otherwise the name of the first recording.

    Raises:
        InputError: two recordings of one configuration have the same seed, or two configurations
            have the same name.
    """
    kinds: dict[str, list[Recording]] = {}
    for recording in recordings:
        about = recording.about
        known = [about.get(key) for key in _OF_A_KIND]
        kinds.setdefault(json.dumps(known, sort_keys=True), []).append(recording)
    attentions = [_attention(kind[0]) for kind in kinds.values()]
    plain = None not in attentions and len(set(attentions)) == len(attentions)
    named: dict[str, list[Recording]] = {}
    for attention, kind in zip(attentions, kinds.values(), strict=True):
        seeds = [recording.about.get("seed") for recording in kind]
        if None not in seeds:
            for i, seed in enumerate(seeds):
                if seed in seeds[:i]:
                    raise InputError(
                        "AS733",
                        f"{kind[seeds.index(seed)].folder} and {kind[i].folder} are of the same "
                        f"configuration and of seed {seed}; give each run once",
                    )
            kind = sorted(kind, key=lambda recording: recording.about["seed"])
        name = str(attention) if plain else kind[0].name
        if name in named:
            raise InputError(
                "AS734",
                f"{named[name][0].folder} and {kind[0].folder} are of different configurations but "
                f"are both named {name}; rename one of their run folders",
            )
        named[name] = kind
    return named


def _attention(recording: Recording) -> str | None:
    model = recording.about.get("model")
    return model.get("attention") if isinstance(model, dict) else None


def expect_pairs(a: Sequence[Recording], b: Sequence[Recording]) -> None:
    """Raise an error unless two lists of recordings form pairs of equal seeds.

    Raises:
        InputError: there are no recordings, the lists differ in length, or the seeds of a pair are
            known and differ.
    """
    if not a and not b:
        raise InputError("AS730", "there are no recordings to compare; give at least one pair")
    if len(a) != len(b):
        raise InputError(
            "AS731",
            f"there are {len(a)} recordings of one configuration and {len(b)} of the other; give "
            "as many of each, trained with the same seeds",
        )
    for first, second in zip(a, b, strict=True):
        seeds = first.about.get("seed"), second.about.get("seed")
        if None not in seeds and seeds[0] != seeds[1]:
            raise InputError(
                "AS732",
                f"{first.folder} has seed {seeds[0]} but {second.folder} has seed {seeds[1]}; give "
                "recordings of the same seeds in the same order",
            )


@statistic(
    "Images that exactly one of two networks classifies correctly.",
    takes=("recording", "recording"),
)
def disagreements(a: Recording, b: Recording) -> pd.DataFrame:
    """List the images that exactly one of two networks classifies correctly.

    Args:
        a: recording of the first network.
        b: recording of the second network.

    Returns:
        One row per image, by decreasing certainty; ties keep the order of the recordings:

        - ``row``: row in the recordings.
        - ``path``
        - ``label``, ``prediction_a``, ``prediction_b``: class names.
        - ``right``: the network that is correct, ``a`` or ``b``.
        - ``certainty``: the smaller of the softmax probabilities that the two networks assign to
          their predictions, 0 to 1.

    Raises:
        InputError: the recordings do not hold the same images.
    """
    expect_same_images(a, b)
    rows = np.flatnonzero(a.right != b.right)
    names = np.array(a.classes, dtype=object)
    certainty = np.minimum(*(recording.probabilities[rows].max(1) for recording in (a, b)))
    frame = pd.DataFrame(
        {
            "row": rows,
            "path": a.rows["path"].to_numpy()[rows],
            "label": names[a.labels[rows]],
            "prediction_a": names[a.predictions[rows]],
            "prediction_b": names[b.predictions[rows]],
            "right": np.where(a.right[rows], "a", "b"),
            "certainty": certainty,
        }
    )
    return frame.sort_values("certainty", ascending=False, kind="stable", ignore_index=True)
