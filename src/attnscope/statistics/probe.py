"""Whether the class can be read from a gate: a linear probe of its logits, and its control."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import mean_share_interval
from attnscope.statistics.reading import expect_finite
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import (
    class_sums,
    expect_positive,
    null_band,
    permutation_p,
    permuted_labels,
    present_classes,
    stratified_folds,
)

_SCORE, _FIT = 0, 1  # the half that is scored is the one that gets a class's odd image
_EDGE = 2.0**-24
"""Half the distance of 1 and the next smaller float32: a sigmoid's logit of it is -16.6."""
_SHRINKAGES = (0.1, 0.01, 1e-3, 1e-4)
"""Shares of the unit matrix in the covariance, of which one is chosen. None is 0, or classes that
can be told without a mistake would leave no covariance within."""
_CELLS = 2**23
"""Scores that are held at a time."""
_SOURCES = ("gate", "pooled_input")

_Inverse = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_LOGIT: _Inverse = special.logit


def _same(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return share


# From the gate's place between its bounds, 0 to 1, to what went into the activation, but for a
# scale and a constant that no probe sees. A tanh is a sigmoid of twice the logit. Of a softmax the
# logarithm is what went in, but for a constant of the image.
_INVERSES: Mapping[str, _Inverse] = {
    "sigmoid": _LOGIT,
    "tanh": _LOGIT,
    "softmax": np.log,
    "softsign": lambda u: (2 * u - 1) / (1 - np.abs(2 * u - 1)),
    "erf": lambda u: special.erfinv(2 * u - 1),
    "hardsigmoid": _same,
    "relu6": _same,
    "clamp": _same,
    "hardtanh": _same,
}


@statistic("What went into a gate's activation.", takes=("recording", "gate"))
def gate_logits(recording: Recording, gate: str) -> tuple[NDArray[np.float32], int]:
    """What went into a gate's activation, as far as its values say.

    The gate's place ``u = (g - lo) / (hi - lo)`` between its bounds goes through the inverse of the
    activation, which is that of a sigmoid for a sigmoid, linear for a hard one. A value nearer to a
    bound than float32 can tell from 1, 2**-24, has no finite inverse: it is set to that distance.

    Returns:
        ``(N, U)``, U channels of a channel gate, or positions of another kind; and how many values
        were so clipped.

    Raises:
        InputError: there is no such gate, its activation has no inverse here, or a value is not
            finite.
    """
    about = recording.info(gate)
    inverse = _INVERSES.get(about.activation)
    if inverse is None:
        raise InputError(
            f"gate '{gate}' is made by {about.activation}, whose inverse is not known; "
            f"probe a gate of {', '.join(_INVERSES)}"
        )
    values = recording.gate(gate).astype(np.float64)
    expect_finite(values, f"'{gate}'", recording)
    share = (values.reshape(len(values), -1) - about.lo) / (about.hi - about.lo)
    clipped = int(((share < _EDGE) | (share > 1 - _EDGE)).sum())
    return inverse(np.clip(share, _EDGE, 1 - _EDGE)).astype(np.float32), clipped


@statistic("How well the class can be read from each gate by a linear classifier.")
def linear_probe(
    recording: Recording, permutations: int = 200, seed: int = 0, of: str = "gate"
) -> pd.DataFrame:
    """How well the true class can be read from each gate's logits by a linear classifier.

    The images of each class are halved at random; the probe is fitted on one half and scored on the
    other, by its balanced accuracy: the mean over the classes of the share that it gets right. It
    is linear discriminant analysis (Fisher 1936, Annals of Eugenics 7) of the logits scaled on the
    half that fits, every class equally likely, the covariance regularised (Friedman 1989, JASA 84)
    by the share of the unit matrix that does best from one part of that half to the other. One
    split rather than folds: given the fit, the scored images are independent, so that their
    interval is one. It joins Wilson's (1927, JASA 22) of each class by the method of Zou and Donner
    (2008, Statistics in Medicine 27), and is of this probe: with more images to learn from, another
    would be better.

    The control is the same probe, fitted and scored on permuted labels. The null of p: the gate
    knows nothing of the class. Two more controls are the same function on something else: with
    ``of="pooled_input"`` how much could be read from what the gate got, on the same halves, and on
    the recording of an untrained network how much is there without training.

    Args:
        recording: what to read; the logits of one gate are in memory at a time.
        permutations: of the labels, for the control; the least p is ``1 / (permutations + 1)``.
        seed: of the halves and the permutations.
        of: ``gate``, or ``pooled_input``: `Recording.pooled_input` as it is, in units of the
            features, without a logit; only the centring and scaling of the half that fits.

    Returns:
        One row a gate of any kind: gate, kind, depth, balanced_accuracy (0 to 1; chance is one over
        the number of classes), low, high (95 %), null (mean under permuted labels), null_low,
        null_high (2.5 and 97.5 % of it), p, p_max (corrected over the gates: against the highest
        accuracy of any gate under each permutation, Westfall and Young 1993, Resampling-Based
        Multiple Testing), fitted, scored (images), shrinkage (the share of the unit matrix),
        clipped (values without a finite logit; 0 of pooled inputs). Classes of fewer than two
        images are left out; with fewer than two classes all numbers but clipped are NaN and nothing
        is fitted, nor is it for a gate that multiplies another gate and so has no pooled input. A
        constant gate is at chance.

    Raises:
        InputError: permutations is below 1, ``of`` is not known, the activation of a gate has no
            inverse here, or pooled inputs were not recorded or are not finite.
    """
    expect_positive("permutations", permutations, 200)
    if of not in _SOURCES:
        raise InputError(f"'{of}' of a gate cannot be probed; take {' or '.join(_SOURCES)}")
    known, labels, _ = present_classes(recording.labels, at_least=2)
    halves = stratified_folds(labels, 2, np.random.default_rng(seed))
    rows = []
    drawn: dict[int, NDArray[np.float64]] = {}  # by row: the accuracies, of the true labels first
    for depth, gate in enumerate(recording.gates, start=1):
        row: dict[str, object] = {"gate": gate.name, "kind": gate.kind, "depth": depth}
        row |= {"clipped": 0, "fitted": 0, "scored": 0}
        if of == "gate":
            values, row["clipped"] = gate_logits(recording, gate.name)
        elif gate.name in recording.pooled_inputs or not recording.pooled_inputs:
            values = _finite_inputs(recording, gate.name)
        else:  # this gate alone; where there is none at all, the recording has been refused
            rows.append(row)
            continue
        if len(known) >= 2:
            fit, score = halves == _FIT, halves == _SCORE
            accuracy, recalls, shrinkage = _permuted_accuracy(
                values[fit], labels[fit], values[score], labels[score], permutations, seed
            )
            low, high = mean_share_interval(recalls, np.bincount(labels[score]))
            null_low, null_high = null_band(accuracy[1:])
            drawn[len(rows)] = accuracy
            row |= {
                "balanced_accuracy": recalls.mean(),
                "low": low,
                "high": high,
                "null": accuracy[1:].mean(),
                "null_low": null_low,
                "null_high": null_high,
                "p": float(permutation_p(accuracy[1:], accuracy[0])),
                "fitted": int(fit.sum()),
                "scored": int(score.sum()),
                "shrinkage": shrinkage,
            }
        rows.append(row)
    columns = ["gate", "kind", "depth", "balanced_accuracy", "low", "high"]
    columns += ["null", "null_low", "null_high", "p", "p_max", "fitted", "scored"]
    columns += ["shrinkage", "clipped"]
    if drawn:
        # The orders of the labels are the same for all gates.
        highest = np.max([accuracy[1:] for accuracy in drawn.values()], axis=0)
        for place, accuracy in drawn.items():
            rows[place]["p_max"] = float(permutation_p(highest, accuracy[0]))
    return pd.DataFrame(rows, columns=columns)


def _finite_inputs(recording: Recording, gate: str) -> NDArray[np.float32]:
    """The pooled input of a gate, ``(N, U)``."""
    inputs = recording.pooled_input(gate)
    inputs = inputs.reshape(len(inputs), -1)
    # Gates are bounded; what they multiply may overflow.
    expect_finite(inputs, f"the pooled input of '{gate}'", recording)
    return inputs


def _permuted_accuracy(
    fit: NDArray[np.float32],
    fit_labels: NDArray[np.int64],
    score: NDArray[np.float32],
    score_labels: NDArray[np.int64],
    permutations: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Balanced accuracies ``(1 + permutations,)``, those of the true labels first.

    And of the true labels the recalls ``(K,)`` and the shrinkage. Under each order of the labels
    the shrinkage is chosen anew, on two parts of the half that fits.
    """
    classes = int(fit_labels.max()) + 1
    rng = np.random.default_rng(seed + 1)  # another stream than that of the halves
    parts = stratified_folds(fit_labels, 2, rng)
    learn, judge = np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)
    # A stream for each half: so the orders do not depend on how many are drawn at a time.
    of_fit, of_score = rng.spawn(2)
    trial = _Rotated(fit[learn], fit[judge])
    whole = _Rotated(fit, score)
    draws = permutations + 1
    block = max(1, _CELLS // (classes * max(len(fit), len(score), fit.shape[1])))
    accuracy = []
    recalls, shrinkage = np.zeros(0), _SHRINKAGES[0]
    for begin in range(0, draws, block):
        size = min(block, draws - begin)
        here = permuted_labels(fit_labels, size, of_fit)
        there = permuted_labels(score_labels, size, of_score)
        if begin == 0:
            here[0], there[0] = fit_labels, score_labels
        tried = [
            trial.recalls(here[:, learn], here[:, judge], classes, value).mean(1)
            for value in _SHRINKAGES
        ]
        # The largest where several are as good, whatever the last digits of their means are.
        choice = np.argmax(np.round(tried, 9), 0)
        found = np.zeros((size, classes))
        for j in np.unique(choice):
            rows = choice == j
            found[rows] = whole.recalls(here[rows], there[rows], classes, _SHRINKAGES[j])
        accuracy.append(found.mean(1))
        if begin == 0:
            recalls, shrinkage = found[0], _SHRINKAGES[choice[0]]
    return np.concatenate(accuracy), recalls, shrinkage


class _Rotated:
    """Images to fit on and to score, in the principal axes of the former, which know no labels.

    In these axes each shrinkage d of the covariance is a scale for each axis, and whitens it. Then,
    M being the class means and D the shares of the classes, the covariance within the classes is
    ``I - (1 - d) M' D M``, and by Woodbury's identity its inverse applied to the means is
    ``M' (I - (1 - d) D M M')^-1``: for no labeling is anything larger than K × K inverted.
    """

    def __init__(self, fit: NDArray[np.float32], score: NDArray[np.float32]) -> None:
        varying = fit.max(0) > fit.min(0)
        x, y = fit[:, varying].astype(np.float64), score[:, varying].astype(np.float64)
        self._roots = np.zeros(0)
        if varying.any():
            mean, std = x.mean(0), x.std(0)
            x, y = (x - mean) / std, (y - mean) / std
            if x.shape[1] > len(x):
                # Pixels of a large map: no matrix of all pairs of them. What the images do not span
                # holds no class mean, and so no part of any score.
                _, singular, axes = np.linalg.svd(x, full_matrices=False)
                self._roots, axes = singular**2 / len(x), axes.T
            else:
                self._roots, axes = np.linalg.eigh(x.T @ x / len(x))
            x, y = x @ axes, y @ axes
        self._fit, self._score = x.astype(np.float32), y.astype(np.float32)

    def recalls(
        self,
        fit_labels: NDArray[np.int64],
        score_labels: NDArray[np.int64],
        classes: int,
        shrinkage: float,
    ) -> NDArray[np.float64]:
        """Shares of the images of each class that are scored right, ``(B, K)``, for B labelings.

        A class without images counts as never right.
        """
        images, draws = len(self._score), len(fit_labels)
        scale = 1 / np.sqrt((1 - shrinkage) * np.maximum(self._roots, 0) + shrinkage)
        x, y = (values * scale.astype(np.float32) for values in (self._fit, self._score))
        count = class_sums(fit_labels, classes, np.ones((len(x), 1), np.float32))
        means = class_sums(fit_labels, classes, x) / np.maximum(count, 1)
        gram = (means @ means.transpose(0, 2, 1)).astype(np.float64)
        weights = np.linalg.inv(np.eye(classes) - (1 - shrinkage) * count / len(x) * gram)
        offset = np.einsum("bij,bji->bi", gram, weights) / 2
        projected = (y @ means.reshape(draws * classes, x.shape[1]).T).reshape(
            images, draws, classes
        )
        right = (projected.transpose(1, 0, 2) @ weights - offset[:, None]).argmax(2) == score_labels
        place = score_labels + classes * np.arange(draws)[:, None]
        number = np.bincount(place.ravel(), minlength=draws * classes)
        hits = np.bincount(place.ravel(), right.ravel(), draws * classes)
        found: NDArray[np.float64] = (hits / np.maximum(number, 1)).reshape(draws, classes)
        return found
