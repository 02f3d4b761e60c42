"""Pieces that several pages share."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec

import cached
import layouts
import pandas as pd
import streamlit as st
from cached import Run
from PIL import Image

from attnscope.errors import InputError
from attnscope.plots import PLOTS, Plot, Unavailable
from attnscope.plots.text import as_percent

_P = ParamSpec("_P")
PAGE = 20
"""Pictures on one page of a gallery."""


def literal(text: str) -> str:
    """Markdown that shows ``text`` as it is, set as code: names and paths are data, not markup."""
    text = " ".join(text.split()) or " "
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def chosen_run() -> Run:
    """The recording that the sidebar shows."""
    found, _ = cached.runs()
    return found[st.session_state["run"]]


def part(function: Callable[_P, None]) -> Callable[_P, None]:
    """A part of a page that is redrawn alone; an InputError becomes one line in its place."""

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except InputError as error:
            st.error(literal(str(error)))

    return st.fragment(guarded)


def percent(share: float) -> str:
    """``0.9183`` as ``91.83 %``."""
    return as_percent(share, 2)


def in_percent(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The frame with shares of 0 to 1 as 0 to 100."""
    return frame.assign(**{name: 100 * frame[name] for name in columns})


def show_plot(plot: Plot[Any, Any], draw: Callable[[str], cached.Shown]) -> None:
    """A plot with its caption, or why the recording cannot have it.

    Args:
        plot: of the registry.
        draw: its name -> figures and caption. The caption holds names of classes, so it is plain
            text.
    """
    try:
        pages, caption = draw(plot.name)
    except Unavailable as reason:
        st.info(literal(str(reason)))
        return
    for page in pages:
        st.image(page, width="stretch")
    st.text(caption)


def browse(draw: dict[str, Callable[[str], cached.Shown]], key: str) -> None:
    """One plot at a time, out of all.

    Args:
        draw: for each plot, its name -> figures and caption.
        key: of the box in which a plot is chosen.
    """
    name = st.selectbox(
        "Figure", list(draw), format_func=lambda name: PLOTS[name].title, key=key,
        bind="query-params",
    )  # fmt: skip
    st.text(PLOTS[name].about)
    show_plot(PLOTS[name], draw[name])


def show_grid(png: bytes) -> None:
    """A grid of maps: not wider than it was drawn for, so that few columns stay small."""
    with Image.open(io.BytesIO(png)) as image:
        st.image(png, width=image.width * 96 // layouts.DPI)


def table_height(rows: int, most: int = 15) -> int:
    """Height in pixels that shows a table whole, up to so many rows."""
    return 38 + 35 * min(rows, most)


def page_of(rows: Sequence[int], key: str, size: int = PAGE) -> list[int]:
    """The rows of the page that a reader has turned to, with the control for turning."""
    pages = -(-len(rows) // size)
    page = st.pagination(pages, key=key) if pages > 1 else 1
    return [int(row) for row in rows[(page - 1) * size : page * size]]


def choose_overlay(run: Run, key: str) -> str:
    """What the pictures of a gallery show."""
    return str(st.selectbox("Show", cached.overlays(run), key=key, bind="query-params"))


def gallery(run: Run, rows: Sequence[int], source: str, key: str) -> None:
    """Pictures with path, classes and confidence, a page at a time; all on one scale.

    Captions are plain text, because paths and names of classes may look like markup.
    """
    rows = page_of(rows, key)
    recording, confidence = run.recording, cached.confidence(run)
    low, high = 0.0, 1.0
    if source == cached.GRAD_CAM:
        high = max(float(cached.heat(run, row, source).max()) for row in rows) or 1.0
    elif source != cached.PICTURE:
        gate = recording.info(source)
        low, high = gate.lo, gate.hi
    if source != cached.PICTURE:
        st.caption(
            f"{literal(source)} over the picture in gray, from {low:.3g} (dark) to {high:.3g} "
            "(bright); one scale for this page."
        )
    wide = 5
    for start in range(0, len(rows), wide):
        for column, row in zip(st.columns(wide), rows[start : start + wide], strict=False):
            true = recording.classes[recording.labels[row]]
            predicted = recording.classes[recording.predictions[row]]
            column.image(cached.picture(run, row, source, low, high), width="stretch")
            column.text(
                f"{true} → {predicted}\nconfidence {confidence[row]:.3f}\n"
                f"{recording.rows['path'].iloc[row]}"
            )
            column.page_link(
                "views/maps.py",
                label=f"maps of image {row}",
                query_params={"run": run.label, "image": str(row)},
            )
