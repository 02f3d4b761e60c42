"""Outcomes of several calls in one folder: which edits are missing, and how new ones are added."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.interventions.donors import REPLACEMENTS
from attnscope.interventions.replacement import Replaced
from attnscope.recording.outcomes import Outcomes, add_outcomes, read_outcomes, write_outcomes
from attnscope.statistics.effects import OWN, replacement_effects


def missing_edits(outcomes: Outcomes, edits: Sequence[str]) -> list[str]:
    """Return the edits that are to be made so that a folder has some edits.

    Outcomes of version 0.1 have no logits and donors. They are made again if an edit is missing.
    """
    made = edits_of(outcomes)
    missing = [edit for edit in edits if edit not in made]
    if missing and logits_of(outcomes) is None:
        return in_order([*made, *missing])
    return missing


def logits_of(outcomes: Outcomes) -> NDArray[np.float32] | None:
    """Return the logits; None if there are none, or those of another table.

    A process that is killed between writing the logits and the table leaves the latter.
    """
    try:
        return outcomes.logits
    except InputError:
        return None


def edits_of(outcomes: Outcomes) -> list[str]:
    """Return the edits that were made."""
    if outcomes.replacement is None:
        return []
    table = outcomes.replacement
    known = outcomes.about.get("edits") or table["edit"].unique()
    return [str(edit) for edit in known if edit != OWN]


def in_order(edits: Sequence[str]) -> list[str]:
    """Return edits in the order of `REPLACEMENTS`."""
    return [edit for edit in REPLACEMENTS if edit in edits]


def add_to(folder: Path, outcomes: Outcomes, seed: int) -> None:
    """Write the outcomes of an experiment, together with the edits that the folder has already."""
    if not os.path.lexists(folder):
        write_outcomes(folder, outcomes)
        return
    if outcomes.replacement is not None:
        outcomes = joined(read_outcomes(folder), outcomes)
        assert outcomes.replacement is not None
        effects = replacement_effects(outcomes.replacement, seed=seed, logits=logits_of(outcomes))
        kept = {name: table for name, table in outcomes.tables.items() if name == "constants"}
        tables = {"effects": effects, **kept}
        about = {**outcomes.about, "experiments": ["replace"]}
        outcomes = replace(outcomes, tables=tables, about=about)
    add_outcomes(folder, outcomes)


def joined(old: Outcomes, new: Outcomes) -> Outcomes:
    """Return the outcomes of both, where those of the same experiment and edit are the new ones."""
    both = {**old.about.get("controls", {}), **new.about["controls"]}
    made = [*old.about.get("experiments", []), *new.about["experiments"]]
    about = {**new.about, "experiments": list(dict.fromkeys(made)), "controls": both}
    if "matching" in old.about:
        about.setdefault("matching", old.about["matching"])
    edits = edits_of(old)
    replacement, read_logits = new.replacement, new.read_logits
    if replacement is None:
        replacement, read_logits = old.replacement, old.read_logits
    elif old.replacement is not None:
        logits, added = logits_of(old), new.logits
        if logits is None or added is None:
            edits = []  # all of them were made again
        else:
            merged = Replaced(old.replacement, logits).updated(Replaced(replacement, added))
            replacement, read_logits = merged.table, lambda: merged.logits
    if replacement is not None:
        about["edits"] = in_order([*edits, *new.about.get("edits", [])])
    return Outcomes(about, replacement, {**old.tables, **new.tables}, read_logits)
