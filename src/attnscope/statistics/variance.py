"""Class dependence of a gate: the share of its variance that lies between classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.class_sums import permuted_class_sums
from attnscope.statistics.inference import t_interval
from attnscope.statistics.reading import StandardizedGate
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import null_band, permutation_p
from attnscope.statistics.splits import checked_groups, expect_positive, present_classes

_COLUMNS = ["gate", "kind", "depth", "eta_squared", "omega_squared", "low", "high"]
_NULL = ["null_low", "null_high", "p", "constant"]


@statistic("Share of each gate's variance between classes.")
def between_class_variance(
    recording: Recording,
    permutations: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compute the share of each gate's variance that lies between classes, over all its units.

    ``eta² = tr(S_B) / tr(S_T)`` and ``omega² = (tr SSB - (K - 1) tr MSW) / (tr SST + tr MSW)``,
    which subtracts the variance between classes that chance produces. docs/reference/metrics.md
    derives it.
    Units (channels or pixels) are weighted by their variance.

    The interval is a t interval of omega² from the influence of each image on it, conditional on
    the class sizes. Close to 0 the influence vanishes and the interval is too narrow; use the null
    band and p there.

    Null hypothesis: the gate holds no information about the class, so that each order of the labels
    is equally likely (Anderson 2001, Austral Ecology 26, with Euclidean distance). p is one-sided.

    Args:
        recording: recording of one network.
        permutations: number of permutations of the labels. The smallest possible p is ``1 /
            (permutations + 1)``.
        seed: seed of the permutations, which are the same for all gates.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). Their labels are permuted together; the interval
            does not know of copies. None: no image is a copy.

    Returns:
        One row per gate; no rows for a network without gates:

        - ``gate``, ``kind``, ``depth``
        - ``eta_squared``, ``omega_squared``: shares of variance.
        - ``low``, ``high``: 95% CI of omega².
        - ``null_low``, ``null_high``: ends of the central 95% of omega² under permuted labels.
        - ``p``: not corrected for the number of gates.
        - ``constant``: number of units that have the same value for all images.

        All numbers except constant are NaN if all units are constant, with fewer than two classes,
        or if every class has one image. low and high are NaN if a class has one image.

    Raises:
        InputError: permutations is below 1, a value is not finite, or there is not one group per
            image (AS717).
    """
    expect_positive("permutations", permutations, 1000)
    copies = checked_groups(groups, len(recording))
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        values = StandardizedGate(recording, gate.name)
        row: dict[str, object] = {"gate": gate.name, "kind": gate.kind, "depth": depth}
        row |= _share(values, recording.labels, permutations, seed, copies)
        rows.append({**row, "constant": int(values.constant.sum())})
    return pd.DataFrame(rows, columns=[*_COLUMNS, *_NULL])


def _share(
    values: StandardizedGate,
    labels: NDArray[np.int64],
    permutations: int,
    seed: int,
    copies: NDArray[np.int64] | None,
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
    for sums in permuted_class_sums(values, labels, one, permutations, seed, copies=copies):
        if not drawn:
            means = sums[0, 0] / count[:, None]
        drawn.append((sums[:, 0] ** 2 / count[:, None]).sum(1) @ weight)
    eta = np.concatenate(drawn) / (images * weight.sum())
    # MSW / SST: omega² is a function of this ratio and eta².
    noise = (1 - eta) / within
    omega = (eta - between * noise) / (1 + noise)
    null_low, null_high = null_band(omega[1:])
    # Up to terms of order 1 / N, omega² is 1 - (1 - eta²) (N - 1) / (N - K).
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
    """Return the standard error of eta² from the influence of each image; NaN for classes of one
    image.

    Let T be the mean squared distance from the mean and W that from the class means, so that ``eta²
    = 1 - W / T``. An image changes eta² by ``(W |x - m|² / T - |x - m_k|²) / T`` over N. The class
    sizes are given, so only the spread of the influence within classes counts.
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
