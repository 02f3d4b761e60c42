"""Replace gates by a constant, by a mean (mean ablation), or by the gate of another image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnscope.errors import InputError
from attnscope.gates.hooks import Edit, as_factor
from attnscope.interventions.replay import PrefixCache
from attnscope.interventions.setup import InterventionSetup, Target
from attnscope.kinds import HAS_NEUTRAL, Gate
from attnscope.progress import progress_bar
from attnscope.statistics.effects import OUTCOME_COLUMNS, OWN, margins

REPLACEMENTS = ("neutral", "mean", "predicted", "true", "random", "swap_same", "swap_other")
"""Replacements for a gate, all from donors:

- ``neutral``: the value that leaves the features unchanged;
- ``mean``: the mean over all donors (mean ablation);
- ``predicted``, ``true``, ``random``: the mean over the donors of the predicted class, of the true
  class (an oracle), or of a random class;
- ``swap_same``, ``swap_other``: the gate of a random donor of the same class, or of another class
  (resample ablation).
"""


def replace_gates(
    setup: InterventionSetup,
    *,
    edits: Sequence[str] = REPLACEMENTS,
    targets: Sequence[Target] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Predict each scored image with replaced gates.

    All gates of a target are replaced at once, by means of the same class or by the gates of the
    same donor.

    Args:
        setup: The network and its images.
        edits: Some of `REPLACEMENTS`.
        targets: Some of `InterventionSetup.targets`. Default: all of them.
        progress: Whether to show a progress bar.

    Returns:
        A data frame with one row for each target, edit and image. Columns: target, edit, row (of
        the recording), label, prediction, margin (logit of the true class minus the largest other
        logit). Rows of the unedited network have target ``""`` and edit ``own``. A row is left out
        if there is no replacement: no donor of that class, or no neutral value, as for gates over
        branches.

    Raises:
        InputError: A replacement is unknown (AS823), or the network is not deterministic (AS814).
    """
    unknown = [edit for edit in edits if edit not in REPLACEMENTS]
    if unknown:
        raise InputError(
            "AS823",
            f"the replacement '{unknown[0]}' is unknown; choose from {', '.join(REPLACEMENTS)}",
        )
    targets = setup.targets() if targets is None else list(targets)
    gates = {gate.name: gate for gate in setup.gates}
    assignment = _Assignment.draw(setup)
    by_gate = {
        name: _Replacements.read(setup, gate, edits, assignment)
        for name, gate in gates.items()
        if any(name in target.gates for target in targets)
    }
    cache = PrefixCache(setup.model, setup.gates, [target.gates for target in targets])
    frames: list[pd.DataFrame] = []
    start = 0
    with (
        setup.eval_without_gradients(),
        progress_bar(len(setup.scored), "image", description="replace", enabled=progress) as bar,
    ):
        for batch in setup.batches(setup.scored):
            places = slice(start, start + len(batch.labels))
            start = places.stop
            labels = batch.labels.numpy()
            own = cache.forward(batch.x)
            predicted = own.argmax(1).cpu().numpy()
            outcome = _BatchOutcomes(setup.scored[places], labels)
            frames.append(outcome.frame("", OWN, own))
            classes = {"predicted": predicted, "true": labels, "random": assignment.random[places]}
            for target in targets:
                for edit in edits:
                    values = {
                        name: by_gate[name].values(edit, classes, places) for name in target.gates
                    }
                    if any(value is None for value in values.values()):
                        continue
                    available = {name: value for name, value in values.items() if value is not None}
                    usable = np.ones(len(labels), bool)
                    for value in available.values():
                        usable &= np.isfinite(value).reshape(len(value), -1).all(1)
                    if not usable.any():
                        continue
                    new = cache.rerun(_edits(available, gates, setup.device))
                    frames.append(outcome.frame(target.name, edit, new, usable))
            bar.update(len(labels))
    outcomes = pd.concat(frames, ignore_index=True)
    for column in ("target", "edit"):
        order = list(dict.fromkeys(outcomes[column]))
        outcomes[column] = pd.Categorical(outcomes[column], categories=order)
    return outcomes


@dataclass(frozen=True)
class _Assignment:
    """The random class and the donors of each scored image, the same for all gates."""

    random: NDArray[np.int64]
    """``(n,)``, a class, drawn uniformly from the classes that have donors."""
    same: NDArray[np.int64]
    """``(n,)``, the row of a donor of the same class; -1 if there is none."""
    other: NDArray[np.int64]
    """``(n,)``, the row of a donor of another class; -1 if there is none."""

    @classmethod
    def draw(cls, setup: InterventionSetup) -> _Assignment:
        labels = setup.recording.labels
        donors = np.flatnonzero(setup.donors)
        rng = setup.rng("donors")
        own = labels[setup.scored]
        random = rng.choice(np.unique(labels[donors]), len(own))
        same, other = np.full(len(own), -1), np.full(len(own), -1)
        for k in np.unique(own):
            of_class = np.flatnonzero(own == k)
            alike, unlike = donors[labels[donors] == k], donors[labels[donors] != k]
            if len(alike):
                same[of_class] = rng.choice(alike, len(of_class))
            if len(unlike):
                other[of_class] = rng.choice(unlike, len(of_class))
        return cls(random, same, other)


@dataclass(frozen=True)
class _Replacements:
    """The values by which one gate is replaced."""

    gate: Gate
    mean: NDArray[np.float32]
    """Mean over the donors, such as ``(C,)``."""
    class_means: NDArray[np.float32]
    """Mean over the donors of each class, such as ``(K, C)``."""
    swapped: Mapping[str, NDArray[np.float32]]
    """Gates of the donors for ``swap_same`` and ``swap_other``, such as ``(n, C)``; NaN if there is
    no donor."""

    @classmethod
    def read(
        cls, setup: InterventionSetup, gate: Gate, edits: Sequence[str], assignment: _Assignment
    ) -> _Replacements:
        swapped = {}
        for edit, rows in (("swap_same", assignment.same), ("swap_other", assignment.other)):
            if edit in edits:
                values = setup.gates_of(gate.name, np.maximum(rows, 0))
                values[rows < 0] = np.nan
                swapped[edit] = values
        return cls(gate, setup.mean_gate(gate.name), setup.class_mean_gates(gate.name), swapped)

    def values(
        self, edit: str, classes: Mapping[str, NDArray[np.int64]], places: slice
    ) -> NDArray[np.float32] | None:
        """Return the replacement for each image of a batch, or one for all images.

        Args:
            edit: One of `REPLACEMENTS`.
            classes: Edit -> the class of each image of the batch.
            places: Places of the batch among the scored images.

        Returns:
            ``(n, ...)`` or ``(1, ...)``; None if the gate has no neutral value.
        """
        if edit == "neutral":
            # A softmax over branches has no value that leaves the features unchanged.
            if not self.gate.has(HAS_NEUTRAL):
                return None
            return np.full((1, *self.mean.shape), self.gate.neutral, np.float32)
        if edit == "mean":
            return self.mean[None]
        if edit in classes:
            return self.class_means[classes[edit]]
        return self.swapped[edit][places]


@dataclass(frozen=True)
class _BatchOutcomes:
    """Make the rows of the outcomes of one batch."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def frame(
        self, target: str, edit: str, logits: Tensor, usable: NDArray[np.bool_] | None = None
    ) -> pd.DataFrame:
        values = logits.float().cpu().numpy()
        frame = pd.DataFrame(
            {
                "target": target,
                "edit": edit,
                "row": self.rows,
                "label": self.labels,
                "prediction": values.argmax(1),
                "margin": margins(values, self.labels).astype(np.float32),
            },
            columns=OUTCOME_COLUMNS,
        )
        return frame if usable is None else frame[usable]


def _edits(
    values: Mapping[str, NDArray[np.float32]], gates: Mapping[str, Gate], device: torch.device
) -> dict[str, Edit]:
    def constant(name: str) -> Edit:
        # NaN marks images without a replacement, which are left out of the outcomes.
        factor = as_factor(torch.from_numpy(np.nan_to_num(values[name])), gates[name]).to(device)
        return lambda gate, features: factor.to(gate.dtype)

    return {name: constant(name) for name in values}
