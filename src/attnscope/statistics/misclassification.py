"""Where the gates of a misclassified image lie between the true class and the predicted one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.inference import ENDS
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import (
    bootstrap_sums,
    expect_positive,
    percentile_interval,
    stratified_folds,
)

_FOLDS = 5
_PLACES = ("predicted", "third", "runner_up", "predicted - third", "predicted - runner_up")


@dataclass(frozen=True)
class _Projections:
    """Of each image, from the mean of its true class toward that of every other, ``(N, K)`` each.

    NaN where a mean is of fewer than two images.
    """

    along: NDArray[np.float64]
    """Inner product of the image's offset and the line between the means, unbiased."""
    length: NDArray[np.float64]
    """Squared length of that line, unbiased; can be below 0 for means that do not differ."""


@statistic(
    "Where the gate of each misclassified image lies between two class means.",
    takes=("recording", "gate"),
)
def error_positions(recording: Recording, gate: str, seed: int = 0) -> pd.DataFrame:
    """Of each misclassified image, where its gate lies between two class means.

    With m_t the mean of the true class and m_p that of the predicted one, both over correctly
    classified images of other folds than the image's own (five, stratified), the gate g lies at
    ``(g - m_t) · (m_p - m_t) / |m_p - m_t|²``: 0 as the true class, 1 as the predicted one. What
    the noise of the two means adds to numerator and denominator is taken away by their standard
    errors, since it would draw every position toward the middle.

    Returns:
        One row a misclassified image: row (in the recording), label, prediction (names of classes),
        position, third (the same toward the means of all other classes: sum of the numerators over
        sum of the denominators), distance (between the two means, root mean square over the units,
        in units of the gate). NaN where the squared distance without noise is not above 0, or a
        class has fewer than two correct images in the other folds.

    Raises:
        InputError: there is no such gate.
    """
    lines = _project(recording, gate, seed)
    units = int(np.prod(recording.gate(gate, slice(0, 0)).shape[1:]))
    wrong = np.flatnonzero(~recording.right)
    predicted = recording.predictions[wrong]
    along, length = lines.along[wrong, predicted], lines.length[wrong, predicted]
    third_along, third_length = _third(lines, recording, wrong)
    names = np.array(recording.classes)
    return pd.DataFrame(
        {
            "row": wrong,
            "label": names[recording.labels[wrong]],
            "prediction": names[predicted],
            "position": _ratio(along, length),
            "third": _ratio(third_along, third_length),
            "distance": np.sqrt(np.where(length > 0, length, np.nan) / units),
        }
    )


@statistic("Where misclassified images lie between two class means, with intervals.")
def error_position_summary(
    recording: Recording, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Of each gate, where misclassified images lie on average, and where they would anyway.

    A mean position is a ratio of sums, of the numerators and of the denominators of
    ``error_positions``: images whose two classes the gate hardly tells apart have positions that
    are noise, and weigh little. Five are given, by ``toward``:

    - ``predicted``: misclassified images, from the true class (0) to the predicted one (1).
    - ``third``: the same images toward all classes that are neither: where an image goes that
      merely lies far from its class.
    - ``runner_up``: correctly classified images, toward the class of the second largest logit; for
      each misclassified image those of its true class whose runner-up is the class that it was
      taken for, as heavy together as the misclassified ones of that pair. Pairs without such images
      are left out.
    - ``predicted - third`` and ``predicted - runner_up``, the latter over the pairs that have both.

    The null of the differences is 0: the gate of a misclassified image does not lie nearer to the
    predicted class than to any other, or than that of an image that was just not misclassified. The
    interval is the percentile bootstrap's over images (Efron 1979, Annals of Statistics 7), the
    class means as given; the runner-ups are drawn within each pair, and that of their own position
    knows that they make the mean of their class.

    Args:
        recording: what to read; one gate is in memory at a time.
        resamples: of the images.
        seed: of the folds and the resamples.

    Returns:
        Five rows a gate: gate, kind, depth, toward, position, low, high (95 %), images (in the
        mean; of a difference, the misclassified ones), unplaced (those that a class of fewer than
        two correct images leaves out, and the misclassified ones without a runner-up). NaN without
        images, and where the sum of the denominators is not above 0; low and high are NaN with one
        image.

    Raises:
        InputError: resamples is below 1.
    """
    expect_positive("resamples", resamples, 1000)
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        lines = _project(recording, gate.name, seed)
        for name, summary in zip(
            _PLACES, _summaries(recording, lines, resamples, seed), strict=True
        ):
            head = {"gate": gate.name, "kind": gate.kind, "depth": depth, "toward": name}
            rows.append({**head, **summary})
    columns = ["gate", "kind", "depth", "toward", "position", "low", "high", "images", "unplaced"]
    return pd.DataFrame(rows, columns=columns)


def _project(recording: Recording, gate: str, seed: int) -> _Projections:
    values = recording.gate(gate)
    values = values.reshape(len(values), -1).astype(np.float64)
    values -= values.mean(0)  # or the inner products would be those of the common mean
    labels, right, classes = recording.labels, recording.right, len(recording.classes)
    folds = stratified_folds(labels, _FOLDS, np.random.default_rng(seed))
    along, length = (np.full((len(values), classes), np.nan) for _ in range(2))
    for fold in range(_FOLDS):
        inside = folds == fold
        means = np.full((classes, values.shape[1]), np.nan)
        noise = np.full(classes, np.nan)  # squared standard errors, summed over the units
        for k in range(classes):
            members = values[right & ~inside & (labels == k)]
            if len(members) >= 2:
                means[k] = members.mean(0)
                noise[k] = members.var(0, ddof=1).sum() / len(members)
        own = labels[inside]
        gram = means @ means.T
        square = gram.diagonal()
        product = values[inside] @ means.T
        # (g - m_t) · (m_c - m_t), in which |m_t|² holds the noise of m_t, and no other term any.
        along[inside] = (
            product
            - product[np.arange(len(own)), own][:, None]
            - gram[own]
            + (square - noise)[own][:, None]
        )
        bare = square - noise
        length[inside] = bare[own][:, None] + bare[None] - 2 * gram[own]
    return _Projections(along, length)


def _third(
    lines: _Projections, recording: Recording, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over the classes that are neither the true nor the predicted one; NaN without any."""
    others = np.ones((len(rows), len(recording.classes)), bool)
    own = np.arange(len(rows))
    others[own, recording.labels[rows]] = False
    others[own, recording.predictions[rows]] = False
    others &= ~np.isnan(lines.length[rows])
    along, length = (np.where(others, x[rows], 0).sum(1) for x in (lines.along, lines.length))
    none = ~others.any(1)
    along[none] = length[none] = np.nan
    return along, length


def _summaries(
    recording: Recording, lines: _Projections, resamples: int, seed: int
) -> list[dict[str, float]]:
    """Position, interval and counts, in the order of ``_PLACES``."""
    wrong = np.flatnonzero(~recording.right)
    predicted = recording.predictions[wrong]
    toward = np.stack([lines.along[wrong, predicted], lines.length[wrong, predicted]], 1)
    third = np.stack(_third(lines, recording, wrong), 1)
    placed = ~np.isnan(toward).any(1)
    both = placed & ~np.isnan(third).any(1)
    pairs = recording.labels[wrong] * len(recording.classes) + predicted
    matched, controls = _runner_ups(recording, lines, np.where(placed, pairs, -1))
    classes = len(recording.classes)
    rng = np.random.default_rng(seed + 1)  # another stream than that of the folds
    # Each draw gives sums of along and length, (1 + resamples, 2 to 5), the found ones first.
    sums = {
        "predicted": bootstrap_sums(toward[placed], resamples, rng),
        "third": bootstrap_sums(np.hstack([toward, third])[both], resamples, rng),
        "runner_up": _drawn_pairs(toward, pairs, matched, controls, classes, resamples, rng),
    }
    with_third, with_runner = sums["third"], sums["runner_up"]
    positions = [
        _ratio(sums["predicted"][:, 0], sums["predicted"][:, 1]),
        _ratio(with_third[:, 2], with_third[:, 3]),
        _ratio(with_runner[:, 4], with_runner[:, 3]),
        _ratio(with_third[:, 0], with_third[:, 1]) - _ratio(with_third[:, 2], with_third[:, 3]),
        _ratio(with_runner[:, 0], with_runner[:, 1]) - _ratio(with_runner[:, 2], with_runner[:, 3]),
    ]
    several = sum(len(controls[pair]) for pair in np.unique(pairs[matched]))
    counts = [int(placed.sum()), int(both.sum()), several, int(both.sum()), int(matched.sum())]
    left = [len(wrong) - n for n in (counts[0], counts[1], counts[4], counts[3], counts[4])]
    found = []
    for drawn, count, without in zip(positions, counts, left, strict=True):
        usual = drawn[1:][~np.isnan(drawn[1:])]
        # Draws without a position lie at no end: with many of them there is no interval.
        whole = count > 1 and len(usual) >= ENDS[1] * len(drawn[1:])
        low, high = percentile_interval(usual) if whole else (np.nan, np.nan)
        found.append(
            {"position": drawn[0], "low": low, "high": high, "images": count, "unplaced": without}
        )
    return found


def _runner_ups(
    recording: Recording, lines: _Projections, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[int, NDArray[np.float64]]]:
    """Which misclassified images have correct ones of the same true class and runner-up.

    Returns:
        ``(number misclassified,)``; and by pair of true class and runner-up, the correct images:
        how far along each lies toward every class, and the length toward its runner-up,
        ``(n, K + 1)``.
    """
    classes = len(recording.classes)
    if classes < 2:
        return np.zeros(len(pairs), bool), {}
    right = np.flatnonzero(recording.right)
    logits = recording.logits[right].astype(np.float64)
    logits[np.arange(len(right)), recording.predictions[right]] = -np.inf
    runner = logits.argmax(1)
    own = recording.labels[right] * classes + runner
    along, length = lines.along[right], lines.length[right, runner]
    usable = ~np.isnan(along[np.arange(len(right)), runner] + length)
    # Toward another class than its runner-up an image only helps to say how the class moves.
    values = np.hstack([np.nan_to_num(along), length[:, None]])
    controls = {int(pair): values[usable & (own == pair)] for pair in np.unique(own[usable])}
    return np.isin(pairs, list(controls)), controls


def _drawn_pairs(
    toward: NDArray[np.float64],
    pairs: NDArray[np.int64],
    matched: NDArray[np.bool_],
    controls: dict[int, NDArray[np.float64]],
    classes: int,
    resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Sums of the matched misclassified images and of their controls, ``(1 + resamples, 5)``.

    A pair's controls weigh as many images as the draw has misclassified ones of that pair.

    Returns:
        Along and length of the misclassified images, then those of the controls; and the controls'
        along as it is where the mean of their class is drawn with them.
    """
    known = [int(pair) for pair in np.unique(pairs[matched])]
    which = np.searchsorted(known, pairs[matched]) if known else np.zeros(0, np.int64)
    indicator = np.eye(len(known))[which]
    drawn = bootstrap_sums(np.hstack([toward[matched], indicator]), resamples, rng)
    sums = np.zeros((resamples + 1, 3))
    for own in sorted({pair // classes for pair in known}):
        mine = {pair: rows for pair, rows in controls.items() if pair // classes == own}
        draws = {pair: bootstrap_sums(rows, resamples, rng) for pair, rows in mine.items()}
        # The mean from which the positions are measured is made of these very images: where they
        # are drawn far out it goes with them. In differences to misclassified images that cancels.
        whole = np.sum(list(draws.values()), axis=0) / sum(map(len, mine.values()))
        moved = whole - whole[0]
        for pair in sorted(mine.keys() & set(known)):
            mean, runner = draws[pair] / len(mine[pair]), pair % classes
            columns = [mean[:, runner], mean[:, -1], mean[:, runner] - moved[:, runner]]
            sums += drawn[:, 2 + known.index(pair)][:, None] * np.stack(columns, 1)
    return np.hstack([drawn[:, :2], sums])


def _ratio(along: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.float64]:
    """``along / length``; NaN where the length is not above 0."""
    ratio = np.full(length.shape, np.nan)
    np.divide(along, length, out=ratio, where=length > 0)
    return ratio
