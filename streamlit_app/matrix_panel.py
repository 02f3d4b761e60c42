"""A matrix of classes on a page: the window, its chart, and the picture of all classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import addressed
import downloads
import matrices
import numpy as np
import pandas as pd
import streamlit as st
from matplotlib.figure import Figure
from matrices import PREDICTED, TRUE, WHOLE, Look, Window
from numpy.typing import NDArray

_WINDOW = ("rows", "columns")  # keys of the controls


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

    def choose(self, true: str, predicted: str) -> None:
        """Choose the classes of a cell, and show its rows and columns."""
        window = {}
        if self.many:
            places = [self.names.index(name) // WHOLE for name in (true, predicted)]
            window = {
                key: self.stretches[place] for key, place in zip(_WINDOW, places, strict=True)
            }
        addressed.choose(**{TRUE: true, PREDICTED: predicted}, **window)

    def window(self) -> Window | None:
        """Show which rows and columns the chart has, and return the choice.

        It is None if the address names rows or columns that do not exist.
        """
        if not self.many:
            return Window(slice(None), slice(None))
        titles = ("True classes", "Predicted classes")
        chosen = [
            addressed.named_selectbox(
                place, title, self.stretches, key, "stretch of classes",
                scope=str(len(self.names)),
                help=f"Which {WHOLE} classes are shown, by their position in the chosen order.",
            )
            for place, title, key in zip(st.columns(2), titles, _WINDOW, strict=True)
        ]  # fmt: skip
        found = [matrices.stretch(part) for part in chosen if part is not None]
        return Window(*found) if len(found) == len(chosen) else None

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
        rows, columns = (state.get(key) or self.stretches[0] for key in _WINDOW)
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
    addressed.choose(**{name: chosen[0][name] if chosen else None for name in (TRUE, PREDICTED)})


def _block_clicked(key: str) -> None:
    chosen = st.session_state[key]["selection"]["block"]
    if chosen:
        addressed.choose(**{key: chosen[0][key] for key in _WINDOW})
