"""Linear probes: how well the class can be decoded from a gate, with controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Float64
from numpy.typing import NDArray
from scipy import special

from attnscope.errors import InputError
from attnscope.kinds import Gate
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.inference import mean_share_interval
from attnscope.statistics.reading import (
    expect_finite,
    gate_chunks,
    read_units,
    unit_blocks,
    units_of,
)
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import (
    expect_positive,
    null_band,
    permutation_p,
    permuted_labels,
    present_classes,
    stratified_folds,
)
from attnscope.statistics.rotation import Rotated, Rows, rotate_blocks

_SCORE, _FIT = 0, 1  # with an odd number of images, the scoring half is larger
_EDGE = 2.0**-24
"""Half the distance between 1 and the next smaller float32. The logit of a sigmoid here is -16.6.
"""
_SHRINKAGES = (0.1, 0.01, 1e-3, 1e-4)
"""Candidate weights of the identity in the covariance matrix. None is 0, since classes that can be
separated without an error would leave no covariance within classes.
"""
_CELLS = 2**23
"""Number of scores that are held in memory at a time."""
_MANY_UNITS = 4096
"""Up to this number of units, values are held in memory, whatever the number of images."""

_Inverse = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_LOGIT: _Inverse = special.logit


def _identity(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return share


# Maps the gate's relative position between its bounds (0 to 1) to the input of the activation, up
# to a scale and a constant, which a linear probe ignores. A tanh is a sigmoid of twice the logit.
# The logarithm of a softmax is its input up to a constant for each image.
_INVERSES: Mapping[str, _Inverse] = {
    "sigmoid": _LOGIT,
    "tanh": _LOGIT,
    "softmax": np.log,
    "softsign": lambda u: (2 * u - 1) / (1 - np.abs(2 * u - 1)),
    "erf": lambda u: special.erfinv(2 * u - 1),
    "hardsigmoid": _identity,
    "relu6": _identity,
    "clamp": _identity,
    "hardtanh": _identity,
    "none": _identity,
}
INVERTIBLE = tuple(_INVERSES)
"""Activations of which the inverse is known."""


@statistic("Values before the activation of a gate.", takes=("recording", "gate"))
def gate_logits(recording: Recording, gate: str) -> tuple[Float32[Array, "images units"], int]:
    """Invert the activation of a gate, to recover the values before it.

    With the bounds lo and hi of the gate, ``u = (g - lo) / (hi - lo)`` is mapped by the inverse of
    the activation: the logit for a sigmoid, the identity for a hard sigmoid, the logarithm for a
    softmax. The result equals the input of the activation up to a scale and a constant, which a
    linear probe ignores; for a softmax, up to a constant per image. Values within 2⁻²⁴ of a bound,
    the resolution of float32 near 1, have no finite inverse and are clipped to that distance. The
    values of a multiplier without bounds are returned as they are.

    Args:
        recording: recording of one network.
        gate: name of a gate of any kind.

    Returns:
        The values before the activation, where the units are the channels of a channel gate or the
        positions of another kind of gate; and the number of clipped values.

    Raises:
        InputError: the gate does not exist, its activation has no inverse here, or a value is not
            finite.
    """
    return _read_logits(recording, gate, slice(0, units_of(recording, gate)))


@statistic("How well the class can be decoded from each gate by a linear classifier.")
def linear_probe(
    recording: Recording, permutations: int = 200, seed: int = 0, of: str = "gate"
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

    Null hypothesis: the gate holds no information about the class. The control is the same probe,
    including the choice of the weight, fitted and scored on permuted labels. Two more controls are
    this function applied elsewhere: with ``of="pooled_input"`` it measures what can be decoded from
    the input of the gate, on the same halves, and on the recording of an untrained network what can
    be decoded without training.

    Args:
        recording: recording of one network. One gate is in memory at a time.
        permutations: number of permutations of the labels. The smallest possible p is ``1 /
            (permutations + 1)``.
        seed: seed of the halves and the permutations.
        of: what to decode from: ``gate``, or ``pooled_input`` (`Recording.pooled_input`), which is
            in units of the features and is used without a logit.

    Returns:
        One row per gate:

        - ``gate``, ``kind``, ``depth``
        - ``balanced_accuracy``: 0 to 1. The chance level is one over the number of classes.
        - ``low``, ``high``: 95% CI.
        - ``null``: mean under permuted labels.
        - ``null_low``, ``null_high``: 2.5% and 97.5% quantiles under permuted labels.
        - ``p``: one-sided.
        - ``p_max``: p corrected over the gates, by comparison with the highest accuracy of any gate
          under each permutation (Westfall and Young 1993, Resampling-Based Multiple Testing).
        - ``fitted``, ``scored``: number of images in each half.
        - ``shrinkage``: weight of the identity in the covariance.
        - ``clipped``: number of values without a finite logit; 0 for pooled inputs.

        Classes of fewer than two images are left out. With fewer than two classes, and for a gate
        that multiplies another gate and so has no pooled input, fitted and scored are 0 and all
        other numbers except clipped are NaN. A constant gate is at the chance level.

    Raises:
        InputError: permutations is below 1, ``of`` is unknown, the activation of a gate has no
            inverse here, the pooled inputs were not recorded or are not finite, or a gate with more
            than 2²⁷ values for all images was recorded for too many images (AS715).
    """
    expect_positive("permutations", permutations, 200)
    if of not in _READERS:
        raise InputError(
            "AS706", f"the probe cannot use of='{of}'; choose one of {', '.join(_READERS)}"
        )
    known, labels, _ = present_classes(recording.labels, at_least=2)
    halves = stratified_folds(labels, 2, np.random.default_rng(seed))
    rows = []
    drawn: dict[int, NDArray[np.float64]] = {}  # row -> accuracies, of the true labels first
    for depth, gate in enumerate(recording.gates, start=1):
        row: dict[str, object] = {"gate": gate.name, "kind": gate.kind, "depth": depth}
        row |= {"clipped": 0, "fitted": 0, "scored": 0}
        if of == "gate" or gate.name in recording.pooled_inputs or not recording.pooled_inputs:
            values = _Values(recording, gate.name, of)
        else:  # only this gate has no pooled input; without any, reading them raises an error
            rows.append(row)
            continue
        if len(known) >= 2:
            fit, score = halves == _FIT, halves == _SCORE
            accuracy, recalls, shrinkage = _permuted_accuracy(
                values, np.flatnonzero(fit), np.flatnonzero(score), labels, permutations, seed
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
        else:
            values.rotate([])  # it counts the clipped values
        row["clipped"] = values.clipped
        rows.append(row)
    columns = ["gate", "kind", "depth", "balanced_accuracy", "low", "high"]
    columns += ["null", "null_low", "null_high", "p", "p_max", "fitted", "scored"]
    columns += ["shrinkage", "clipped"]
    if drawn:
        # All gates use the same permutations of the labels.
        highest = np.max([accuracy[1:] for accuracy in drawn.values()], axis=0)
        for place, accuracy in drawn.items():
            rows[place]["p_max"] = float(permutation_p(highest, accuracy[0]))
    return pd.DataFrame(rows, columns=columns)


def _read_logits(recording: Recording, gate: str, units: slice) -> tuple[NDArray[np.float32], int]:
    """Return the `gate_logits` of some units, ``(N, n)``, and the number of clipped values."""
    about = recording.info(gate)
    if about.activation not in INVERTIBLE:
        raise InputError(
            "AS705",
            f"gate '{gate}' has the activation {about.activation}, whose inverse is unknown; the "
            f"activation must be one of {', '.join(_INVERSES)}; for a linear probe of such a "
            'network use of="pooled_input"',
        )
    logits = np.empty((len(recording), units.stop - units.start), np.float32)
    clipped = 0
    for rows in gate_chunks(recording, gate):
        recorded = recording.gate(gate, rows)
        values = recorded.reshape(len(recorded), -1)[:, units].astype(np.float64)
        expect_finite(values, f"gate '{gate}'", recording)
        logits[rows], count = logits_of_values(values, about)
        clipped += count
    return logits, clipped


def logits_of_values(
    values: Float[Array, "images *gate"], gate: Gate
) -> tuple[Float64[Array, "images units"], int]:
    """Invert the activation of a gate for given values, as `gate_logits` does.

    Args:
        values: ``(n, ...)``, finite values of the gate.
        gate: the gate, whose activation is one of `INVERTIBLE`.

    Returns:
        The logits, ``(n, U)``, and the number of clipped values.
    """
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    if not gate.bounded:  # there was no activation
        return flat, 0
    share = (flat - gate.lo) / (gate.hi - gate.lo)
    clipped = int(((share < _EDGE) | (share > 1 - _EDGE)).sum())
    return _INVERSES[gate.activation](np.clip(share, _EDGE, 1 - _EDGE)), clipped


def _read_inputs(recording: Recording, gate: str, units: slice) -> tuple[NDArray[np.float32], int]:
    """Return the pooled input of a gate for some units, ``(N, n)``; no value is clipped."""
    inputs = read_units(partial(recording.pooled_input, gate), len(recording), units)
    # Gates are bounded, but the features that they multiply may overflow.
    expect_finite(inputs, f"the pooled input of gate '{gate}'", recording)
    return inputs, 0


_READERS = {"gate": _read_logits, "pooled_input": _read_inputs}
"""What is decoded from -> how it is read."""


class _Values:
    """What is decoded from one gate: all values at once, or some units at a time."""

    def __init__(self, recording: Recording, gate: str, of: str) -> None:
        self.clipped = 0
        """Number of values without a finite logit, once they have been read."""
        self._gate, self._images = gate, len(recording)
        self._read = partial(_READERS[of], recording, gate)
        empty = (recording.gate if of == "gate" else recording.pooled_input)(gate, slice(0, 0))
        self._units = int(np.prod(empty.shape[1:]))
        self._blocks = list(unit_blocks(self._images, self._units))
        self._is_large = len(self._blocks) > 1 and self._units > _MANY_UNITS

    @property
    def width(self) -> int:
        """Number of axes of what `rotate` returns, at most."""
        return self._images if self._is_large else self._units

    def rotate(self, pairs: Sequence[tuple[Rows, Rows]]) -> list[Rotated]:
        """Return the images to fit on and those to score, in principal axes, for each pair."""
        self.clipped = 0
        if self._is_large:
            return rotate_blocks(map(self._block, self._blocks), pairs, self._gate)
        values = self._block(slice(0, self._units))
        return [Rotated.of(values[fit], values[score]) for fit, score in pairs]

    def _block(self, units: slice) -> NDArray[np.float32]:
        values, clipped = self._read(units)
        self.clipped += clipped
        return values


def _permuted_accuracy(
    values: _Values, fit: Rows, score: Rows, labels: NDArray[np.int64], permutations: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Fit and score the probe under the true labels and under permuted labels.

    The shrinkage is chosen anew for each order of the labels, by a split of the fitting half.

    Returns:
        Balanced accuracies ``(1 + permutations,)``, that of the true labels first. For the true
        labels also the recalls ``(K,)`` and the shrinkage.
    """
    fit_labels, score_labels = labels[fit], labels[score]
    classes = int(fit_labels.max()) + 1
    rng = np.random.default_rng(seed + 1)  # a random stream separate from that of the halves
    parts = stratified_folds(fit_labels, 2, rng)
    learn, judge = np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)
    trial, whole = values.rotate([(fit[learn], fit[judge]), (fit, score)])
    # One stream per half, so that the orders do not depend on the block size.
    of_fit, of_score = rng.spawn(2)
    draws = permutations + 1
    block = max(1, _CELLS // (classes * max(len(fit), len(score), values.width)))
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
        # Rounded, so that the largest shrinkage is chosen among equally good ones.
        choice = np.argmax(np.round(tried, 9), 0)
        found = np.zeros((size, classes))
        for j in np.unique(choice):
            rows = choice == j
            found[rows] = whole.recalls(here[rows], there[rows], classes, _SHRINKAGES[j])
        accuracy.append(found.mean(1))
        if begin == 0:
            recalls, shrinkage = found[0], _SHRINKAGES[choice[0]]
    return np.concatenate(accuracy), recalls, shrinkage
