"""A control task for the linear probe: labels that depend on how the pictures look, at random."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from attnscope.recording.recording import Recording
from attnscope.statistics.copies import small_pictures
from attnscope.statistics.inference import mean_share_interval, t_interval
from attnscope.statistics.logits import ProbedValues
from attnscope.statistics.probe import FIT, SCORE, FittedProbe, fit_probe
from attnscope.statistics.registry import statistic
from attnscope.statistics.splits import (
    checked_groups,
    expect_positive,
    present_classes,
    stratified_folds,
)

_COLUMNS = ["gate", "kind", "depth", "accuracy", "low", "high"]
_COLUMNS += ["control_accuracy", "control_low", "control_high"]
_COLUMNS += ["selectivity", "selectivity_low", "selectivity_high", "draws"]
_TYPES_PER_CLASS = 4
"""Number of types of pictures that get the same random class."""


@statistic("Linear probe of each gate, compared with a control task of random classes.")
def probe_selectivity(
    recording: Recording, draws: int = 5, seed: int = 0, groups: ArrayLike | None = None
) -> pd.DataFrame:
    """Compare the linear probe of each gate with the same probe of a control task.

    A probe may be accurate because a gate tells pictures apart, and not because it tells classes
    apart. Hewitt and Liang (2019, EMNLP) therefore give each type of input a random class, which
    nothing but the type determines, and call the difference between the two accuracies selectivity.
    Their types are words. Here they are regions of similar pictures: four pictures for each of the
    K classes are drawn, each picture is of the type of the nearest of them (Euclidean distance of 8
    × 8 mean gray values), and the types are dealt to K random classes, four to each. This is
    repeated for several draws. Probe, halves and balanced accuracy are those of `linear_probe`.

    ``selectivity`` near 0 means that the class is no easier to decode than random classes of
    similar pictures. It is not a test of use. If the classes themselves are regions of similar
    pictures, as those of digits are, the control task is related to them, and selectivity is too
    small.

    The interval of the control is Student's t over the draws. That of the selectivity combines it
    with the interval of `linear_probe` (Zou and Donner 2008, Statistics in Medicine 27). There is
    no test.

    Args:
        recording: recording of one network, with its pictures.
        draws: number of control tasks, at least two for an interval.
        seed: seed of the halves and the tasks.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). Splits keep them together. None: no image is a copy.

    Returns:
        One row per gate:

        - ``gate``, ``kind``, ``depth``
        - ``accuracy``, ``low``, ``high``: balanced accuracy of the class, with its 95% CI, 0 to 1:
          those of `linear_probe`.
        - ``control_accuracy``, ``control_low``, ``control_high``: mean balanced accuracy of the
          control tasks, with its 95% CI.
        - ``selectivity``, ``selectivity_low``, ``selectivity_high``: the first minus the second.
        - ``draws``: number of control tasks. Tasks in which a class has images in fewer than two
          halves are left out.

        Classes of fewer than two images are left out; copies count as one image, of the class of
        the first of them. With fewer than two classes, for a probe that cannot be fitted, and
        without a control task, all numbers except draws are NaN; intervals of the control are also
        NaN with one draw.

    Raises:
        InputError: draws is below 1 (AS701), the activation of a gate has no inverse here, or there
            is not one group per image (AS717).
    """
    expect_positive("draws", draws, 5)
    copies = checked_groups(groups, len(recording))
    known, labels, _ = present_classes(recording.labels, at_least=2, groups=copies)
    tasks = control_tasks(recording, len(known), draws, seed) if len(known) >= 2 else []
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        row: dict[str, object] = {"gate": gate.name, "kind": gate.kind, "depth": depth}
        row["draws"] = len(tasks)
        if tasks:
            values = ProbedValues(recording, gate.name, "gate")
            found = [_probed(values, each, len(known), seed, copies) for each in (labels, *tasks)]
            row |= _summary(found)
        rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def control_tasks(
    recording: Recording, classes: int, draws: int, seed: int
) -> list[NDArray[np.int64]]:
    """Return the random classes of the images under each control task, ``(N,)`` each.

    Args:
        recording: recording of one network, with its pictures.
        classes: number of classes K.
        draws: number of tasks.
        seed: seed of the tasks.

    Returns:
        At most ``draws`` tasks: those in which each of the classes has at least two images.
    """
    pictures = small_pictures(recording)
    rng = np.random.default_rng(seed + 3)  # a random stream separate from those of the probe
    types = _TYPES_PER_CLASS * classes
    found = []
    for _ in range(draws):
        centers = rng.permutation(len(pictures))[:types]
        nearest = cdist(pictures, pictures[centers]).argmin(1)
        of_type = rng.permutation(np.arange(len(centers)) % classes)
        task = of_type[nearest].astype(np.int64)
        if (np.bincount(task, minlength=classes) >= 2).all():
            found.append(task)
    return found


def _probed(
    values: ProbedValues,
    labels: NDArray[np.int64],
    classes: int,
    seed: int,
    copies: NDArray[np.int64] | None,
) -> tuple[FittedProbe, NDArray[np.int64]] | None:
    """Return the probe of some labels and the labels of the scored images; None without a probe."""
    halves = stratified_folds(labels, 2, np.random.default_rng(seed), copies)
    fit, score = np.flatnonzero(halves == FIT), np.flatnonzero(halves == SCORE)
    for half in (fit, score):  # copies may leave a class of a control task in one half only
        if (np.bincount(labels[half], minlength=classes) == 0).any():
            return None
    probe = fit_probe(values, fit, score, labels, classes, seed, copies)
    return None if probe is None else (probe, labels[score])


def _summary(found: list[tuple[FittedProbe, NDArray[np.int64]] | None]) -> dict[str, float]:
    """Return the numbers of one gate.

    Args:
        found: the probe of the class, then those of the control tasks.
    """
    first, *others = found
    scores = [_recalls(*each)[0].mean() for each in others if each is not None]
    if first is None or not scores:
        return {"draws": len(scores)}
    recalls, count = _recalls(*first)
    accuracy = float(recalls.mean())
    low, high = mean_share_interval(recalls, count)
    control = float(np.mean(scores))
    control_low = control_high = np.nan
    if len(scores) > 1:
        error = np.std(scores, ddof=1) / np.sqrt(len(scores))
        ends = t_interval(control, error, len(scores) - 1)
        control_low, control_high = max(float(ends[0]), 0.0), min(float(ends[1]), 1.0)
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "control_accuracy": control,
        "control_low": control_low,
        "control_high": control_high,
        "selectivity": accuracy - control,
        "selectivity_low": accuracy - control - np.hypot(accuracy - low, control_high - control),
        "selectivity_high": accuracy - control + np.hypot(high - accuracy, control - control_low),
        "draws": len(scores),
    }


def _recalls(
    probe: FittedProbe, labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the share of right images of each class, and their numbers."""
    count = np.bincount(labels)
    return np.bincount(labels, probe.predictions == labels) / count, count
