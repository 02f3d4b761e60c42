"""Replace gates by a constant, by a mean (mean ablation), or by the gate of another image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32
from numpy.typing import NDArray

from attnscope.capturing.batching import Batch
from attnscope.interventions.constants import (
    Constants,
    as_edits,
    choice_rows,
    choose_constants,
    reruns_of_choice,
)
from attnscope.interventions.donors import (
    DONOR_COLUMNS,
    REPLACEMENTS,
    Assignment,
    Replacements,
    expect_edits,
    runs_of,
)
from attnscope.interventions.replay import PrefixCache
from attnscope.interventions.setup import InterventionSetup, Target
from attnscope.interventions.work import Work, alone, batches_of
from attnscope.kinds import Gate
from attnscope.recording.pieces import Piece
from attnscope.shapes import Array
from attnscope.statistics.effects import OUTCOME_COLUMNS, OWN, calibrated_log_losses


@dataclass(frozen=True)
class Replaced:
    """The outcomes of edits, whole."""

    table: pd.DataFrame
    """One row for each target, edit and image, as from `replace_gates`."""
    logits: Float32[Array, "rows classes"]
    """The logits of each row of the table."""
    constants: pd.DataFrame | None = None
    """The comparison of constants (`attnscope.interventions.constants.Constants.table`)."""
    matching: Mapping[str, Any] | None = None
    """How donors were matched (`attnscope.interventions.matching.Matching.about`)."""

    def updated(self, other: Replaced) -> Replaced:
        """Return these outcomes and others, with the targets and edits in one order.

        Outcomes of the same target and edit are those of ``other``.
        """
        old, new = self.table, other.table
        made = pd.MultiIndex.from_frame(new[["target", "edit"]].drop_duplicates().astype(str))
        keys = pd.MultiIndex.from_frame(old[["target", "edit"]].astype(str))
        kept = ~keys.isin(made)
        texts = {"target": str, "edit": str}
        table = pd.concat([old[kept].astype(texts), new.astype(texts)], ignore_index=True)
        logits = np.concatenate([self.logits[kept], other.logits])
        places = {name: place for place, name in enumerate((OWN, *REPLACEMENTS))}
        every = dict.fromkeys([*old["target"].astype(str), *new["target"].astype(str)])
        targets = {name: place for place, name in enumerate(every)}
        order = np.lexsort((table["row"], table["edit"].map(places), table["target"].map(targets)))
        return Replaced(
            _categorical(table.iloc[order].reset_index(drop=True)),
            logits[order],
            self.constants if other.constants is None else other.constants,
            other.matching or self.matching,
        )


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
        A data frame with one row for each target, edit and image, and for each donor of an edit
        with several donors. Columns: target, edit, row (of the recording), label, prediction,
        log_loss (in nats, at the best temperature of the target and edit), donor (the row whose
        gate was taken; -1 if it is not the gate of one image), donor_class (its class, or the class
        whose mean was taken; -1 if there is none). Rows of the unedited network have target ``""``
        and edit ``own``. A row is left out if there is no replacement: no donor of that class, or
        no neutral value, as for gates over branches.

    Raises:
        InputError: A replacement is unknown (AS823), or the network is not deterministic (AS814).
    """
    return replace_and_keep(setup, edits=edits, targets=targets, progress=progress).table


def replace_and_keep(
    setup: InterventionSetup,
    *,
    edits: Sequence[str] = REPLACEMENTS,
    targets: Sequence[Target] | None = None,
    progress: bool = True,
    work: Work | None = None,
) -> Replaced:
    """Do what `replace_gates` does, and return all logits as well.

    Args:
        setup: As for `replace_gates`.
        edits: As for `replace_gates`.
        targets: As for `replace_gates`.
        progress: Whether to show a progress bar, if there is no ``work``.
        work: Pieces that are finished already, and where new ones are kept.
    """
    expect_edits(edits)
    edits = [edit for edit in REPLACEMENTS if edit in edits]
    targets = setup.targets() if targets is None else list(targets)
    gates = {gate.name: gate for gate in setup.gates}
    runs = [run for edit in edits for run in runs_of(edit)]
    assignment = Assignment.draw(setup, edits)
    by_gate = {
        name: Replacements.read(setup, gate, edits, assignment)
        for name, gate in gates.items()
        if any(name in target.gates for target in targets)
    }
    cache = PrefixCache(setup.model, setup.gates, [target.gates for target in targets])
    rows, size = setup.scored, setup.batch_size
    starts = range(0, len(rows), size)
    found: dict[str, list[Piece]] = {target: [] for target in ("", *(t.name for t in targets))}

    with alone(work, progress, "replace") as todo, setup.eval_without_gradients():
        units = len(rows) * (1 + len(targets) * len(runs))
        constants = Constants()
        if "constant" in edits:
            units += reruns_of_choice(targets, gates) * len(choice_rows(setup))
            todo.start(units)
            constants = choose_constants(setup, targets, by_gate, cache, todo)
        todo.start(units)
        needed = [
            not all(_piece(number, target) in todo.pieces for target in found)
            for number in range(len(starts))
        ]
        batches = batches_of(setup, rows, needed)
        for number, start in enumerate(starts):
            batch = next(batches)[1] if needed[number] else None
            places = slice(start, min(start + size, len(rows)))
            count = places.stop - start
            run = _BatchRun(cache, batch, setup, by_gate, gates, constants)
            own = todo.piece(_piece(number, ""), count, run.own)
            found[""].append(own)
            classes = assignment.classes(places, own[OWN].argmax(1))
            for target in targets:
                found[target.name].append(
                    todo.piece(
                        _piece(number, target.name),
                        count * len(runs),
                        partial(run.edited, target, runs, classes, places),
                    )
                )
        todo.end()
    table, logits = _collect(setup, edits, assignment, found)
    return Replaced(table, logits, constants.table, assignment.matching)


def _piece(batch: int, target: str) -> str:
    return f"{batch}/{target}"


def _usable(run: str) -> str:
    """Return the name of the array that says which images have a replacement."""
    return f"{run} usable"


@dataclass
class _BatchRun:
    """Runs the network on one batch, in full once it is needed, and then with edits."""

    cache: PrefixCache
    batch: Batch | None
    """The batch; None if all of its pieces are finished."""
    setup: InterventionSetup
    by_gate: Mapping[str, Replacements]
    gates: Mapping[str, Gate]
    constants: Constants
    is_cached: bool = False

    def own(self) -> Piece:
        """Return the logits of the unedited network."""
        assert self.batch is not None
        self.is_cached = True
        return {OWN: self.cache.forward(self.batch.x).float().cpu().numpy()}

    def edited(
        self,
        target: Target,
        runs: Sequence[str],
        classes: Mapping[str, NDArray[np.int64]],
        places: slice,
    ) -> Piece:
        """Return the logits in each run of an edit for which some image has a replacement.

        Args:
            target: The gates that are replaced.
            runs: The runs of some of `REPLACEMENTS` (`runs_of`).
            classes: Edit -> the class of each image of the batch.
            places: Places of the batch among the scored images.
        """
        if not self.is_cached:
            self.own()
        piece: dict[str, NDArray[np.float32] | NDArray[np.bool_]] = {}
        # Without any outcome the piece would be empty, and would not be known as finished.
        piece["finished"] = np.ones(1, bool)
        for run in runs:
            same = self.constants.chosen.get(target.name) if run == "constant" else None
            if same in piece:  # the constant is an edit that was made already
                piece[run], piece[_usable(run)] = piece[same], piece[_usable(same)]
                continue
            values = self._values(target, run, classes, places)
            if any(value is None for value in values.values()):
                continue
            available = {name: value for name, value in values.items() if value is not None}
            usable = np.ones(places.stop - places.start, bool)
            for value in available.values():
                usable &= np.isfinite(value).reshape(len(value), -1).all(1)
            if not usable.any():
                continue
            new = self.cache.rerun(as_edits(available, self.gates, self.setup.device))
            piece[run] = new.float().cpu().numpy()
            piece[_usable(run)] = usable
        return piece

    def _values(
        self,
        target: Target,
        run: str,
        classes: Mapping[str, NDArray[np.int64]],
        places: slice,
    ) -> dict[str, NDArray[np.float32] | None]:
        """Return the replacement of each gate of a target."""
        if run == "constant":
            return {
                name: self.by_gate[name].constant(each)
                for name, each in self.constants.of(target).items()
            }
        return {name: self.by_gate[name].values(run, classes, places) for name in target.gates}


def _collect(
    setup: InterventionSetup,
    edits: Sequence[str],
    assignment: Assignment,
    found: Mapping[str, Sequence[Piece]],
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """Return the outcomes of all batches: first the unedited network, then target by target.

    Args:
        setup: The network and its images.
        edits: Some of `REPLACEMENTS`.
        assignment: The donors.
        found: Name of a target -> the piece of each batch.
    """
    rows, size = setup.scored, setup.batch_size
    labels = setup.recording.labels
    frames, every = [], []
    for target, pieces in found.items():
        for edit, number in product((OWN, *edits), range(len(pieces))):
            piece, of_batch, logits_of_batch = pieces[number], [], []
            for run in runs_of(edit):
                if run not in piece:
                    continue
                places = slice(number * size, number * size + len(piece[run]))
                usable = piece.get(_usable(run), np.ones(len(piece[run]), bool))
                logits = np.asarray(piece[run], np.float32)
                own = found[""][number][OWN]
                donor, of_class = assignment.donors(run, places, own.argmax(1), labels)
                values = {
                    "target": target,
                    "edit": edit,
                    "row": rows[places],
                    "label": labels[rows[places]],
                    "prediction": logits.argmax(1),
                    "log_loss": np.nan,  # all images of an edit have one temperature
                    "donor": donor,
                    "donor_class": of_class,
                }
                frame = pd.DataFrame(values, columns=[*OUTCOME_COLUMNS, *DONOR_COLUMNS])
                of_batch.append(frame[usable])
                logits_of_batch.append(logits[usable])
            if not of_batch:
                continue
            # The donors of an image follow each other.
            batch = pd.concat(of_batch, ignore_index=True)
            order = np.argsort(batch["row"].to_numpy(), kind="stable")
            frames.append(batch.iloc[order])
            every.append(np.concatenate(logits_of_batch)[order])
    table, logits = pd.concat(frames, ignore_index=True), np.concatenate(every)
    true, losses = table["label"].to_numpy(), np.empty(len(table), np.float32)
    for of_edit in table.groupby(["target", "edit"], sort=False).indices.values():
        losses[of_edit] = calibrated_log_losses(logits[of_edit], true[of_edit])
    return _categorical(table.assign(log_loss=losses)), logits


def _categorical(outcomes: pd.DataFrame) -> pd.DataFrame:
    for column in ("target", "edit"):
        order = list(dict.fromkeys(outcomes[column]))
        outcomes[column] = pd.Categorical(outcomes[column], categories=order)
    return outcomes
