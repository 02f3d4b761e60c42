"""The figure that a plot returns: matplotlib's own, which a notebook shows by itself."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from attnscope.plots.theme import style

_DPI = 110
"""Resolution of the picture in a notebook."""


class PlotFigure(Figure):
    """A matplotlib figure with a caption.

    The figure is not managed by pyplot, so it needs no ``close`` and opens no window. A notebook
    shows it if it is the result of a cell, with and without ``%matplotlib inline``.
    """

    plot: str = ""
    """Name of the plot."""
    caption: str = ""
    """What the figure shows and what was found, in sentences."""
    page: int = 1
    """Number of the page, from 1."""
    pages: int = 1
    """How many pages the plot has."""

    def __repr__(self) -> str:
        return f"<PlotFigure '{self.plot}', page {self.page} of {self.pages}>"

    def __str__(self) -> str:
        return repr(self)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save the figure as `matplotlib.figure.Figure.savefig` does.

        Text in a PDF is stored as text, as in the files of ``attnscope figures``.
        """
        with style():
            super().savefig(*args, **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()


def as_plot_figure(
    figure: Figure, *, plot: str, caption: str, page: int = 1, pages: int = 1
) -> PlotFigure:
    """Return the same figure as a `PlotFigure`.

    Args:
        figure: what a plot drew; it is changed in place.
        plot: name of the plot.
        caption: of all pages.
        page: number of this page, from 1.
        pages: number of pages.
    """
    # A plot, also that of another package, draws on a plain Figure. PlotFigure adds methods and no
    # state of its own, so the figure can change its class and keep everything that was drawn.
    figure.__class__ = PlotFigure
    assert isinstance(figure, PlotFigure)
    figure.plot, figure.caption, figure.page, figure.pages = plot, caption, page, pages
    return figure
