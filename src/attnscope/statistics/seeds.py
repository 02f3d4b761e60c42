"""Two kinds of network over several trainings each: which class differs, and by how much."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.inference import holm, paired_interval
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import bootstrap_interval


@statistic("Accuracies of two kinds of network over seeds.", takes=("recordings", "recordings"))
def compare_seeds(
    a: Sequence[Recording], b: Sequence[Recording], resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Accuracies of two kinds of network over seeds, class by class.

    The first of ``a`` is paired with the first of ``b``, and so on: trainings of one seed, which
    share split and order. What is sampled is the training: the interval is Student's t over the
    differences of the pairs, and p that of the paired t test, whose null is a mean difference of 0;
    with less than ten seeds no bootstrap over them is worth its name. The bootstrap over images is
    beside it. It is conditional on these trainings: it says how far other images would move the
    difference of these very networks, not what another training would do.

    Args:
        a, b: recordings of the same images, as many of each.
        resamples: of the bootstrap over images, of all and of each class by itself.
        seed: of it.

    Returns:
        One row of ``all`` images, then one a class: class, count, seeds, accuracy_a, accuracy_b
        (means over seeds), difference (b minus a), low, high (95 %, over seeds; NaN with one), p,
        p_holm (over the classes; that of ``all`` is its p), image_low, image_high (95 %, over
        images, given the seeds). Where all pairs differ by the same, low, high and p are NaN: there
        is no spread to hold a difference against.

    Raises:
        InputError: they are no pairs (`expect_pairs`), or not of the same images.
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
            row |= paired_interval(of_b - of_a)
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
    """Recordings of trainings that differ in nothing but the seed, together.

    Two belong together if they tell of the same network, source and part, and, where they know
    them, of the same settings of the training (recipe, epochs, weights ...). Within a kind they are
    in the order of their seeds, where those are known, else as given.

    Returns:
        Name of a kind -> its recordings. The name is that of the attention where that tells the
        kinds apart, else what is known of the network.

    Raises:
        InputError: two of one kind have the same seed, or two kinds the same name.
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
            if len(set(seeds)) < len(seeds):
                raise InputError(
                    f"{' and '.join(str(r.folder) for r in kind)} are of one kind and seed; "
                    "give each training once"
                )
            kind = sorted(kind, key=lambda recording: recording.about["seed"])
        name = str(attention) if plain else kind[0].name
        if name in named:
            raise InputError(
                f"{named[name][0].folder} and {kind[0].folder} are of two kinds and are both "
                f"called {name}; give one of their runs another folder name"
            )
        named[name] = kind
    return named


def _attention(recording: Recording) -> str | None:
    model = recording.about.get("model")
    return model.get("attention") if isinstance(model, dict) else None


def expect_pairs(a: Sequence[Recording], b: Sequence[Recording]) -> None:
    """Refuses trainings that are no pairs of one seed each.

    Raises:
        InputError: their numbers differ, or their seeds are known and do.
    """
    if not a or len(a) != len(b):
        raise InputError(
            f"{len(a)} against {len(b)} recordings; give as many of one kind as of the other, "
            "trained with the same seeds"
        )
    for first, second in zip(a, b, strict=True):
        seeds = first.about.get("seed"), second.about.get("seed")
        if None not in seeds and seeds[0] != seeds[1]:
            raise InputError(
                f"{first.folder} has seed {seeds[0]}, {second.folder} seed {seeds[1]}; give "
                "trainings of the same seeds"
            )


@statistic("Images that one of two networks alone gets right.", takes=("recording", "recording"))
def disagreements(a: Recording, b: Recording) -> pd.DataFrame:
    """Images that one network alone gets right, the most certain ones first.

    Returns:
        row, path, label, prediction_a, prediction_b, right (``a`` or ``b``), certainty (the smaller
        of the two networks' softmax probabilities of what they predict, 0 to 1); by falling
        certainty, ties in the order of the recordings. Labels and predictions are class names.

    Raises:
        InputError: the recordings are not of the same images.
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
