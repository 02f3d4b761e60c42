"""Two kinds of network over several trainings each: which class differs, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from attnscope.errors import InputError
from attnscope.recording import Recording
from attnscope.statistics.comparison import expect_same_images, holm
from attnscope.statistics.effects import bootstrap_interval

_ROUNDING = 1e-12


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
        resamples: of the bootstrap over images, within classes.
        seed: of it.

    Returns:
        One row of ``all`` images, then one a class: class, count, seeds, accuracy_a, accuracy_b
        (means over seeds), difference (b minus a), low, high (95 %, over seeds; NaN with one), p,
        p_holm (over the classes; that of ``all`` is its p), image_low, image_high (95 %, over
        images, given the seeds). Where all pairs differ by the same, p is NaN: there is no spread
        to hold it against.

    Raises:
        InputError: the numbers of recordings differ, or they are not of the same images.
    """
    if not a or len(a) != len(b):
        raise InputError(
            f"{len(a)} against {len(b)} recordings; give as many of one kind as of the other, "
            "trained with the same seeds"
        )
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


def seeds_sentence(frame: pd.DataFrame, name_a: str, name_b: str, level: float = 0.05) -> str:
    """What `compare_seeds` found, in words; also that no class differs."""
    whole, classes = frame.iloc[0], frame.iloc[1:]
    seeds = int(whole["seeds"])
    sign = f"{100 * whole['difference']:+.2f}".replace("-", "−")
    text = f"{name_b} minus {name_a}: {sign} points of accuracy over {seeds} "
    text += "seed" if seeds == 1 else "seeds"
    if seeds < 2:
        return f"{text}. One training of each says nothing of another one: no test over seeds."
    low, high = (f"{100 * whole[end]:+.2f}".replace("-", "−") for end in ("low", "high"))
    text += f" (95 % {low} to {high})."
    differs = classes[classes["p_holm"] < level]
    if differs.empty:
        return f"{text} No class differs (t test over seeds, Holm, p < {level})."
    parts = [
        f"{row['class']} ({100 * row['difference']:+.1f} points)".replace("-", "−")
        for _, row in differs.iterrows()
    ]
    return f"{text} {len(differs)} of {len(classes)} classes: {', '.join(parts)}."


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
    certainty = np.minimum(_confidence(a, rows), _confidence(b, rows))
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


def paired_interval(difference: NDArray[np.float64]) -> dict[str, float]:
    """Mean of paired differences, Student's t interval (95 %), and p of the paired t test."""
    mean, count = float(difference.mean()), len(difference)
    if count < 2:
        return {"difference": mean, "low": np.nan, "high": np.nan, "p": np.nan}
    error = difference.std(ddof=1) / np.sqrt(count)
    half = stats.t.ppf(0.975, count - 1) * error
    # Differences are counts over counts: what is this small is rounding.
    p = 2 * stats.t.sf(abs(mean) / error, count - 1) if error > _ROUNDING else np.nan
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": float(p)}


def _confidence(recording: Recording, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = special.softmax(
        recording.logits[rows].astype(np.float64), axis=1
    ).max(1)
    return found
