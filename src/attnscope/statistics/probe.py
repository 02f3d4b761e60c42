"""Linear probes: how well the class can be decoded from a gate, with controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from numpy.typing import ArrayLike, NDArray
from scipy import special

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.class_sums import permuted_labels
from attnscope.statistics.inference import FEWEST, mean_share_interval, t_interval
from attnscope.statistics.logits import READERS, HeldValues, ProbedValues
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import null_band, permutation_p, upper_limit
from attnscope.statistics.rotation import Rows
from attnscope.statistics.splits import (
    checked_groups,
    expect_positive,
    present_classes,
    stratified_folds,
)

SCORE, FIT = 0, 1  # with an odd number of images, the scoring half is larger
_SHRINKAGES = (0.1, 0.01, 1e-3, 1e-4)
"""Candidate weights of the identity in the covariance matrix. None is 0, since classes that can be
separated without an error would leave no covariance within classes.
"""
_TEMPERATURES = tuple(2.0**k for k in range(-8, 3))
"""Candidate factors of the scores, for the usable information."""
_CELLS = 2**22
"""Number of permuted labels that are held in memory at a time."""
_BLOCK = 1024
"""Number of images whose log-probabilities are computed at a time."""


@statistic("How well the class can be decoded from each gate by a linear classifier.")
def linear_probe(
    recording: Recording,
    permutations: int = 200,
    seed: int = 0,
    of: str = "gate",
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Measure how well the true class can be decoded from each gate by a linear classifier.

    The images of each class are split into two random halves. The probe is fitted on one half and
    scored on the other by its balanced accuracy, the mean over the classes of the share of correct
    images. It is linear discriminant analysis (Fisher 1936, Annals of Eugenics 7) of the
    `gate_logits`, standardized on the fitting half, with equal class priors and a covariance that
    is shrunk toward the identity (Friedman 1989, JASA 84). The weight of the identity is chosen by
    one further split of the fitting half. A single split is used instead of cross-validation
    because the scored images are then independent, given the fit, so that an interval is possible.
    The interval combines the Wilson intervals (1927, JASA 22) of the classes by the method of Zou
    and Donner (2008, Statistics in Medicine 27). It is conditional on the fitted probe: a probe
    fitted on more images would score higher.

    ``nats`` is the usable information (Xu et al. 2020, ICLR): the log-probability that the probe
    gives to the true class minus that of a guess among the K classes, averaged within classes, then
    over them. The scores are first multiplied by a factor that is chosen on the same further split.
    It also grows where the probe becomes more certain and its predictions stay the same; at most it
    is ln K. Its interval is Student's t with Welch and Satterthwaite's degrees of freedom.

    Null hypothesis: the gate holds no information about the class. Chance is the balanced accuracy
    of the same predictions with permuted labels of the scored half. The probe has not seen these
    images, so that, given its predictions, each order of their labels is equally likely; it need
    not be fitted again. Two controls are this function applied elsewhere: with
    ``of="pooled_input"`` it measures what can be decoded from the input of the gate, on the same
    halves, and on the recording of an untrained network what can be decoded without training.

    Args:
        recording: recording of one network. One gate is in memory at a time.
        permutations: number of permutations of the labels. The smallest possible p is ``1 /
            (permutations + 1)``.
        seed: seed of the halves and the permutations.
        of: what to decode from: ``gate``, or ``pooled_input`` (`Recording.pooled_input`), which is
            in units of the features and is used without a logit.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). Splits keep them together, and their labels are permuted
            together. The interval does not know of copies. None: no image is a copy.

    Returns:
        One row per gate:

        - ``gate``, ``kind``, ``depth``
        - ``balanced_accuracy``: 0 to 1. The chance level is one over the number of classes.
        - ``low``, ``high``: 95% CI.
        - ``null``: chance, the mean under permuted labels.
        - ``null_low``, ``null_high``: ends of the central 95% under permuted labels.
        - ``limit``: limit of the test over all gates: ``p_max`` of a higher accuracy is below 0.05.
        - ``p``: one-sided.
        - ``p_max``: p corrected over the gates, by comparison with the highest accuracy of any gate
          under each permutation (Westfall and Young 1993, Resampling-Based Multiple Testing).
        - ``nats``, ``nats_low``, ``nats_high``: usable information with its 95% CI; negative if the
          probe is worse than a guess. The ends are NaN if a class has one scored image.
        - ``fitted``, ``scored``: number of images in each half.
        - ``shrinkage``: weight of the identity in the covariance.
        - ``clipped``: number of values without a finite logit; 0 for pooled inputs.

        Classes of fewer than two images are left out; copies count as one image, of the class of
        the first of them. With fewer than two classes, and for a gate that multiplies another gate
        and so has no pooled input, fitted and scored are 0 and all other numbers except clipped are
        NaN. A constant gate is at the chance level. If a gate
        varies, but not on the fitting half, no probe can be fitted, and all numbers except fitted,
        scored and clipped are NaN.

    Raises:
        InputError: permutations is below 1, ``of`` is unknown, the activation of a gate has no
            inverse here, the pooled inputs were not recorded or are not finite, a gate with more
            than 2²⁷ values for all images was recorded for too many images (AS715), or there is not
            one group per image (AS717).
    """
    expect_positive("permutations", permutations, 200)
    if of not in READERS:
        raise InputError(
            "AS706", f"the probe cannot use of='{of}'; choose one of {', '.join(READERS)}"
        )
    copies = checked_groups(groups, len(recording))
    known, labels, _ = present_classes(recording.labels, at_least=2, groups=copies)
    halves = stratified_folds(labels, 2, np.random.default_rng(seed), copies)
    rows = []
    drawn: dict[int, NDArray[np.float64]] = {}  # row -> accuracies, of the true labels first
    for depth, gate in enumerate(recording.gates, start=1):
        row: dict[str, object] = {"gate": gate.name, "kind": gate.kind, "depth": depth}
        row |= {"clipped": 0, "fitted": 0, "scored": 0}
        if of == "gate" or gate.name in recording.pooled_inputs or not recording.pooled_inputs:
            values = ProbedValues(recording, gate.name, of)
        else:  # only this gate has no pooled input; without any, reading them raises an error
            rows.append(row)
            continue
        if len(known) >= 2:
            fit, score = halves == FIT, halves == SCORE
            row |= {"fitted": int(fit.sum()), "scored": int(score.sum())}
            probe = fit_probe(
                values, np.flatnonzero(fit), np.flatnonzero(score), labels, len(known), seed, copies
            )
            if probe is not None:
                drawn[len(rows)] = _chance(
                    probe.predictions,
                    labels[score],
                    permutations,
                    seed,
                    None if copies is None else copies[score],
                )
                row |= _summary(probe, labels[score], drawn[len(rows)])
        else:
            values.rotate([])  # it counts the clipped values
        row["clipped"] = values.clipped
        rows.append(row)
    columns = ["gate", "kind", "depth", "balanced_accuracy", "low", "high"]
    columns += [
        "null",
        "null_low",
        "null_high",
        "limit",
        "p",
        "p_max",
        "nats",
        "nats_low",
        "nats_high",
    ]
    columns += ["fitted", "scored", "shrinkage", "clipped"]
    if drawn:
        # All gates use the same permutations of the labels.
        highest = np.max([accuracy[1:] for accuracy in drawn.values()], axis=0)
        for place, accuracy in drawn.items():
            rows[place]["limit"] = upper_limit(highest)
            rows[place]["p_max"] = float(permutation_p(highest, accuracy[0]))
    return pd.DataFrame(rows, columns=columns)


def decoding_p(decoding: pd.DataFrame, column: str = "p_max") -> NDArray[np.float64]:
    """Return the p value with which the class is called decodable from each gate, ``(rows,)``.

    Args:
        decoding: table of `linear_probe` or `attnscope.statistics.decode_gates`.
        column: name of the p value.

    Returns:
        The p value; NaN without this column, and where the probe scored fewer than ten images,
        among which a few hits decide.
    """
    p = np.full(len(decoding), np.nan)
    if column in decoding:
        p[:] = decoding[column]
    if "scored" in decoding:
        p[decoding["scored"].to_numpy() < FEWEST] = np.nan
    return p


def _summary(
    probe: FittedProbe, labels: NDArray[np.int64], accuracy: NDArray[np.float64]
) -> dict[str, float]:
    """Return the numbers of `linear_probe` for one gate.

    Args:
        probe: the probe.
        labels: classes of the scored images, ``(m,)``.
        accuracy: balanced accuracies of `_chance`.
    """
    count = np.bincount(labels)
    recalls = np.bincount(labels, probe.predictions == labels) / count
    low, high = mean_share_interval(recalls, count)
    null_low, null_high = null_band(accuracy[1:])
    nats, nats_low, nats_high = _mean_gain(probe.gain, labels)
    return {
        "balanced_accuracy": recalls.mean(),
        "low": low,
        "high": high,
        "null": accuracy[1:].mean(),
        "null_low": null_low,
        "null_high": null_high,
        "p": float(permutation_p(accuracy[1:], accuracy[0])),
        "nats": nats,
        "nats_low": nats_low,
        "nats_high": nats_high,
        "shrinkage": probe.shrinkage,
    }


@dataclass(frozen=True)
class FittedProbe:
    """A probe that was fitted on one half of the images and scored on the other."""

    predictions: NDArray[np.int64]
    """Predicted class of each scored image, ``(m,)``."""
    gain: NDArray[np.float64]
    """Log-probability of the true class minus that of a guess among K, in nats, ``(m,)``."""
    shrinkage: float


def probe_of_values(
    values: Float[Array, "images units"],
    labels: Int64[Array, " images"],
    fit: Rows,
    score: Rows,
    seed: int,
    copies: Int64[Array, " images"] | None = None,
    permutations: int = 200,
) -> dict[str, float]:
    """Fit the probe of `linear_probe` on values in memory, and score it on others.

    Args:
        values: ``(N, U)``.
        labels: class of each image, ``(N,)``.
        fit: rows of the images to fit on, ``(n,)``.
        score: rows of the images to score, ``(m,)``.
        seed: seed of the further split and the permutations.
        copies: which images are copies of one another, ``(N,)``.
        permutations: number of permutations of the labels.

    Returns:
        ``balanced_accuracy``, ``low``, ``high``, ``null`` and the other numbers of one gate of
        `linear_probe`. Classes without an image in ``fit`` or in ``score`` are left out. Nothing is
        returned with fewer than two classes, and for values that vary, but not in ``fit``.
    """
    known = np.intersect1d(labels[fit], labels[score])
    if len(known) < 2:
        return {}
    fit, score = (rows[np.isin(labels[rows], known)] for rows in (fit, score))
    place = np.searchsorted(known, labels)
    probe = fit_probe(HeldValues(values), fit, score, place, len(known), seed, copies)
    if probe is None:
        return {}
    of_scored = None if copies is None else copies[score]
    accuracy = _chance(probe.predictions, place[score], permutations, seed, of_scored)
    return _summary(probe, place[score], accuracy)


def fit_probe(
    values: ProbedValues | HeldValues,
    fit: Rows,
    score: Rows,
    labels: NDArray[np.int64],
    classes: int,
    seed: int,
    copies: NDArray[np.int64] | None,
) -> FittedProbe | None:
    """Fit the probe of `linear_probe` on one half of the images and score it on the other.

    Args:
        values: what is decoded from.
        fit: rows of the images to fit on, ``(n,)``.
        score: rows of the images to score, ``(m,)``.
        labels: class of each image of the recording, 0 to K - 1, ``(N,)``.
        classes: number of classes K, each with images in both halves.
        seed: seed of the further split.
        copies: which images are copies of one another, ``(N,)``.

    Returns:
        The probe; None if the gate varies, but not on the images to fit on.
    """
    # Shrinkage and temperature are chosen by a split of the fitting half.
    fit_labels, score_labels = labels[fit], labels[score]
    rng = np.random.default_rng(seed + 1)  # a random stream separate from that of the halves
    parts = stratified_folds(fit_labels, 2, rng, None if copies is None else copies[fit])
    learn, judge = np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)
    trial, whole = values.rotate([(fit[learn], fit[judge]), (fit, score)])
    if whole.is_constant and values.varies:
        return None
    weight = _class_weights(fit_labels[judge], classes)
    best, right = np.zeros((len(judge), classes)), -1.0
    shrinkage = _SHRINKAGES[0]
    for value in _SHRINKAGES:
        scores = trial.scores(fit_labels[learn], classes, value)
        # Rounded, so that the largest shrinkage is chosen among equally good ones.
        found = round(float(weight @ (scores.argmax(1) == fit_labels[judge])), 9)
        if found > right:
            best, right, shrinkage = scores, found, value
    loss = [weight @ -_log_probabilities(best, fit_labels[judge], t) for t in _TEMPERATURES]
    del best, scores, trial  # those of all images to score are large, too
    scores = whole.scores(fit_labels, classes, shrinkage)
    factor = _TEMPERATURES[int(np.argmin(loss))]
    gain = _log_probabilities(scores, score_labels, factor) + np.log(classes)
    return FittedProbe(scores.argmax(1), gain, shrinkage)


def _class_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return weights of images with which each class counts the same; their sum is 1."""
    weights: NDArray[np.float64] = 1 / np.bincount(labels, minlength=classes)[labels] / classes
    return weights


def _log_probabilities(
    scores: NDArray[np.float64], labels: NDArray[np.int64], factor: float
) -> NDArray[np.float64]:
    """Return the log-probability of the class of each image, ``(m,)``.

    Args:
        scores: discriminant scores, ``(m, K)``.
        labels: class of each image, ``(m,)``.
        factor: by what the scores are multiplied.
    """
    found = np.empty(len(labels))
    # `logsumexp` makes several copies of its argument.
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        scaled, own = factor * scores[block], labels[block]
        found[block] = scaled[np.arange(len(own)), own] - special.logsumexp(scaled, axis=1)
    return found


def _chance(
    predictions: NDArray[np.int64],
    labels: NDArray[np.int64],
    permutations: int,
    seed: int,
    copies: NDArray[np.int64] | None,
) -> NDArray[np.float64]:
    """Return the balanced accuracy under the true labels and under permuted labels, ``(1 + B,)``.

    The fitted probe has not seen the scored images: without information about the class each order
    of their labels is equally likely, given the predictions. So the probe is not fitted again.
    """
    rng = np.random.default_rng(seed + 2)  # a random stream separate from those of the splits
    weight = _class_weights(labels, int(labels.max()) + 1)
    found = [float(weight @ (predictions == labels))]
    block = max(1, _CELLS // len(labels))
    for begin in range(0, permutations, block):
        orders = permuted_labels(
            np.arange(len(labels)), min(block, permutations - begin), rng, copies
        )
        found.extend(((predictions == labels[orders]) * weight[orders]).sum(1))
    return np.array(found)


def _mean_gain(gain: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the mean over the classes with its t interval (95%); NaN for a class of one image."""
    moments = class_moments(gain, labels, int(labels.max()) + 1)
    mean, classes = float(moments.mean.mean()), len(moments.count)
    parts = moments.std**2 / moments.count / classes**2
    error = float(np.sqrt(parts.sum()))
    spread = (parts**2 / np.maximum(moments.count - 1, 1)).sum()
    # Welch and Satterthwaite's degrees of freedom.
    freedom = max(parts.sum() ** 2 / spread, 1.0) if spread > 0 else 1.0
    low, high = t_interval(mean, error, freedom)
    return mean, float(low), float(high)
