"""Position of the gates of misclassified images between the true and the predicted class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.inference import ENDS
from attnscope.statistics.reading import read_units, unit_blocks, units_of
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
    """Projections of each image on the lines from the mean of its true class to all other means.

    Both arrays are ``(N, K)``, and NaN where a mean is over fewer than two images.
    """

    along: NDArray[np.float64]
    """Inner product of the image's offset with the line between the means, unbiased."""
    length: NDArray[np.float64]
    """Squared length of the line, unbiased. It can be negative if the means do not differ."""


@statistic(
    "Position of the gate of each misclassified image between two class means.",
    takes=("recording", "gate"),
)
def error_positions(recording: Recording, gate: str, seed: int = 0) -> pd.DataFrame:
    """Locate the gate of each misclassified image between the means of two classes.

    Let m_t be the mean gate of the true class and m_p that of the predicted class, over the
    correctly classified images of the other folds (five stratified folds), and v_k the squared
    standard error of m_k, summed over the units (channels or positions). The position of g is::

        ((g - m_t) · (m_p - m_t) - v_t) / (|m_p - m_t|² - v_t - v_p)

    which is 0 at the mean of the true class and 1 at the mean of the predicted class. The terms v_t
    and v_p remove the bias from sampling noise of the means, which would shrink every position
    toward the middle. There is no interval and no test for single images. The method has no
    published source; docs/reference/metrics.md derives it.

    Args:
        recording: recording of one network.
        gate: name of a gate of any kind.
        seed: seed of the folds.

    Returns:
        One row per misclassified image:

        - ``row``: row in the recording.
        - ``label``, ``prediction``: names of the true and the predicted class.
        - ``position``: 0 at the true class, 1 at the predicted class, without bounds or unit.
        - ``third``: the same position relative to all other classes: the sum of the numerators over
          the sum of the denominators.
        - ``distance``: distance between the two means, ``√((|m_p - m_t|² - v_t - v_p) / units)``,
          in units of the gate.

        The numbers are NaN where the denominator is not positive, or where a class has fewer than
        two correctly classified images in the other folds.

    Raises:
        InputError: the gate does not exist.
    """
    lines = _project(recording, gate, seed)
    units = units_of(recording, gate)
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


@statistic("Mean positions of misclassified images between two class means, with intervals.")
def error_position_summary(
    recording: Recording, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Average the positions of misclassified images for each gate, with controls and intervals.

    A mean position is a ratio of sums: the numerators of `error_positions` over its denominators.
    If the gate hardly separates the two classes of an image, the image has a noisy position and a
    small weight. There are five rows per gate, named by ``toward``:

    - ``predicted``: position of the misclassified images between the true class (0) and the
      predicted class (1).
    - ``third``: position of the same images relative to all classes that are neither. It shows the
      position of an image that is merely far from its class.
    - ``runner_up``: position of correctly classified images relative to the class with the second
      largest logit. Each pair of true class and predicted class is matched with the correctly
      classified images of the same true class whose runner-up is that class, and the pairs have the
      weights of the misclassified images. Pairs without such images are left out.
    - ``predicted - third``: difference of the first two.
    - ``predicted - runner_up``: difference over the pairs that have both.

    Null hypothesis: each difference is 0, that is, the gate of a misclassified image is no closer
    to the predicted class than to other classes, or than the gate of a correctly classified image
    with this runner-up. There is no p value. The intervals are 95% percentile bootstrap intervals
    over images, conditional on the class means (Efron 1979, Annals of Statistics 7). Correctly
    classified images are resampled within pairs; the interval of ``runner_up`` itself accounts for
    the class means that these images contribute to.

    Args:
        recording: recording of one network. At most one gate is in memory at a time.
        resamples: number of bootstrap resamples.
        seed: seed of folds and resamples.

    Returns:
        Five rows per gate:

        - ``gate``, ``kind``, ``depth``
        - ``toward``: which position, as above.
        - ``position``, ``low``, ``high``: mean position or difference, without unit, with its 95%
          CI.
        - ``images``: number of images in the mean; for differences, of misclassified images.
        - ``unplaced``: number of images left out because a class has fewer than two correctly
          classified images, and of misclassified images without a runner-up.

        Position is NaN without images, and where the sum of the denominators is not positive. low
        and high are NaN with fewer than two images, and where more than 2.5% of the resamples have
        no position.

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
    images, classes = len(recording), len(recording.classes)
    labels, right = recording.labels, recording.right
    folds = stratified_folds(labels, _FOLDS, np.random.default_rng(seed))
    # All three are sums over the units, of which only some are in memory at a time.
    gram = np.zeros((_FOLDS, classes, classes))
    noise = np.zeros((_FOLDS, classes))  # squared standard errors
    product = np.zeros((images, classes))
    read = partial(recording.gate, gate)
    for units in unit_blocks(images, units_of(recording, gate)):
        values = read_units(read, images, units).astype(np.float64)
        values -= values.mean(0)  # otherwise the common mean would dominate the inner products
        for fold in range(_FOLDS):
            inside = folds == fold
            means = np.full((classes, values.shape[1]), np.nan)
            for k in range(classes):
                members = values[right & ~inside & (labels == k)]
                if len(members) >= 2:
                    means[k] = members.mean(0)
                    noise[fold, k] += members.var(0, ddof=1).sum() / len(members)
                else:
                    noise[fold, k] = np.nan
            gram[fold] += means @ means.T
            product[inside] += values[inside] @ means.T
    along, length = (np.full((images, classes), np.nan) for _ in range(2))
    for fold in range(_FOLDS):
        inside = folds == fold
        own = labels[inside]
        square, bare = gram[fold].diagonal(), gram[fold].diagonal() - noise[fold]
        # (g - m_t) · (m_c - m_t), in which only |m_t|² is biased, by the noise of m_t.
        along[inside] = (
            product[inside]
            - product[inside][np.arange(len(own)), own][:, None]
            - gram[fold][own]
            + (square - noise[fold])[own][:, None]
        )
        length[inside] = bare[own][:, None] + bare[None] - 2 * gram[fold][own]
    return _Projections(along, length)


def _third(
    lines: _Projections, recording: Recording, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum over the classes that are neither true nor predicted; NaN if there are none."""
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
    """Return position, interval and counts, in the order of ``_PLACES``."""
    wrong = np.flatnonzero(~recording.right)
    predicted = recording.predictions[wrong]
    toward = np.stack([lines.along[wrong, predicted], lines.length[wrong, predicted]], 1)
    third = np.stack(_third(lines, recording, wrong), 1)
    placed = ~np.isnan(toward).any(1)
    both = placed & ~np.isnan(third).any(1)
    pairs = recording.labels[wrong] * len(recording.classes) + predicted
    matched, controls = _runner_ups(recording, lines, np.where(placed, pairs, -1))
    classes = len(recording.classes)
    rng = np.random.default_rng(seed + 1)  # a random stream separate from that of the folds
    # Sums of along and length per resample, (1 + resamples, 2 to 5), the observed ones first.
    sums = {
        "predicted": bootstrap_sums(toward[placed], resamples, rng),
        "third": bootstrap_sums(np.hstack([toward, third])[both], resamples, rng),
        "runner_up": _bootstrap_pairs(toward, pairs, matched, controls, classes, resamples, rng),
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
        # Resamples without a position are left out; with many of them there is no interval.
        whole = count > 1 and len(usual) >= ENDS[1] * len(drawn[1:])
        low, high = percentile_interval(usual) if whole else (np.nan, np.nan)
        found.append(
            {"position": drawn[0], "low": low, "high": high, "images": count, "unplaced": without}
        )
    return found


def _runner_ups(
    recording: Recording, lines: _Projections, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[int, NDArray[np.float64]]]:
    """Match misclassified images with correct ones of the same true class and runner-up.

    Returns:
        Whether each misclassified image has a match, ``(number misclassified,)``. By pair of true
        class and runner-up, the correct images: their projections toward every class, and the
        squared length toward their runner-up, ``(n, K + 1)``.
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
    # Projections toward other classes only show how the class mean moves in a resample.
    values = np.hstack([np.nan_to_num(along), length[:, None]])
    controls = {int(pair): values[usable & (own == pair)] for pair in np.unique(own[usable])}
    return np.isin(pairs, list(controls)), controls


def _bootstrap_pairs(
    toward: NDArray[np.float64],
    pairs: NDArray[np.int64],
    matched: NDArray[np.bool_],
    controls: dict[int, NDArray[np.float64]],
    classes: int,
    resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Bootstrap the sums of the matched misclassified images and of their controls.

    The controls of a pair have the weight of the misclassified images of that pair in the draw.

    Returns:
        ``(1 + resamples, 5)``: projection and squared length of the misclassified images, then
        those of the controls, then the projection of the controls relative to the class mean of the
        draw.
    """
    known = [int(pair) for pair in np.unique(pairs[matched])]
    which = np.searchsorted(known, pairs[matched]) if known else np.zeros(0, np.int64)
    indicator = np.eye(len(known))[which]
    drawn = bootstrap_sums(np.hstack([toward[matched], indicator]), resamples, rng)
    sums = np.zeros((resamples + 1, 3))
    for own in sorted({pair // classes for pair in known}):
        mine = {pair: rows for pair, rows in controls.items() if pair // classes == own}
        draws = {pair: bootstrap_sums(rows, resamples, rng) for pair, rows in mine.items()}
        # Positions are measured from the mean of these very images, which moves with the resample.
        # In differences to misclassified images the movement cancels.
        whole = np.sum(list(draws.values()), axis=0) / sum(map(len, mine.values()))
        moved = whole - whole[0]
        for pair in sorted(mine.keys() & set(known)):
            mean, runner = draws[pair] / len(mine[pair]), pair % classes
            columns = [mean[:, runner], mean[:, -1], mean[:, runner] - moved[:, runner]]
            sums += drawn[:, 2 + known.index(pair)][:, None] * np.stack(columns, 1)
    return np.hstack([drawn[:, :2], sums])


def _ratio(along: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``along / length``; NaN where the length is not positive."""
    ratio = np.full(length.shape, np.nan)
    np.divide(along, length, out=ratio, where=length > 0)
    return ratio
