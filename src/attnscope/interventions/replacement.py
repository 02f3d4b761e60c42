"""Each gate replaced: by a number, by means, by the gate of another image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from attnscope.errors import InputError
from attnscope.gates.hooks import Edit, as_factor
from attnscope.interventions.replay import Tape
from attnscope.interventions.setup import InterventionSetup, Target
from attnscope.kinds import HAS_NEUTRAL, Gate
from attnscope.statistics.effects import OUTCOME_COLUMNS, OWN, margins

REPLACEMENTS = ("neutral", "mean", "predicted", "true", "random", "swap_same", "swap_other")
"""By the value that changes nothing; the mean over all other images; the mean of the predicted
class, of the true one (an oracle: nobody knows it), of a random one; the gate of another image of
the same class, and of another class."""


def replace_gates(
    setup: InterventionSetup,
    *,
    edits: Sequence[str] = REPLACEMENTS,
    targets: Sequence[Target] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """What the network says of each scored image when its gates are others.

    Means and gates come from the images that are not scored. In one target all gates are replaced
    at once, by those of the same class or the same other image.

    Args:
        setup: the network and its images.
        edits: of `REPLACEMENTS`.
        targets: of `InterventionSetup.targets`; default all of them.
        progress: whether to show a bar.

    Returns:
        One row a target, edit and image: target, edit, row (of the recording), label, prediction,
        margin (true logit minus the largest other one); of the unedited network once, with target
        ``""`` and edit ``own``. No row where there is nothing to replace by: no other image of that
        class, or a gate over paths, of which no value changes nothing.

    Raises:
        InputError: an edit is not known, or the network does not give the same logits twice.
    """
    unknown = [edit for edit in edits if edit not in REPLACEMENTS]
    if unknown:
        raise InputError(f"edit '{unknown[0]}' is not known; take of {', '.join(REPLACEMENTS)}")
    targets = setup.targets() if targets is None else list(targets)
    gates = {gate.name: gate for gate in setup.gates}
    draws = _Draws.of(setup)
    stock = {
        name: _Stock.of(setup, gate, edits, draws)
        for name, gate in gates.items()
        if any(name in target.gates for target in targets)
    }
    tape = Tape(setup.model, setup.gates, [target.gates for target in targets])
    frames: list[pd.DataFrame] = []
    start = 0
    with (
        setup.quiet(),
        tqdm(
            total=len(setup.scored), unit="image", disable=not progress, dynamic_ncols=True
        ) as bar,
    ):
        for batch in setup.batches(setup.scored):
            places = slice(start, start + len(batch.labels))
            start = places.stop
            labels = batch.labels.numpy()
            own = tape.forward(batch.x)
            predicted = own.argmax(1).cpu().numpy()
            base = _Frame(setup.scored[places], labels)
            frames.append(base.of("", OWN, own))
            classes = {"predicted": predicted, "true": labels, "random": draws.random[places]}
            for target in targets:
                for edit in edits:
                    values = {
                        name: stock[name].values(edit, classes, places) for name in target.gates
                    }
                    if any(value is None for value in values.values()):
                        continue
                    known = {name: value for name, value in values.items() if value is not None}
                    usable = np.ones(len(labels), bool)
                    for value in known.values():
                        usable &= np.isfinite(value).reshape(len(value), -1).all(1)
                    if not usable.any():
                        continue
                    new = tape.again(_edits(known, gates, setup.device))
                    frames.append(base.of(target.name, edit, new, usable))
            bar.update(len(labels))
    outcomes = pd.concat(frames, ignore_index=True)
    for column in ("target", "edit"):
        order = list(dict.fromkeys(outcomes[column]))
        outcomes[column] = pd.Categorical(outcomes[column], categories=order)
    return outcomes


@dataclass(frozen=True)
class _Draws:
    """What is drawn for each scored image, the same for all gates."""

    random: NDArray[np.int64]
    """``(n,)``, a class; each that has other images is as likely as another."""
    same: NDArray[np.int64]
    """``(n,)``, the row of another image of the same class; -1 where there is none."""
    other: NDArray[np.int64]
    """``(n,)``, that of an image of another class."""

    @classmethod
    def of(cls, setup: InterventionSetup) -> _Draws:
        labels = setup.recording.labels
        lenders = np.flatnonzero(setup.others)
        rng = setup.rng("donors")
        own = labels[setup.scored]
        random = rng.choice(np.unique(labels[lenders]), len(own))
        same, other = np.full(len(own), -1), np.full(len(own), -1)
        for k in np.unique(own):
            mine = np.flatnonzero(own == k)
            alike, unlike = lenders[labels[lenders] == k], lenders[labels[lenders] != k]
            if len(alike):
                same[mine] = rng.choice(alike, len(mine))
            if len(unlike):
                other[mine] = rng.choice(unlike, len(mine))
        return cls(random, same, other)


@dataclass(frozen=True)
class _Stock:
    """What may stand in the place of one gate."""

    gate: Gate
    mean: NDArray[np.float32]
    """As the gate is read, without the axis of images."""
    class_means: NDArray[np.float32]
    donors: Mapping[str, NDArray[np.float32]]
    """Of ``swap_same`` and ``swap_other``, one for each scored image; NaN where there is none."""

    @classmethod
    def of(
        cls, setup: InterventionSetup, gate: Gate, edits: Sequence[str], draws: _Draws
    ) -> _Stock:
        donors = {}
        for edit, rows in (("swap_same", draws.same), ("swap_other", draws.other)):
            if edit in edits:
                values = setup.gates_of(gate.name, np.maximum(rows, 0))
                values[rows < 0] = np.nan
                donors[edit] = values
        return cls(gate, setup.mean_gate(gate.name), setup.class_mean_gates(gate.name), donors)

    def values(
        self, edit: str, classes: Mapping[str, NDArray[np.int64]], places: slice
    ) -> NDArray[np.float32] | None:
        """One for each image of a batch, or one for all; None where there is no such thing."""
        if edit == "neutral":
            # Each path of several weighs as much as the softmax says, and none is to count fully.
            if not self.gate.has(HAS_NEUTRAL):
                return None
            return np.full((1, *self.mean.shape), self.gate.neutral, np.float32)
        if edit == "mean":
            return self.mean[None]
        if edit in classes:
            return self.class_means[classes[edit]]
        return self.donors[edit][places]


@dataclass(frozen=True)
class _Frame:
    """Outcomes of one batch."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def of(
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
        # What is missing was found before; those images are left out of the outcomes.
        factor = as_factor(torch.from_numpy(np.nan_to_num(values[name])), gates[name]).to(device)
        return lambda gate, features: factor.to(gate.dtype)

    return {name: constant(name) for name in values}
