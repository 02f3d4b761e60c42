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
    # pivot_table would average duplicate rows; pivot refuses them.
    table = frame.pivot(index="class", columns=columns, values=values)  # noqa: PD010
    return table.reindex(index=unique(frame["class"]), columns=unique(frame[columns]))
