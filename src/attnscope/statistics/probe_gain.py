"""Whether a gate holds more class information than its input, or than before training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.inference import t_interval
from attnscope.statistics.logits import ProbedValues
from attnscope.statistics.probe import FIT, SCORE, fit_probe
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.registry import statistic
from attnscope.statistics.splits import checked_groups, present_classes, stratified_folds


@statistic("Whether a gate holds more class information than its input, or than before training.")
def probe_gain(
    recording: Recording,
    untrained: Recording | Sequence[Recording] = (),
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare the linear probe of each gate with that of a control, on the same images.

    The intervals of two accuracies say little about their difference, because both probes are right
    about the same easy images. The probes of `linear_probe` are cross-fitted: each half of the
    images is scored by the probe that was fitted on the other half, so that every image is scored
    once (Chernozhukov et al. 2018, The Econometrics Journal 21). The difference is that of the
    balanced accuracies. Its interval is Student's t of the differences of single images within
    classes, with Welch and Satterthwaite's degrees of freedom; two images that one probe alone
    classifies correctly, one for each, are added to their spread, so that it has a width where no
    image differs (after Bonett and Price 2012, Journal of Educational and Behavioral Statistics
    37). It is conditional on the fitted probes. There is no test.

    Args:
        recording: recording of one network.
        untrained: recordings of the same network before training, of the same images. Several draws
            of the weights are averaged, image by image.
        seed: seed of the halves.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). Splits keep them together. None: no image is a copy.

    Returns:
        One row per gate and control that was recorded:

        - ``gate``, ``kind``, ``depth``
        - ``control``: ``pooled_input`` or ``untrained``.
        - ``accuracy``, ``control_accuracy``: balanced accuracies, 0 to 1.
        - ``difference``: the first minus the second.
        - ``low``, ``high``: 95% CI; NaN if a class has one image.
        - ``draws``: number of untrained networks; 1 for the input.
        - ``images``: number of scored images.

        Classes of fewer than two images are left out; copies count as one image, of the class of
        the first of them. With fewer than two classes, and for a probe that cannot be fitted, all
        numbers except draws and images are NaN.

    Raises:
        InputError: the recordings do not hold the same images, the activation of a gate has no
            inverse here, or there is not one group per image (AS717).
    """
    controls = several(untrained)
    for control in controls:
        expect_same_images(recording, control)
    copies = checked_groups(groups, len(recording))
    known, labels, _ = present_classes(recording.labels, at_least=2, groups=copies)
    halves = stratified_folds(labels, 2, np.random.default_rng(seed), copies)
    pair = (np.flatnonzero(halves == FIT), np.flatnonzero(halves == SCORE))

    def right(sources: Iterable[tuple[Recording, str]], gate: str) -> NDArray[np.float64]:
        """Return the share of probes that are right about each image, ``(N,)``; NaN for none."""
        found = []
        for source, of in sources:
            values = ProbedValues(source, gate, of)
            once = np.full(len(labels), np.nan)
            for fit, score in (pair, pair[::-1]):
                probe = fit_probe(values, fit, score, labels, len(known), seed, copies)
                if probe is not None:
                    once[score] = probe.predictions == labels[score]
            found.append(once)
        return np.asarray(np.mean(found, 0))

    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        sources = {}
        if gate.name in recording.pooled_inputs:
            sources["pooled_input"] = [(recording, "pooled_input")]
        if controls and all(gate.name in control for control in controls):
            sources["untrained"] = [(control, "gate") for control in controls]
        own = None
        for name, each in sources.items():
            row: dict[str, object] = {"gate": gate.name, "kind": gate.kind, "depth": depth}
            row |= {"control": name, "draws": len(each), "images": int((labels >= 0).sum())}
            if len(known) >= 2:
                own = right([(recording, "gate")], gate.name) if own is None else own
                row |= _difference(own, right(each, gate.name), labels)
            rows.append(row)
    columns = ["gate", "kind", "depth", "control", "accuracy", "control_accuracy", "difference"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high", "draws", "images"])


def several(untrained: Recording | Sequence[Recording] | None) -> list[Recording]:
    """Return one recording, several, or none as a list."""
    if untrained is None:
        return []
    return [untrained] if isinstance(untrained, Recording) else list(untrained)


def _difference(
    own: NDArray[np.float64], control: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, float]:
    kept = labels >= 0
    classes = int(labels.max()) + 1
    first, second, apart = (
        class_moments(values[kept], labels[kept], classes)
        for values in (own, control, own - control)
    )
    n = apart.count
    parts = ((n - 1) * apart.std**2 + 2 / classes) / n**2 / classes**2
    freedom = parts.sum() ** 2 / (parts**2 / np.maximum(n - 1, 1)).sum()
    difference = float(apart.mean.mean())
    low, high = t_interval(difference, np.sqrt(parts.sum()), max(freedom, 1.0))
    return {
        "accuracy": float(first.mean.mean()),
        "control_accuracy": float(second.mean.mean()),
        "difference": difference,
        "low": max(float(low), -1.0),
        "high": min(float(high), 1.0),
    }
