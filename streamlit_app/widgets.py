"""Functions and controls that several pages share."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import addressed
import background
import cached
import downloads
import layouts
import pandas as pd
import streamlit as st
from cached import Run
from markup import breakable as breakable
from markup import literal as literal
from PIL import Image

from attnscope.errors import InputError
from attnscope.plots import PLOTS, Plot, Unavailable
from attnscope.plots.images import scale_of
from attnscope.plots.text import as_percent
from attnscope.recording.recording import Recording

_P = ParamSpec("_P")
PAGE = 20
"""Images on one page of a gallery."""
_LONG = 700
"""Characters of a caption above which it is folded away."""
_LARGER = 1.4
"""How many times the size for which it was drawn a figure is shown on a wide page."""
_CARD = 168  # width of an image of a gallery in pixels: its link fits in one line


def chosen_run() -> Run:
    """Return the recording that is selected in the sidebar."""
    found, _ = cached.runs()
    return found[st.session_state["run"]]


def chosen_history(run: Run) -> cached.Monitored | None:
    """Return the gates over training. If they cannot be read, show why; the page goes on."""
    try:
        return cached.monitored(run)
    except InputError as error:
        st.error(literal(str(error)))
        return None


def chosen_interventions(run: Run) -> cached.Intervened | None:
    """Return the interventions. If they cannot be read, show why; the page goes on."""
    try:
        return cached.interventions(run)
    except InputError as error:
        st.error(literal(str(error)))
        return None


def section(function: Callable[_P, None]) -> Callable[_P, None]:
    """Decorate a section of a page: it is redrawn alone and shows an InputError as one line."""

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except InputError as error:
            st.error(literal(str(error)))

    return st.fragment(guarded)


def percent(share: float) -> str:
    """Return a share of 0 to 1 in percent with two decimals."""
    return as_percent(share, 2)


def in_percent(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return the frame with the given columns multiplied by 100."""
    return frame.assign(**{name: 100 * frame[name] for name in columns})


def show_plot(plot: Plot[Any, Any], draw: functools.partial[cached.Shown], of: str = "") -> bool:
    """Show a plot with its caption and a menu of downloads, or the reason why it is unavailable.

    Args:
        plot: a registered plot.
        draw: `cached.plot` or its like with its first arguments; takes the plot's name and a
            format, and returns figures and caption. The caption is shown as plain text because it
            can contain names of classes.
        of: what the plot is of, for the names of downloaded files. Default: the label of the
            recording that is selected in the sidebar.

    Returns:
        Whether its result is there, so that tables of the same numbers cost nothing. If not, the
        page says that it is computed.
    """
    if not background.ready(_what(draw, plot.name), functools.partial(draw, plot.name)):
        return False
    try:
        pages, caption = draw(plot.name)
    except Unavailable as reason:
        st.info(literal(str(reason)))
        return True
    for page in pages:
        show_figure(page)
    if len(caption) <= _LONG:
        st.text(caption)
    else:
        with st.expander("What this figure says, in words"):
            st.text(caption)
    name = downloads.file_name(plot.name, of or st.session_state["run"])
    downloads.offer_plot(name, draw, plot, len(pages))
    return True


def _what(draw: functools.partial[cached.Shown], plot: str) -> str:
    """Return a name for a plot of certain subjects, for all visitors the same."""

    def key(subject: Any) -> Any:
        if isinstance(subject, list):
            return [key(each) for each in subject]
        return getattr(subject, "key", subject)

    return repr([plot, *(key(subject) for subject in draw.args)])


def browse(draw: dict[str, functools.partial[cached.Shown]], key: str, of: str = "") -> None:
    """Show one plot, chosen in a select box.

    Args:
        draw: maps the name of a plot to the function that draws it, as in `show_plot`.
        key: key of the select box.
        of: as in `show_plot`.
    """

    def title(name: str) -> str:
        return PLOTS[name].title

    name = addressed.named_selectbox(
        st, "Figure", list(draw), key, "figure", write=title, format_func=title
    )
    if name is None:
        return
    st.text(PLOTS[name].about)
    show_plot(PLOTS[name], draw[name], of)


def command_for_folder_of(recording: Recording) -> str:
    """Return the command that opens a recording's folder, so that results can be kept beside it."""
    return literal(f"attnscope dashboard {Path(recording.folder).resolve().parent}")


def show_picture(png: bytes, width: int | None = None) -> None:
    """Show a PNG file as it is.

    Without the format, or with a width of its own, `st.image` would decode the file at each rerun
    and encode it again: pictures without transparency as JPEG, whose edges are blurred, and larger
    ones at the number of pixels of an ordinary screen. It still does so above `layouts.WIDEST`
    pixels.

    Args:
        png: the file.
        width: in pixels of the page; at most the width of the page. Default: that width.
    """
    place = st if width is None else st.container(width=width)
    place.image(png, width="stretch", output_format="PNG")


def show_figure(png: bytes) -> None:
    """Show a figure at most so large that its text is a little larger than that of the page."""
    with Image.open(io.BytesIO(png)) as image:
        natural = image.width * 96 / image.info["dpi"][0]
    show_picture(png, int(_LARGER * natural))


def show_grid(png: bytes) -> None:
    """Show a grid of maps at the size for which it was drawn, so that few columns stay small."""
    with Image.open(io.BytesIO(png)) as image:
        show_picture(png, image.width * 96 // layouts.DPI)


def table_height(rows: int, most: int = 15) -> int:
    """Return the height in pixels of a table that shows up to ``most`` rows."""
    return 38 + 35 * min(rows, most)


def page_of(rows: Sequence[int], key: str, size: int = PAGE) -> list[int]:
    """Show the page numbers, and return the rows of the selected page."""
    pages = -(-len(rows) // size)
    page = st.pagination(pages, key=key) if pages > 1 else 1
    return [int(row) for row in rows[(page - 1) * size : page * size]]


def row_of_controls() -> Any:
    """Return a place whose controls stand side by side, and below each other in a narrow window.

    In columns, they would be cut off there.
    """
    return st.container(horizontal=True, vertical_alignment="bottom")


def choose_class(
    run: Run, place: Any, label: str, key: str, placeholder: str = "Any", **looks: Any
) -> str | None:
    """Show the control for a class, and return the choice; None without one.

    Args:
        run: the recording.
        place: where it is shown: ``st``, or a column.
        label: its label.
        key: its key.
        placeholder: what it shows without a choice.
        looks: further arguments of ``st.selectbox``.
    """
    return addressed.named_selectbox(
        place, label, run.recording.classes, key, "class", default=None, scope=run.key,
        placeholder=placeholder, **looks,
    )  # fmt: skip


def choose_overlay(run: Run, key: str) -> str:
    """Show the control for what is drawn over the images of a gallery; return the choice."""
    overlays = cached.overlays(run)
    return addressed.selectbox(st, "Overlay", overlays, key) or overlays[0]


def gallery(run: Run, rows: Sequence[int], source: str, key: str) -> None:
    """Show images with classes, confidence and path, one page at a time, on one color scale.

    Captions are plain text because paths and names of classes can look like markup.
    """
    rows = page_of(rows, key)
    recording, confidence = run.recording, cached.confidence(run)
    low, high = 0.0, 1.0
    if source == cached.GRAD_CAM:
        high = max(float(cached.heat(run, row, source).max()) for row in rows) or 1.0
    elif source != cached.NO_OVERLAY:
        shown = (cached.heat(run, row, source) for row in rows)
        low, high = scale_of(recording.info(source), shown)
    legend = "Below each image: true class → predicted class, confidence and path."
    if source != cached.NO_OVERLAY:
        legend += (
            f" {literal(source)} is drawn over the grayscale image, from {low:.3g} (dark) to "
            f"{high:.3g} (bright). All images on this page share the scale."
        )
    st.caption(legend)
    cards = st.container(horizontal=True)
    for row in rows:
        true = recording.classes[recording.labels[row]]
        predicted = recording.classes[recording.predictions[row]]
        card = cards.container(border=True, width=_CARD)  # pictures can be as white as the page
        with card:
            show_picture(cached.image(run, row, source, low, high))
        card.text(
            f"{breakable(f'{true} → {predicted}')}\nconfidence {confidence[row]:.3f}\n"
            f"{breakable(recording.rows['path'].iloc[row])}"
        )
        card.page_link(
            "views/image.py",
            label=f"Open image {row}",
            query_params={"run": run.label, "image": str(row)},
        )
