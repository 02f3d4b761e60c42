"""A matrix of classes on a page: the window, its chart, and the picture of all classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import downloads
import matrices
import numpy as np
import pandas as pd
import streamlit as st
from matplotlib.figure import Figure
from matrices import PREDICTED, TRUE, WHOLE, Look, Window
from numpy.typing import NDArray
from widgets import is_unknown


@dataclass(frozen=True)
class Panel:
    """A matrix of classes, whose window is in the address.

    A click on a cell sets the session's values ``true`` and ``predicted``.
    """

    name: str
    """What the matrix is, for keys and files; unique on the page."""
    of: str
    """What it is of, for titles and files."""
    names: list[str]
    """The classes in the order of rows and columns."""

    @property
    def many(self) -> bool:
        """Whether there are more classes than the chart shows."""
        return len(self.names) > WHOLE

    @property
    def stretches(self) -> list[str]:
        """What rows and columns can be chosen."""
        return matrices.stretches(len(self.names))

    def is_unknown(self) -> bool:
        """Say so if the address asks for rows or columns that there are not."""
        keys = ("rows", "columns") if self.many else ()
        return any([is_unknown(key, self.stretches, "stretch of classes") for key in keys])

    def zoom(self, true: int, predicted: int) -> None:
        """Show the rows and columns of a cell, from its place in the order of the classes."""
        if self.many:
            st.session_state["rows"] = self.stretches[true // WHOLE]
            st.session_state["columns"] = self.stretches[predicted // WHOLE]

    def window(self) -> Window:
        """Show which rows and columns the chart has, and return the choice."""
        if not self.many:
            return Window(slice(None), slice(None))
        chosen = []
        for column, key, title in zip(
            st.columns(2), ("rows", "columns"), ("True classes", "Predicted classes"), strict=True
        ):
            part = column.selectbox(
                title, self.stretches, key=key, bind="query-params",
                help=f"Which {WHOLE} classes are shown, by their position in the chosen order.",
            )  # fmt: skip
            chosen.append(matrices.stretch(part))
        return Window(*chosen)

    def chart(
        self,
        window: Window,
        look: Look,
        columns: dict[str, NDArray[Any]],
        tooltips: dict[str, tuple[str, str]],
    ) -> pd.DataFrame:
        """Show the cells of a window, and return their table.

        Args:
            window: the rows and columns.
            look: colors and formats.
            columns: name -> ``(K, K)``; ``value`` is shown.
            tooltips: name of a column -> its title and its format.
        """
        table = matrices.cells(self.names, window, columns)
        st.vega_lite_chart(
            table, matrices.chart(self.names, window, look, "value", tooltips),
            width="content", key=self.name, on_select=partial(_cell_clicked, self.name),
            alt=f"{self.name.replace('_', ' ').capitalize()}: true classes in rows, predicted "
            "classes in columns",
        )  # fmt: skip
        return table

    def offer_window(self, window: Window, look: Look, table: pd.DataFrame) -> None:
        """Offer the cells of a window as files."""
        rows, columns = self.names[window.rows], self.names[window.columns]
        values = table["value"].to_numpy(np.float64).reshape(len(rows), len(columns))
        place = f"{window.rows.start or 0}-{window.columns.start or 0}"
        downloads.offer(
            downloads.file_name(f"{self.name}_window", place, self.of),
            draw=partial(matrices.figure, rows, columns, values, look, self._title),
            table=lambda: table,
        )

    def overview(
        self,
        png: bytes,
        numbers: NDArray[np.int64],
        noun: str,
        draw: Callable[[], tuple[NDArray[np.float64], Look]],
        table: Callable[[], pd.DataFrame],
    ) -> None:
        """Show all cells as a picture, on which a click chooses the window.

        Args:
            png: the picture.
            numbers: what the tooltip of a block sums up, ``(K, K)``.
            noun: what it is.
            draw: returns all values and their look, for the files.
            table: returns the table for the files.
        """
        state = st.session_state
        rows, columns = (state.get(key) or self.stretches[0] for key in ("rows", "columns"))
        st.markdown("**All classes.** Click a block to see it larger.")
        st.vega_lite_chart(
            matrices.blocks(self.names, numbers, noun),
            matrices.map_chart(len(self.names), png, (rows, columns), noun),
            width="content", key=f"{self.name} overview",
            on_select=partial(_block_clicked, f"{self.name} overview"),
            selection_mode="block",  # to hover over blocks is no choice
            alt="Picture of the whole matrix, in blocks that can be clicked",
        )  # fmt: skip

        def figure() -> Figure:
            return matrices.figure(self.names, self.names, *draw(), self._title)

        downloads.offer(downloads.file_name(self.name, self.of), draw=figure, table=table)

    @property
    def _title(self) -> str:
        return f"{self.name.replace('_', ' ').capitalize()}: {self.of}"


def _cell_clicked(key: str) -> None:
    chosen = st.session_state[key]["selection"]["cell"]
    for name in (TRUE, PREDICTED):
        st.session_state[name] = chosen[0][name] if chosen else None


def _block_clicked(key: str) -> None:
    chosen = st.session_state[key]["selection"]["block"]
    if chosen:
        st.session_state["rows"] = chosen[0]["rows"]
        st.session_state["columns"] = chosen[0]["columns"]
