"""Rows and columns of tables that captions and figures use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def highest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return the row with the highest value in a column."""
    return frame.iloc[int(np.nanargmax(frame[column].to_numpy(dtype=float)))]


def lowest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return the row with the lowest value in a column."""
    return frame.iloc[int(np.nanargmin(frame[column].to_numpy(dtype=float)))]


def unique(column: pd.Series[Any]) -> list[Any]:
    """Return the distinct values of a column in the order of their first appearance."""
    return list(dict.fromkeys(column))


def wide(frame: pd.DataFrame, columns: str, values: str) -> pd.DataFrame:
    """Return a table class × ``columns``, both in their order in ``frame``."""
    # pivot_table would average duplicate rows. pivot sorts, which takes seconds for 1,000 classes.
    rows, classes = pd.factorize(frame["class"])
    places, names = pd.factorize(frame[columns])
    table = np.full((len(classes), len(names)), np.nan)
    cells = rows * len(names) + places
    if len(frame) and np.bincount(cells).max() > 1:
        raise ValueError(f"a class has several values of the same {columns}")
    table[rows, places] = frame[values].to_numpy(np.float64)
    index, header = pd.Index(classes, name="class"), pd.Index(names, name=columns)
    return pd.DataFrame(table, index, header, copy=False)
