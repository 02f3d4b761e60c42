"""The results of interventions on one network, in files. Read without torch.

A folder of small tables, each of which is complete on its own: ``replacement.parquet`` (one row per
image and edit) and one CSV file for each experiment. ``about.json`` names the recording. The logits
of each row of ``replacement.parquet`` are in ``replacement.safetensors``, whose header has the
SHA-256 of that table. Outcomes of version 0.1 have no such file.

``about.json`` has the SHA-256 of every other file under ``files``, and a seal. Before files are
replaced, it lists the old and the new hashes, so that a kill between two files leaves none that is
unknown. What is read is checked; outcomes of earlier versions have no hashes.

More than 400 lines because writing, reading and checking share one format.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import is_there, new_folder, read_json, sha256_of, write_bytes, write_sealed
from attnscope.hashes import problem
from attnscope.integrity import is_array_file_whole, open_regular, sealed_arrays
from attnscope.notebook import html_page, html_paragraph, html_properties, html_table
from attnscope.recording.format import expect_own_file, with_current_keys
from attnscope.recording.places import outcomes_folder as outcomes_folder
from attnscope.recording.reader import ShardReader
from attnscope.shapes import Array

REPLACED = "replacement"
"""Name of the table that has one row per image and edit; all others are CSV files."""
EXPERIMENT_OF = {
    "decoding": "decode",
    "effects": "replace",
    "constants": "replace",
    "concept": "concept",
    "sufficiency": "sufficiency",
    "pairs": "pairs",
    "ablation": "ablate",
    "erasing_areas": "erase",
    "erasing_curves": "erase",
    "randomization": "randomize",
    REPLACED: "replace",
}
"""Name of a table -> the experiment that makes it."""
TABLES = tuple(name for name in EXPERIMENT_OF if name != REPLACED)
"""Names of the tables that are written as CSV. Some may be missing."""

_LOGITS = "logits"
_FILES = "files"
"""Key in ``about.json``: name of a file -> its possible SHA-256, of which the first is new."""
_OF_TABLE = "table_sha256"
"""Key in the header of the file of logits: the SHA-256 of the table to whose rows they belong."""
_log = logging.getLogger(__name__)
_TEXT_COLUMNS = (
    "gate", "target", "edit", "candidate", "first", "second", "kind", "order", "randomized", "mode",
    "fill",
)  # fmt: skip
"""Columns of text: without them, pandas would read a gate called 2 or null as a number or NaN."""
_RENAMED_COLUMNS = {
    f"over_centre{suffix}": f"over_center{suffix}" for suffix in ("", "_low", "_high")
}
_RENAMED_ORDERS = {"centre": "center"}
"""Names in the tables of version 0.1 -> the names of this version."""


@dataclass(frozen=True, repr=False)
class Outcomes:
    """The results of interventions on one network."""

    about: Mapping[str, Any]
    """Facts: the name and id of the recording, the number of images, the seed, the experiments."""
    replacement: pd.DataFrame | None
    """One row per image and edit, as from `attnscope.interventions.replace_gates`; may be None."""
    tables: Mapping[str, pd.DataFrame]
    """Name of a table -> the table, for those of `TABLES` that exist."""
    read_logits: Callable[[], Float32[Array, "rows classes"]] | None = None
    """Reads the logits of each row of ``replacement``; None if they were not stored."""

    @cached_property
    def logits(self) -> Float32[Array, "rows classes"] | None:
        """The logits of the network for each row of ``replacement``, ``(rows, K)``.

        They are read when they are first asked for. Outcomes of version 0.1 have none (None).

        Raises:
            InputError: Their file cannot be read, or belongs to another table (AS633).
        """
        return None if self.read_logits is None else self.read_logits()

    def __repr__(self) -> str:
        about = self.about
        facts = [f"{', '.join(self.experiments) or 'no experiments'}"]
        if "images" in about:
            total = f" of {about['of']:,}" if "of" in about else ""
            facts.append(f"{about['images']:,}{total} images")
        if "seed" in about:
            facts.append(f"seed {about['seed']}")
        return f"<Outcomes of {self._title()!r}: {'; '.join(facts)}>"

    def _repr_html_(self) -> str:
        properties = [
            ("Experiments", ", ".join(self.experiments) or "none"),
            ("Images", self.about.get("images", "unknown")),
            ("Seed", self.about.get("seed", "unknown")),
        ]
        columns = _verdicts(self.tables)
        gates = dict.fromkeys(gate for column in columns.values() for gate in column)
        rows = [(gate, *(column.get(gate, "") for column in columns.values())) for gate in gates]
        explained = (
            "Decoding: balanced accuracy. All other columns: change in accuracy by an edit, in "
            "percentage points. Brackets: 95% CI."
        )
        tables = [html_paragraph(explained), html_table(("Gate", *columns), rows)] if rows else []
        title = f"Outcomes of {self._title()}"
        return html_page(title, html_properties(properties), *tables)

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments that were run."""
        return list(self.about.get("experiments", []))

    def _title(self) -> str:
        name, split = self.about.get("name", "unknown"), self.about.get("split")
        return f"{name}/{split}" if split else str(name)

    def table(self, name: str) -> pd.DataFrame:
        """Return one of the tables.

        Raises:
            InputError: Its experiment was not run.
        """
        if name not in self.tables:
            raise InputError(
                "AS630",
                f"the interventions on {self.about.get('name')} have no table {name}; run "
                f"attnscope intervene with --experiments {EXPERIMENT_OF.get(name, 'EXPERIMENT')}",
            )
        return self.tables[name]


def find_outcomes(recording: ShardReader) -> Outcomes | None:
    """Return the interventions on a recording in its present state, or None.

    Interventions on an earlier recording in the same folder are left out with a warning in the log.

    Raises:
        InputError: They cannot be read.
    """
    folder = outcomes_folder(recording.folder)
    if not folder.is_dir():
        return None
    outcomes = read_outcomes(folder)
    if recording.id is None or outcomes.about.get("recording") != recording.id:
        _log.warning(
            "%s is left out because it belongs to an earlier recording in %s; remove it and run "
            "attnscope intervene",
            folder,
            recording.folder,
        )
        return None
    return outcomes


def write_outcomes(folder: Path, outcomes: Outcomes) -> None:
    """Write all tables to a new folder, or nothing.

    Raises:
        InputError: The folder exists.
    """
    with new_folder(folder) as new:
        _write(new, outcomes)


def add_outcomes(folder: Path, outcomes: Outcomes) -> None:
    """Add tables to a folder that holds others of the same recording and images.

    An experiment counts as finished once all of its tables are there.
    """
    known = _read_about(folder)
    finished = known.get("experiments", [])
    new = [name for name in outcomes.about["experiments"] if name not in finished]
    controls = {**known.get("controls", {}), **outcomes.about.get("controls", {})}
    about = {**with_current_keys(known), **outcomes.about}
    about |= {"experiments": [*finished, *new], "controls": controls}
    _write(folder, replace(outcomes, about=about), known)


def add_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to the ``about`` of a folder of outcomes; known ones are replaced."""
    known = _read_about(folder)
    if any(known.get(name) != value for name, value in facts.items()):
        write_sealed(folder / layout.ABOUT, {**known, **facts})


def _read_about(folder: Path) -> dict[str, Any]:
    about = read_json(expect_own_file(folder, folder / layout.ABOUT))
    if not isinstance(about, dict):
        raise InputError(
            "AS632",
            f"{folder / layout.ABOUT} does not describe interventions; remove {folder} and run "
            "attnscope intervene again",
        )
    files = about.get(_FILES, {})
    if not isinstance(files, dict) or not all(isinstance(each, list) for each in files.values()):
        raise InputError(
            "AS632",
            f"{folder / layout.ABOUT} has no valid hashes; remove {folder} and run attnscope "
            "intervene again",
        )
    return about


def _write(folder: Path, outcomes: Outcomes, known: Mapping[str, Any] = {}) -> None:
    """Write the files of outcomes; ``known`` is what the folder is about if it exists."""
    contents = _contents(outcomes)
    new = {
        name: [_sha256(content if isinstance(content, list) else [content])]
        for name, content in contents.items()
    }
    old = known.get(_FILES, {})
    if old:
        both = {name: [*new.get(name, []), *old.get(name, [])] for name in {**old, **new}}
        write_sealed(folder / layout.ABOUT, {**known, _FILES: both})
    for name, content in contents.items():
        write_bytes(folder / name, content)
    write_sealed(folder / layout.ABOUT, {**outcomes.about, _FILES: {**old, **new}})


def _sha256(parts: Sequence[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _contents(outcomes: Outcomes) -> dict[str, bytes | list[bytes | memoryview]]:
    """Return the files of outcomes but ``about.json``, in the order in which they are written."""
    contents: dict[str, bytes | list[bytes | memoryview]] = {}
    if outcomes.replacement is not None:
        buffer = io.BytesIO()
        outcomes.replacement.to_parquet(buffer, index=False)
        content = buffer.getvalue()
        if outcomes.logits is not None:
            of_table = {_OF_TABLE: hashlib.sha256(content).hexdigest()}
            logits = save_arrays({_LOGITS: np.ascontiguousarray(outcomes.logits)}, of_table)
            contents[layout.REPLACEMENT_LOGITS] = sealed_arrays(logits)
        contents[layout.REPLACEMENT] = content
    for name, table in outcomes.tables.items():
        contents[f"{name}.csv"] = table.to_csv(index=False).encode()
    return contents


def read_outcomes(folder: Path) -> Outcomes:
    """Read what `write_outcomes` wrote.

    Raises:
        InputError: The folder holds no interventions, or they cannot be read.
    """
    if not is_there(folder / layout.ABOUT):
        raise InputError(
            "AS631", f"{folder} holds no interventions; create them with: attnscope intervene RUN"
        )
    about = _read_about(folder)
    hashes = about.pop(_FILES, {})
    replacement, logits = None, None
    tables = {}
    present = [
        name
        for name in (layout.REPLACEMENT, *(f"{name}.csv" for name in TABLES))
        if (folder / name).is_file()
    ]
    for name in present:
        try:
            with open_regular(expect_own_file(folder, folder / name)) as stream:
                content = stream.read()
            if name in hashes and _sha256([content]) not in hashes[name]:
                raise ValueError("it has changed since it was written (SHA-256)")
            if name == layout.REPLACEMENT:
                replacement = pd.read_parquet(io.BytesIO(content))
            else:
                tables[name.removesuffix(".csv")] = _read_table(content)
        except InputError:
            raise
        except Exception as error:  # pandas and pyarrow raise exceptions of many types
            raise InputError(
                "AS632",
                f"{folder / name} cannot be read ({first_line(error)}); remove {folder} and run "
                "attnscope intervene again",
            ) from None
    about = with_current_keys(about)
    earlier = _of_margins(replacement, tables)
    if earlier:
        _log.warning(
            "%s: %s measured margins, whose scale an edit can change, and not log losses; run "
            "attnscope intervene to measure them again",
            folder,
            ", ".join(earlier),
        )
        kept = [name for name in about.get("experiments", []) if name not in earlier]
        about = {**about, "experiments": kept}
        tables = {name: t for name, t in tables.items() if EXPERIMENT_OF[name] not in earlier}
        replacement = None if EXPERIMENT_OF[REPLACED] in earlier else replacement
    if replacement is not None and (folder / layout.REPLACEMENT_LOGITS).is_file():
        logits = partial(_read_logits, folder)
    return Outcomes(about, replacement, tables, logits)


def _of_margins(replacement: pd.DataFrame | None, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the experiments of earlier versions, which had margins in the place of log losses."""
    every = {**tables, **({} if replacement is None else {REPLACED: replacement})}
    found = [
        EXPERIMENT_OF[name]
        for name, table in every.items()
        if not {"margin", "margin_change"}.isdisjoint(table.columns)
    ]
    return list(dict.fromkeys(found))


def verify_outcomes(folder: Path) -> tuple[list[str], str]:
    """Check the files of interventions.

    Returns:
        The problems, one line each, and what could not be checked, in words; empty if nothing.
    """
    try:
        outcomes = read_outcomes(folder)
        known = _read_about(folder).get(_FILES, {})
        if outcomes.read_logits is not None:
            outcomes.read_logits()
    except InputError as error:
        return [str(error)], ""
    found = [
        problem("AS682", f"{folder / name} is missing")
        for name in known
        if not (folder / name).is_file()
    ]
    # Those of earlier versions have no hashes, and a kill can leave tables of no experiment.
    tables = [layout.REPLACEMENT] if outcomes.replacement is not None else []
    unlisted = [
        name for name in (*tables, *(f"{n}.csv" for n in outcomes.tables)) if name not in known
    ]
    return found, f"no hash is known of {', '.join(unlisted)}" if unlisted else ""


def _read_logits(folder: Path) -> Float32[Array, "rows classes"]:
    file, table = folder / layout.REPLACEMENT_LOGITS, folder / layout.REPLACEMENT
    remedy = f"remove {folder} and run attnscope intervene again"
    expect_own_file(folder, file)
    try:
        if is_array_file_whole(file) is False:
            raise OSError("it has changed since it was written (SHA-256)")
        with safe_open(file, "numpy") as opened:
            of_table = (opened.metadata() or {}).get(_OF_TABLE)
            logits: Float32[Array, "rows classes"] = opened.get_tensor(_LOGITS)
        is_of_table = of_table == sha256_of(table)
    except (SafetensorError, OSError) as error:
        raise InputError(
            "AS633", f"{file} cannot be read ({first_line(error)}); {remedy}"
        ) from None
    if not is_of_table:
        raise InputError("AS633", f"{file} belongs to another table than {table}; {remedy}")
    return logits


def _read_table(content: bytes) -> pd.DataFrame:
    columns = pd.read_csv(io.BytesIO(content), nrows=0).columns
    table = pd.read_csv(
        io.BytesIO(content),
        dtype={name: "str" for name in columns if name in _TEXT_COLUMNS},
        keep_default_na=False,
        na_values={name: [""] for name in columns if name not in _TEXT_COLUMNS},
    ).rename(columns=_RENAMED_COLUMNS)
    for name in (name for name in table.columns if name not in _TEXT_COLUMNS):
        if not (pd.api.types.is_numeric_dtype(table[name]) or table[name].isna().all()):
            wrong = pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()
            if wrong.any() and not set(table[name].dropna()) <= {True, False, "True", "False"}:
                raise ValueError(f"the column {name} has the value {table[name][wrong].iloc[0]!r}")
    if "order" in table:
        table["order"] = table["order"].replace(_RENAMED_ORDERS)
    return table


def _verdicts(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, str]]:
    """Return the columns of the summary: title -> gate -> value with its 95% CI."""
    columns: dict[str, dict[str, str]] = {}
    if "decoding" in tables:
        columns["decoding"] = {
            str(row["gate"]): _interval(row, "balanced_accuracy", "low", "high")
            for _, row in tables["decoding"].iterrows()
        }
    if "effects" in tables:
        for edit, rows in tables["effects"].groupby("edit", sort=False):
            columns[str(edit)] = {
                str(row["target"]): _interval(row, "change", "low", "high", points=True)
                for _, row in rows.iterrows()
            }
    return columns


def _interval(row: pd.Series, value: str, low: str, high: str, points: bool = False) -> str:
    """Return ``12.3% [10.0, 14.6]``, or ``+1.2 [-0.3, 2.7]`` points; values are shares."""
    if pd.isna(row[value]):
        return "not available"

    found = f"{100 * row[value]:+.1f}" if points else f"{row[value]:.1%}"
    if not (pd.isna(row[low]) or pd.isna(row[high])):
        found += f" [{100 * row[low]:.1f}, {100 * row[high]:.1f}]"
    return found.replace("-", "\N{MINUS SIGN}")
