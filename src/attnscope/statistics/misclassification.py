"""Position of the gates of misclassified images between the true and the predicted class."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.inference import ENDS
from attnscope.statistics.projection import Lines, project
from attnscope.statistics.reading import units_of
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import bootstrap_sums, percentile_interval
from attnscope.statistics.splits import checked_groups, expect_positive

_ROWS = 4096
"""Number of misclassified images that are projected on the lines to all classes at a time."""
_DRAWN = 2**22
"""Number of misclassified images that are drawn at a time."""
_PLACES = ("predicted", "third", "runner_up", "predicted - third", "predicted - runner_up")


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
        InputError: the gate does not exist, or a value is not finite.
    """
    lines = project(recording, gate, seed)
    units = units_of(recording, gate)
    wrong = np.flatnonzero(~recording.right)
    predicted = recording.predictions[wrong]
    (along, length), (third_along, third_length) = _misclassified(lines, wrong, predicted)
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
    recording: Recording, resamples: int = 1000, seed: int = 0, groups: ArrayLike | None = None
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
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). Folds keep them together, and they are resampled together,
            among the misclassified images and within each pair of the others. None: no image is a
            copy.

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
        InputError: resamples is below 1, a value is not finite, or there is not one group per
            image (AS717).
    """
    expect_positive("resamples", resamples, 1000)
    copies = checked_groups(groups, len(recording))
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        lines = project(recording, gate.name, seed, copies)
        for name, summary in zip(
            _PLACES, _summaries(recording, lines, resamples, seed, copies), strict=True
        ):
            head = {"gate": gate.name, "kind": gate.kind, "depth": depth, "toward": name}
            rows.append({**head, **summary})
    columns = ["gate", "kind", "depth", "toward", "position", "low", "high", "images", "unplaced"]
    return pd.DataFrame(rows, columns=columns)


def _misclassified(
    lines: Lines, rows: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Return inner product and squared length of misclassified images, ``(n,)`` each.

    First those toward the predicted class; then the sums over the classes that are neither true nor
    predicted, which are NaN if there are none.
    """
    toward, third = ([np.full(len(rows), np.nan) for _ in range(2)] for _ in range(2))
    for begin in range(0, len(rows), _ROWS):
        piece = slice(begin, begin + _ROWS)
        here = rows[piece]
        along, length, own = lines.along(here), lines.length(here), np.arange(len(here))
        others = ~np.isnan(length)
        others[own, lines.labels[here]] = False
        others[own, predicted[piece]] = False
        some = others.any(1)
        for found, summed, x in zip(toward, third, (along, length), strict=True):
            found[piece] = x[own, predicted[piece]]
            summed[piece] = np.where(some, np.where(others, x, 0).sum(1), np.nan)
    return toward, third


def _summaries(
    recording: Recording,
    lines: Lines,
    resamples: int,
    seed: int,
    copies: NDArray[np.int64] | None,
) -> list[dict[str, float]]:
    """Return position, interval and counts, in the order of ``_PLACES``."""
    wrong = np.flatnonzero(~recording.right)
    predicted = recording.predictions[wrong]
    toward, third = (np.stack(found, 1) for found in _misclassified(lines, wrong, predicted))
    placed = ~np.isnan(toward).any(1)
    both = placed & ~np.isnan(third).any(1)
    pairs = recording.labels[wrong] * len(recording.classes) + predicted
    controls = _runner_ups(recording, lines)
    matched = placed & np.isin(pairs, list(controls))
    rng = np.random.default_rng(seed + 1)  # a random stream separate from that of the folds
    # Sums of along and length per resample, (1 + resamples, 2 to 5), the observed ones first.

    def drawn(values: NDArray[np.float64], kept: ArrayLike) -> NDArray[np.float64]:
        rows = np.flatnonzero(kept)
        if copies is None:
            return bootstrap_sums(values[rows], resamples, rng)
        return bootstrap_sums(_sums_of(copies[wrong[rows]], values[rows]), resamples, rng)

    sums = {
        "predicted": drawn(toward, placed),
        "third": drawn(np.hstack([toward, third]), both),
        "runner_up": _bootstrap_pairs(
            lines,
            toward[matched],
            pairs[matched],
            controls,
            resamples,
            rng,
            copies,
            None if copies is None else copies[wrong[matched]],
        ),
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
    for values, count, without in zip(positions, counts, left, strict=True):
        usual = values[1:][~np.isnan(values[1:])]
        # Resamples without a position are left out; with many of them there is no interval.
        whole = count > 1 and len(usual) >= ENDS[1] * len(values[1:])
        low, high = percentile_interval(usual) if whole else (np.nan, np.nan)
        found.append(
            {"position": values[0], "low": low, "high": high, "images": count, "unplaced": without}
        )
    return found


def _runner_ups(recording: Recording, lines: Lines) -> dict[int, NDArray[np.int64]]:
    """Return the correct images that have a position, by pair of true class and runner-up.

    A pair has the number ``true class * K + runner-up``.
    """
    classes = len(recording.classes)
    if classes < 2:
        return {}
    right = np.flatnonzero(recording.right)
    logits = recording.logits[right].astype(np.float64)
    logits[np.arange(len(right)), recording.predictions[right]] = -np.inf
    runner = logits.argmax(1)
    # A position needs the means of both classes.
    has_mean = ~np.isnan(lines.noise[lines.folds[right]])
    own, each = lines.labels[right], np.arange(len(right))
    is_usable = has_mean[each, own] & has_mean[each, runner]
    rows, pairs = right[is_usable], (own * classes + runner)[is_usable]
    order = np.argsort(pairs, kind="stable")
    if not len(rows):
        return {}
    known, begin = np.unique(pairs[order], return_index=True)
    parts = np.split(rows[order], begin[1:])
    return {int(pair): part for pair, part in zip(known, parts, strict=True)}


def _bootstrap_pairs(
    lines: Lines,
    toward: NDArray[np.float64],
    pairs: NDArray[np.int64],
    controls: dict[int, NDArray[np.int64]],
    resamples: int,
    rng: np.random.Generator,
    copies: NDArray[np.int64] | None,
    own_copies: NDArray[np.int64] | None,
) -> NDArray[np.float64]:
    """Bootstrap the sums of the matched misclassified images and of their controls.

    The controls of a pair have the weight of the misclassified images of that pair in the draw.
    ``copies`` are the groups of all images of the recording, ``own_copies`` those of the matched
    images; None if each image is a group.

    Returns:
        ``(1 + resamples, 5)``: projection and squared length of the misclassified images, then
        those of the controls, then the projection of the controls relative to the class mean of the
        draw.
    """
    classes = len(lines.gram[0])
    known, which = np.unique(pairs, return_inverse=True)
    drawn, weights = _draw_pairs(toward, which, len(known), resamples, rng, own_copies)
    of_class: dict[int, dict[int, NDArray[np.int64]]] = {}
    for pair in sorted(controls):
        of_class.setdefault(pair // classes, {})[pair % classes] = controls[pair]
    sums = np.zeros((resamples + 1, 3))
    for own in np.unique(known // classes):
        mine = of_class[int(own)]
        # How often each control is drawn: once in what was observed.
        often = np.hstack(
            [
                _multiplicities(len(part), resamples, rng, None if copies is None else copies[part])
                for part in mine.values()
            ]
        )
        rows = np.concatenate(list(mine.values()))
        wanted = known[known // classes == own]
        runners = wanted % classes
        # A class without a mean in some fold is no runner-up of images of that fold.
        along = np.nan_to_num(lines.along(rows)[:, runners])
        length = np.nan_to_num(lines.length(rows)[:, runners])
        # Positions are measured from the mean of these very images, which moves with the resample.
        # In differences to misclassified images the movement cancels.
        total = often.sum(1, keepdims=True)  # it varies if groups have several sizes
        whole = often @ along / (len(rows) if copies is None else total)
        moved = whole - whole[0]
        ends = np.cumsum([0, *map(len, mine.values())])
        places = {runner: at for at, runner in enumerate(mine)}
        for column, pair in enumerate(wanted):
            at = places[int(runners[column])]
            part = slice(ends[at], ends[at + 1])
            mean = often[:, part] @ np.stack([along[part, column], length[part, column]], 1)
            mean /= often[:, part].sum(1, keepdims=True)
            columns = [mean[:, 0], mean[:, 1], mean[:, 0] - moved[:, column]]
            weight = weights[:, np.searchsorted(known, pair)]
            sums += weight[:, None] * np.stack(columns, 1)
    return np.hstack([drawn, sums])


def _draw_pairs(
    toward: NDArray[np.float64],
    which: NDArray[np.int64],
    pairs: int,
    resamples: int,
    rng: np.random.Generator,
    copies: NDArray[np.int64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bootstrap the misclassified images, or whole groups of copies.

    Returns:
        Their sums, those observed first, ``(1 + resamples, 2)``; and how many of them are of each
        pair, ``(1 + resamples, P)``.
    """
    images = len(which)
    if copies is not None and images:
        both = _sums_of(copies, np.hstack([toward, np.eye(pairs)[which]]))
        found = _multiplicities(len(both), resamples, rng) @ both
        return found[:, :2], found[:, 2:]
    sums, counts = [toward.sum(0)[None]], [np.bincount(which, minlength=pairs)[None]]
    block = max(1, _DRAWN // max(images, pairs, 1))
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        rows = rng.integers(0, max(images, 1), (size, images))
        sums.append(toward[rows].sum(1))
        place = which[rows] + pairs * np.arange(size)[:, None]
        counts.append(np.bincount(place.ravel(), minlength=size * pairs).reshape(size, pairs))
    return np.concatenate(sums), np.concatenate(counts).astype(np.float64)


def _sums_of(copies: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the rows ``(n, V)`` of each group of copies: ``(groups, V)``."""
    known, of_image = np.unique(copies, return_inverse=True)
    sums = np.zeros((len(known), values.shape[1]))
    np.add.at(sums, of_image, values)
    return sums


def _multiplicities(
    images: int,
    resamples: int,
    rng: np.random.Generator,
    copies: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Return how often each image is drawn, ``(1 + resamples, n)``; first once each.

    Whole groups of ``copies`` are drawn.
    """
    if copies is not None:
        known, of_image = np.unique(copies, return_inverse=True)
        return _multiplicities(len(known), resamples, rng)[:, of_image]
    rows = rng.integers(0, images, (resamples, images))
    place = rows + images * np.arange(resamples)[:, None]
    count = np.bincount(place.ravel(), minlength=resamples * images)
    return np.vstack([np.ones(images), count.reshape(resamples, images)])


def _ratio(along: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``along / length``; NaN where the length is not positive."""
    ratio = np.full(length.shape, np.nan)
    np.divide(along, length, out=ratio, where=length > 0)
    return ratio
