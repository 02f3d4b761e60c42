"""All statistics of a recording, as CSV files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pandas as pd

from attnscope.errors import InputError, first_line
from attnscope.files import StrPath, expect_folder, write_bytes
from attnscope.plots.subjects import no_gate
from attnscope.plots.tables import flat
from attnscope.progress import progress_bar
from attnscope.recording.recording import Recording
from attnscope.statistics import STATISTICS
from attnscope.statistics.registry import Statistic
from attnscope.writing import writing

MOST_ROWS = 200_000
"""Largest number of rows of a table that is written."""
_TAKES = (("recording",), ("recording", "gate"))
_BY_INTERVENTIONS = ("decode_gates",)
"""Statistics that ``attnscope intervene`` computes and writes, with its controls."""


def write_tables(recording: Recording, out: StrPath) -> dict[str, str]:
    """Write each statistic of one recording that is a table or a number as ``NAME.csv``.

    The tables of a statistic of single gates are in one file, with a column ``gate``. Files of
    other names in the folder are left as they are.

    Args:
        recording: The recording.
        out: The output folder, which may exist.

    Returns:
        Name of each statistic that is left out -> the reason. `decode_gates` is not among them,
        because it is a part of the interventions, nor are statistics of masks, if there are none.
    """
    folder = Path(out)
    expect_folder(folder)
    wanted = {
        name: found
        for name, found in STATISTICS.items()
        if found.takes in _TAKES
        and name not in _BY_INTERVENTIONS
        and _gives_table(found)
        and found.concerns(recording)
    }
    left_out: dict[str, str] = {}
    with writing(folder), progress_bar(len(wanted), "table", alone=False) as bar:
        for name, found in wanted.items():
            try:
                table = _table_of(found, recording)
            except InputError as reason:
                left_out[name] = first_line(reason)
                table = None
            if table is not None and len(table) > MOST_ROWS:
                left_out[name] = f"its table has {len(table):,} rows; compute it in Python"
                table = None
            if table is not None:
                folder.mkdir(exist_ok=True)
                write_bytes(folder / f"{name}.csv", table.to_csv(index=False).encode())
            bar.update()
    return left_out


def _gives_table(found: Statistic) -> bool:
    """Return whether a statistic returns a table or a number, as far as its annotation says.

    Others return maps or other arrays, which figures show.
    """
    returned = inspect.get_annotations(found.function).get("return")
    return returned in (None, float, "float") or "DataFrame" in str(returned)


def _table_of(found: Statistic, recording: Recording) -> pd.DataFrame | None:
    """Return the statistic as one table; None if it is no table.

    Raises:
        InputError: The recording lacks what it needs, such as gates of one kind (AS943).
    """
    if "gate" not in found.takes:
        return _as_table(found.function(recording))
    gates = found.gates_of(recording)
    if not gates:
        raise InputError("AS943", no_gate(recording, found.trait or "").removesuffix("."))
    tables = []
    for gate in gates:
        table = _as_table(found.function(recording, gate.name))
        if table is None:
            return None
        table.insert(0, "gate", gate.name, allow_duplicates=True)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _as_table(value: Any) -> pd.DataFrame | None:
    if isinstance(value, float):
        return pd.DataFrame({"value": [value]})
    if not isinstance(value, pd.DataFrame):
        return None
    return flat(value)
