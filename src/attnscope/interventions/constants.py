"""The best constant for a gate: the mean, the median or the neutral value.

Which one is best is decided on images that are not scored, so that the loss on the scored images is
not that of the luckiest of several constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64
from numpy.typing import NDArray

from attnscope.gates.hooks import Edit, as_factor
from attnscope.interventions.donors import Replacements
from attnscope.interventions.replay import PrefixCache
from attnscope.interventions.setup import InterventionSetup, Target
from attnscope.interventions.work import Work, batches_of
from attnscope.kinds import HAS_NEUTRAL, Gate
from attnscope.recording.pieces import Piece
from attnscope.shapes import Array
from attnscope.statistics.effects import calibrated_log_losses
from attnscope.statistics.splits import stratified_sample

CANDIDATES = ("neutral", "mean", "median")
"""The constants of a single gate."""
EACH = "each"
"""A constant of several gates: for each gate its own best one."""
_FEWEST = 25
"""Least number of images on which constants are compared, if there are that many."""


@dataclass(frozen=True)
class Constants:
    """The best constant of each target."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    """Name of a target -> one of `CANDIDATES`, or `EACH`."""
    table: pd.DataFrame | None = None
    """One row for each target and candidate: target, candidate, images, accuracy, log_loss (mean
    at its best temperature, in nats), chosen (whether it is the best one). None if nothing was
    chosen."""

    def of(self, target: Target) -> dict[str, str]:
        """Return the constant of each gate of a target: name of a gate -> one of `CANDIDATES`."""
        constant = self.chosen[target.name]
        return {name: self.chosen[name] if constant == EACH else constant for name in target.gates}


def candidates_of(target: Target, gates: Mapping[str, Gate]) -> list[str]:
    """Return the constants that all gates of a target have: gates over branches lack a neutral."""
    has_neutral = all(gates[name].has(HAS_NEUTRAL) for name in target.gates)
    return [each for each in CANDIDATES if each != "neutral" or has_neutral]


def choice_rows(setup: InterventionSetup) -> Int64[Array, " rows"]:
    """Return the images on which constants are compared: donors, half as many as images are scored.

    Args:
        setup: The network and its images.
    """
    donors = np.flatnonzero(setup.donors)
    images = max(_FEWEST, len(setup.scored) // 2)
    sample = stratified_sample(setup.recording.labels[donors], images, setup.rng("constants"))
    return donors[sample] if len(sample) else donors[:images]


def reruns_of_choice(targets: Sequence[Target], gates: Mapping[str, Gate]) -> int:
    """Return how often the network is rerun for each image at most, to choose the constants."""
    return sum(len(candidates_of(target, gates)) + (len(target.gates) > 1) for target in targets)


def choose_constants(
    setup: InterventionSetup,
    targets: Sequence[Target],
    by_gate: Mapping[str, Replacements],
    cache: PrefixCache,
    todo: Work,
) -> Constants:
    """Compare the constants of each target on images that are not scored.

    Among the constants whose accuracy is within one standard error of the highest, the one with the
    lowest log loss is chosen, each at its own best temperature: otherwise a constant would be
    chosen because it makes the network more or less confident. For several gates, the best
    constant of each gate is a candidate, if they differ.

    Args:
        setup: The network and its images.
        targets: The targets of edits.
        by_gate: Name of a gate -> its constants.
        cache: The cache of the network.
        todo: The work of the experiment.
    """
    gates = {gate.name: gate for gate in setup.gates}
    rows = choice_rows(setup)
    labels = setup.recording.labels[rows]
    logits: dict[str, dict[str, NDArray[np.float32]]] = {}
    tried = {
        target.name: {
            each: dict.fromkeys(target.gates, each) for each in candidates_of(target, gates)
        }
        for target in targets
    }
    _try(setup, rows, targets, tried, by_gate, cache, todo, "constants", logits)
    chosen = {name: _best(found, labels) for name, found in logits.items()}
    mixed = {
        target.name: {EACH: {name: chosen[name] for name in target.gates}}
        for target in targets
        if len(target.gates) > 1
        and all(name in chosen for name in target.gates)
        and len({chosen[name] for name in target.gates}) > 1
    }
    several = [target for target in targets if target.name in mixed]
    if several:
        _try(setup, rows, several, mixed, by_gate, cache, todo, "mixed", logits)
        chosen |= {name: _best(logits[name], labels) for name in mixed}
    table = [
        {
            "target": name,
            "candidate": candidate,
            "images": len(rows),
            "accuracy": float((each.argmax(1) == labels).mean()),
            "log_loss": float(calibrated_log_losses(each, labels).mean()),
            "chosen": candidate == chosen[name],
        }
        for name, found in logits.items()
        for candidate, each in found.items()
    ]
    return Constants(chosen, pd.DataFrame(table))


def as_edits(
    values: Mapping[str, NDArray[np.float32]], gates: Mapping[str, Gate], device: torch.device
) -> dict[str, Edit]:
    """Return edits that replace gates by given values.

    Args:
        values: Name of a gate -> its values, ``(n, ...)`` or ``(1, ...)``. NaN marks images without
            a replacement, which are left out of the outcomes.
        gates: Name of a gate -> the gate.
        device: The device of the network.
    """

    def constant(name: str) -> Edit:
        factor = as_factor(torch.from_numpy(np.nan_to_num(values[name])), gates[name]).to(device)
        return lambda gate, features: factor.to(gate.dtype)

    return {name: constant(name) for name in values}


def _try(
    setup: InterventionSetup,
    rows: NDArray[np.int64],
    targets: Sequence[Target],
    tried: Mapping[str, Mapping[str, Mapping[str, str]]],
    by_gate: Mapping[str, Replacements],
    cache: PrefixCache,
    todo: Work,
    stage: str,
    logits: dict[str, dict[str, NDArray[np.float32]]],
) -> None:
    """Add the logits of all images under constants: name of a target -> candidate -> ``(n, K)``.

    Args:
        setup: The network and its images.
        rows: The images.
        targets: The targets.
        tried: Name of a target -> candidate -> the constant of each gate.
        by_gate: Name of a gate -> its constants.
        cache: The cache of the network.
        todo: The work of the experiment.
        stage: Beginning of the names of the pieces.
        logits: What is extended.
    """
    gates = {gate.name: gate for gate in setup.gates}
    size = setup.batch_size
    starts = range(0, len(rows), size)

    def name_of(number: int, target: str) -> str:
        return f"{stage}/{number}/{target}"

    def run(target: Target) -> Piece:
        found = {}
        for candidate, of_gates in tried[target.name].items():
            values = {name: by_gate[name].constant(each) for name, each in of_gates.items()}
            new = cache.rerun(as_edits(values, gates, setup.device))
            found[candidate] = new.float().cpu().numpy()
        return found

    needed = [
        not all(name_of(number, target.name) in todo.pieces for target in targets)
        for number in range(len(starts))
    ]
    batches = batches_of(setup, rows, needed)
    pieces: dict[str, list[Piece]] = {target.name: [] for target in targets}
    for number, start in enumerate(starts):
        count = min(size, len(rows) - start)
        if needed[number]:
            cache.forward(next(batches)[1].x)
        for target in targets:
            pieces[target.name].append(
                todo.piece(
                    name_of(number, target.name),
                    count * len(tried[target.name]),
                    partial(run, target),
                )
            )
    for name, found in pieces.items():
        for candidate in tried[name]:
            every = [np.asarray(piece[candidate], np.float32) for piece in found]
            logits.setdefault(name, {})[candidate] = np.concatenate(every)


def _best(found: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64]) -> str:
    """Return the candidate with the lowest log loss of those with nearly the highest accuracy."""
    right = {name: logits.argmax(1) == labels for name, logits in found.items()}
    highest = max(found, key=lambda name: right[name].mean())

    def is_near(name: str) -> bool:
        lost = right[highest].astype(float) - right[name]
        return bool(lost.mean() <= lost.std() / np.sqrt(len(lost)))

    near = [name for name in found if is_near(name)]
    return min(near, key=lambda name: calibrated_log_losses(found[name], labels).mean())
