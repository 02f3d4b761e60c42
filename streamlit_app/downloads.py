"""Downloads of what a page shows: figures as PNG and PDF, tables as CSV."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import layouts
import pandas as pd
import streamlit as st
from matplotlib.figure import Figure

from attnscope import report


def offer(
    name: str,
    *,
    draw: Callable[[], Figure] | None = None,
    table: Callable[[], pd.DataFrame] | None = None,
) -> None:
    """Show a menu that downloads a figure as PNG or PDF, and its numbers as CSV.

    Nothing is drawn or computed before the visitor asks for the file.

    Args:
        name: name of the files without suffix. It must be unique on the page.
        draw: returns the figure.
        table: returns the numbers that the figure shows.
    """
    with st.popover("Download", icon=":material/download:", key=f"download {name}"):
        if draw is not None:
            for suffix, mime in (("png", "image/png"), ("pdf", "application/pdf")):
                _button(name, suffix, mime, partial(_rendered, draw, suffix))
        if table is not None:
            _button(name, "csv", "text/csv", lambda: table().to_csv(index=False).encode())


def _rendered(draw: Callable[[], Figure], suffix: str) -> bytes:
    return report.render(draw(), suffix, layouts.DPI)


def _button(name: str, suffix: str, mime: str, data: Callable[[], bytes]) -> None:
    st.download_button(
        suffix.upper(), data, f"{name}.{suffix}", mime, key=f"download {name} {suffix}",
        on_click="ignore",
    )  # fmt: skip
