"""Rows and columns of frames that captions and drawings ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def highest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The row with the highest value in a column."""
    return frame.iloc[int(np.nanargmax(frame[column].to_numpy(dtype=float)))]


def lowest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The row with the lowest value in a column."""
    return frame.iloc[int(np.nanargmin(frame[column].to_numpy(dtype=float)))]


def unique(column: pd.Series[Any]) -> list[Any]:
    """The values of a column, each once, in the order in which they first come."""
    return list(dict.fromkeys(column))


def wide(frame: pd.DataFrame, columns: str, values: str) -> pd.DataFrame:
    """Class × ``columns``, both in the order in which the frame has them."""
    # pivot_table would average rows that are there twice; pivot refuses them.
    table = frame.pivot(index="class", columns=columns, values=values)  # noqa: PD010
    return table.reindex(index=unique(frame["class"]), columns=unique(frame[columns]))
