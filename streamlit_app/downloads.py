"""Downloads of what a page shows: figures as PNG and PDF, tables as CSV."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import layouts
import pandas as pd
import streamlit as st
from cached import Shown
from matplotlib.figure import Figure

from attnscope import report
from attnscope.plots import Plot

TYPES = {
    "png": "image/png",
    "pdf": "application/pdf",
    "csv": "text/csv",
    "zip": "application/zip",
}
"""Last suffix of a file -> its MIME type."""


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
    files: dict[str, Callable[[], bytes]] = {}
    if draw is not None:
        files |= {suffix: partial(_rendered, draw, suffix) for suffix in ("png", "pdf")}
    if table is not None:
        files["csv"] = partial(_written, table)
    offer_files(name, files)


def offer_plot(name: str, draw: Callable[..., Shown], plot: Plot[Any, Any], pages: int) -> None:
    """Show the menu of `offer` for a registered plot.

    Args:
        name: name of the files without suffix. It must be unique on the page.
        draw: takes the name of the plot and ``png``, ``pdf`` or ``csv``.
        plot: the plot. It has no CSV if it shows pictures only.
        pages: number of its figures. Several are packed into one ZIP file.
    """
    files = {}
    for suffix in ("png", "pdf", *(["csv"] if plot.table is not None else [])):
        made = partial(_made, draw, plot.name, suffix)
        if pages > 1 and suffix != "csv":
            files[f"{suffix}.zip"] = partial(_zipped, made, plot.name, suffix)
        else:
            files[suffix] = partial(_only, made)
    offer_files(name, files)


def offer_files(name: str, files: Mapping[str, Callable[[], bytes]]) -> None:
    """Show a menu of one button for each file.

    Args:
        name: name of the files without suffix. It must be unique on the page.
        files: suffix of a file, one of `TYPES` -> a function that returns its content.
    """
    with st.popover("Download", icon=":material/download:", key=f"download {name}"):
        for suffix, data in files.items():
            button(suffix.upper().replace(".ZIP", " (ZIP)"), f"{file_name(name)}.{suffix}", data)


def button(label: str, file: str, data: Callable[[], bytes], icon: str | None = None) -> None:
    """Show one button that downloads a file, whose content is made when it is clicked."""
    st.download_button(
        label, data, file, TYPES[file.rsplit(".", 1)[1]], key=f"download {file}",
        on_click="ignore", icon=icon,
    )  # fmt: skip


def file_name(*parts: str) -> str:
    """Return a name for a file, from names and labels that can hold any characters."""
    words = (re.sub(r"[^\w.+-]+", "-", part).strip("-.") for part in parts)
    return "_".join(word for word in words if word)[:150] or "figure"


def _rendered(draw: Callable[[], Figure], suffix: str) -> bytes:
    return report.render(draw(), suffix, layouts.DPI)


def _written(table: Callable[[], pd.DataFrame]) -> bytes:
    return table().to_csv(index=False).encode()


def _made(draw: Callable[..., Shown], plot: str, suffix: str) -> list[bytes]:
    contents: list[bytes] = draw(plot, suffix)[0]
    return contents


def _only(made: Callable[[], list[bytes]]) -> bytes:
    (content,) = made()
    return content


def _zipped(made: Callable[[], list[bytes]], name: str, suffix: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for page, content in enumerate(made(), start=1):
            stem = name if page == 1 else f"{name}_{page}"
            archive.writestr(zipfile.ZipInfo(f"{stem}.{suffix}"), content)
    return buffer.getvalue()
