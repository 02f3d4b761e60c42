"""The Outcomes: what interventions found out about one network, in files. No torch.

A folder of small tables, each by itself complete: ``replacement.parquet`` (one row an image and
edit) and one CSV for each experiment; ``about.json`` says of which recording they are.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import new_folder, read_json, write_bytes, write_json
from attnscope.recording.places import outcomes_folder as outcomes_folder
from attnscope.recording.reader import ShardReader

REPLACED = "replacement"
"""What the table is called that is kept image by image; all others are CSV."""
TABLES = (
    "decoding",
    "effects",
    "ablation",
    "erasing_areas",
    "erasing_curves",
    "randomization",
)
"""Names of the tables that are written as CSV, of which some may be missing."""

_log = logging.getLogger(__name__)
_WORDS = ("gate", "target", "edit", "kind", "order", "randomized", "mode", "fill")
"""Columns of text: a gate may be called 2, or null."""
_RENAMED_COLUMNS = {
    f"over_centre{suffix}": f"over_center{suffix}" for suffix in ("", "_low", "_high")
}
_RENAMED_ORDERS = {"centre": "center"}
"""Names in the tables of version 0.1 -> the names of today."""


@dataclass(frozen=True)
class Outcomes:
    """What interventions found out about one network."""

    about: Mapping[str, Any]
    """Of which recording, how many images, which seed."""
    replacement: pd.DataFrame | None
    """Of `attnscope.interventions.replace_gates`."""
    tables: Mapping[str, pd.DataFrame]
    """By name, of `TABLES`; those that were made."""

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables.

        Raises:
            InputError: it was not made.
        """
        if name not in self.tables:
            raise InputError(
                f"the interventions on {self.about.get('name')} have no {name}; run attnscope "
                "intervene without --experiments, which makes those that are missing"
            )
        return self.tables[name]


def find_outcomes(recording: ShardReader) -> Outcomes | None:
    """The interventions on a recording as it is now, or None; the log names those on an older one.

    Raises:
        InputError: they cannot be read.
    """
    folder = outcomes_folder(recording.folder)
    if not folder.is_dir():
        return None
    outcomes = read_outcomes(folder)
    if recording.id is None or outcomes.about.get("recording") != recording.id:
        _log.warning(
            "%s left out: it is not of %s as it is now; remove it and run attnscope intervene",
            folder,
            recording.folder,
        )
        return None
    return outcomes


def write_outcomes(folder: Path, outcomes: Outcomes) -> None:
    """Writes them all, or nothing.

    Raises:
        InputError: the folder exists.
    """
    with new_folder(folder) as new:
        _write(new, outcomes)


def add_outcomes(folder: Path, outcomes: Outcomes) -> None:
    """Puts them beside those that ``folder`` holds, which must be of the same images.

    Their experiments count as made once all of their tables are there.
    """
    known = read_json(folder / layout.ABOUT)
    made = known.get("experiments", [])
    new = [name for name in outcomes.about["experiments"] if name not in made]
    controls = {**known.get("controls", {}), **outcomes.about.get("controls", {})}
    about = {**outcomes.about, "experiments": [*made, *new], "controls": controls}
    _write(folder, replace(outcomes, about=about))


def _write(folder: Path, outcomes: Outcomes) -> None:
    if outcomes.replacement is not None:
        buffer = io.BytesIO()
        outcomes.replacement.to_parquet(buffer, index=False)
        write_bytes(folder / layout.REPLACEMENT, buffer.getvalue())
    for name, table in outcomes.tables.items():
        write_bytes(folder / f"{name}.csv", table.to_csv(index=False).encode())
    write_json(folder / layout.ABOUT, dict(outcomes.about))


def read_outcomes(folder: Path) -> Outcomes:
    """Reads what `write_outcomes` wrote.

    Raises:
        InputError: there is nothing, or it cannot be read.
    """
    if not (folder / layout.ABOUT).is_file():
        raise InputError(f"{folder} holds no interventions; make them with attnscope intervene")
    about = read_json(folder / layout.ABOUT)
    replacement = None
    tables = {}
    try:
        if (folder / layout.REPLACEMENT).is_file():
            replacement = pd.read_parquet(folder / layout.REPLACEMENT)
        for name in TABLES:
            if (folder / f"{name}.csv").is_file():
                tables[name] = _read_table(folder / f"{name}.csv")
    except (ValueError, OSError) as error:
        raise InputError(f"{folder} cannot be read ({error}); intervene again") from None
    return Outcomes(about, replacement, tables)


def _read_table(file: Path) -> pd.DataFrame:
    columns = pd.read_csv(file, nrows=0).columns
    table = pd.read_csv(
        file,
        dtype={name: "str" for name in columns if name in _WORDS},
        keep_default_na=False,
        na_values={name: [""] for name in columns if name not in _WORDS},
    ).rename(columns=_RENAMED_COLUMNS)
    if "order" in table:
        table["order"] = table["order"].replace(_RENAMED_ORDERS)
    return table
