"""The numbers that figures show, as tables with one header, for CSV files. No matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose index, if it has a name, is the first column."""
    if frame.index.name is None:
        return frame.reset_index(drop=True)
    return frame.reset_index(allow_duplicates=True)  # a class can be called like the index


def stacked(frames: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """Return tables below each other. The first column says which one a row is from.

    Args:
        frames: tables by name. A column that one of them lacks is empty there.
        column: name of the first column; a column of this name is replaced.
    """
    parts = []
    for name, frame in frames.items():
        part = frame.drop(columns=column, errors="ignore")
        part.insert(0, column, name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[column])


def maps_table(
    maps: Mapping[str, NDArray[Any] | None], names: Sequence[str], column: str
) -> pd.DataFrame:
    """Return the values of maps, one row for each.

    Args:
        maps: maps by what they are of (a gate, or a method); each ``(len(names), h, w)``. None is
            left out.
        names: what the first axis of each array is, such as classes.
        column: what the names are.

    Returns:
        Columns: ``map``, the given one, ``y``, ``x`` (from the upper left corner), ``value``.
    """
    frames = {}
    for name, values in maps.items():
        if values is None:
            continue
        index, y, x = (axis.ravel() for axis in np.indices(values.shape))
        frames[name] = pd.DataFrame(
            {column: np.array(names, dtype=object)[index], "y": y, "x": x, "value": values.ravel()}
        )
    return stacked(frames, "map")
