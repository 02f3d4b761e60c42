"""How much of what a gate does depends on the class: shares of its variance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.inference import t_interval
from attnscope.statistics.reading import StandardizedGate
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import (
    expect_positive,
    null_band,
    permutation_p,
    permuted_class_sums,
    present_classes,
)

_COLUMNS = ["gate", "kind", "depth", "eta_squared", "omega_squared", "low", "high"]
_NULL = ["null_low", "null_high", "p", "constant"]


@statistic("The share of each gate's variance that lies between the classes.")
def between_class_variance(
    recording: Recording, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The share of each gate's variance that lies between the classes, over all its units at once.

    ``eta² = tr(S_B) / tr(S_T)``, and ``omega² = (tr SSB - (K - 1) tr MSW) / (tr SST + tr MSW)``,
    which takes away what chance puts between classes; docs/metrics.md derives it. Units (channels,
    or pixels) weigh by their variance.

    The interval is of omega², from the influence of each image on it, with the number of images of
    each class as given. Near 0 the influence vanishes and the interval is too narrow: there the
    band of the null and p are to be read. The null: the gate knows nothing of the class, so that
    each order of the labels was as likely (Anderson 2001, Austral Ecology 26, with Euclidean
    distance).

    Args:
        recording: what to read.
        permutations: orders of the labels; the least p is ``1 / (permutations + 1)``.
        seed: of the orders, the same for all gates.

    Returns:
        One row a gate: gate, kind, depth, eta_squared, omega_squared, low, high (95 %), null_low,
        null_high (2.5 and 97.5 % of omega² under permuted labels), p (one-sided), constant (units
        with one value for all images). Where all units are constant, with images of fewer than two
        classes, or of one image a class, all but constant is NaN; low and high are NaN where a
        class has one image.

    Raises:
        InputError: permutations is below 1.
    """
    expect_positive("permutations", permutations, 1000)
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        values = StandardizedGate(recording, gate.name)
        row: dict[str, object] = {"gate": gate.name, "kind": gate.kind, "depth": depth}
        row |= _share(values, recording.labels, permutations, seed)
        rows.append({**row, "constant": int(values.constant.sum())})
    return pd.DataFrame(rows, columns=[*_COLUMNS, *_NULL])


def _share(
    values: StandardizedGate, labels: NDArray[np.int64], permutations: int, seed: int
) -> dict[str, float]:
    known, labels, count = present_classes(labels)
    images, between = len(labels), len(known) - 1
    within = images - len(known)
    weight = values.std**2
    if between < 1 or within < 1 or values.constant.all():
        return {}
    one = np.zeros(images, np.int64)
    drawn: list[NDArray[np.float64]] = []
    means = np.zeros(0)
    for sums in permuted_class_sums(values, labels, one, permutations, seed):
        if not drawn:
            means = sums[0, 0] / count[:, None]
        drawn.append((sums[:, 0] ** 2 / count[:, None]).sum(1) @ weight)
    eta = np.concatenate(drawn) / (images * weight.sum())
    # MSW / SST, which is all that omega² needs beside eta².
    noise = (1 - eta) / within
    omega = (eta - between * noise) / (1 + noise)
    null_low, null_high = null_band(omega[1:])
    # omega² is, but for 1 / N, 1 - (1 - eta²) (N - 1) / (N - K).
    error = _standard_error(values, labels, means, count) * (images - 1) / within
    low, high = t_interval(omega[0], error, within)
    return {
        "eta_squared": eta[0],
        "omega_squared": omega[0],
        "low": float(low),
        "high": min(float(high), 1.0),
        "null_low": null_low,
        "null_high": null_high,
        "p": float(permutation_p(eta[1:], eta[0])),
    }


def _standard_error(
    values: StandardizedGate,
    labels: NDArray[np.int64],
    means: NDArray[np.float64],
    count: NDArray[np.int64],
) -> float:
    """Of eta², from each image's influence; NaN where a class has one image.

    With T the mean squared distance from the mean and W that from the class's mean, ``eta² = 1 -
    W / T``, and an image moves it by ``(W |x - m|² / T - |x - m_k|²) / T`` over N. The number of
    images of each class is given, so that only its spread within the classes counts.
    """
    if count.min() < 2:
        return float("nan")
    weight = values.std**2
    far, near = np.zeros(len(labels)), np.zeros(len(labels))
    for rows, piece in values.read():
        far[rows] = (piece.astype(np.float64) ** 2) @ weight
        near[rows] = ((piece - means[labels[rows]]) ** 2) @ weight
    total, within = far.mean(), near.mean()
    influence = (within * far / total - near) / total
    variance = sum(n * influence[labels == k].var(ddof=1) for k, n in enumerate(count))
    return float(np.sqrt(variance)) / len(labels)
