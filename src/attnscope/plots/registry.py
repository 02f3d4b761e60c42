"""What a plot is, and all plots by name.

A plot goes from a subject (a recording, a comparison of two ...) to a typed result, and from that
result alone to figures and to a caption. ``attnscope figures``, ``compare`` and ``report`` and the
dashboard go through `PLOTS`: a registered plot appears in each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.errors import InputError
from attnscope.plots.figure import PlotFigure, as_plot_figure
from attnscope.plots.images import draw_note
from attnscope.plots.needs import Need
from attnscope.plots.subjects import SUBJECTS, Identity, identity, open_subject
from attnscope.plots.theme import drawable, style
from attnscope.plots.titles import title_of
from attnscope.recording.format import WITHOUT_CLASSES
from attnscope.recording.recording import Recording
from attnscope.registry import Registry

S = TypeVar("S")
R = TypeVar("R")
_LAST = 1000


class Unavailable(InputError):
    """This subject cannot have the plot. The message says what is missing."""


@dataclass(frozen=True)
class Note:
    """A sentence that stands on the figure if there is nothing to draw. It is the caption, too."""

    text: str
    of: Identity | None = None
    """The recording that the title names."""


@dataclass(frozen=True)
class Drawing:
    """The figures of a plot of one subject, and their caption."""

    figures: list[PlotFigure]
    """One for each page. Most plots have one page."""
    caption: str
    """What the figures show and what was found, in sentences."""


@dataclass(frozen=True, repr=False)
class Plot(Generic[S, R]):
    """One plot: what it computes, how it is drawn, and what its caption says.

    Call a plot with what it shows, and it returns a figure (`__call__`):

    >>> import attnscope
    >>> attnscope.plots.gate_state("runs/demo-cbam")  # doctest: +SKIP
    <PlotFigure 'gate_state', page 1 of 1>
    """

    name: str
    """The name in `PLOTS` and of the files, and the name under `attnscope.plots`."""
    title: str
    """The heading above the figure in the report and in the dashboard."""
    about: str
    """What the plot shows, in one line."""
    subject: type[S]
    """What the plot is of, one of `SUBJECTS`."""
    compute: Callable[[S], R | Note]
    """Subject -> a dataclass with everything that is drawn or said; a `Note` if there is nothing to
    draw. It may raise `Unavailable`."""
    draw: Callable[..., Axes]
    """Draws one panel on an Axes and returns the Axes. Without `lay_out` it is called as
    ``draw(ax, result)``; otherwise `lay_out` calls it with what each panel shows."""
    caption: Callable[[R], str]
    """Result -> what the figure shows and what was found, in sentences. It draws nothing."""
    lay_out: Callable[[R], list[Figure]] | None = None
    """Result -> the figures, one for each page, if a figure is more than one Axes under a title."""
    needs: tuple[Need, ...] = ()
    """What the plot cannot be drawn without."""
    heading: str = ""
    """Title of the figure that says what is missing. Default: `title`."""
    place: int = _LAST
    """Position among the plots of the same subject, ascending. Default: after all that have one."""
    draw_on: Callable[[Axes, R], Axes] | None = None
    """Draws the whole result, with legend and title, on one Axes: for a plot that has `lay_out` but
    only one panel. It may raise an `InputError` if a result needs several panels."""
    table: Callable[[R], pd.DataFrame] | None = None
    """Result -> the numbers that the figure shows, which the dashboard offers as CSV; None if it
    shows pictures and no numbers."""

    def __post_init__(self) -> None:
        # help() and IPython's `?` show it; a field would not be found there.
        doc = f"{self.about}\n\n{type(self).__call__.__doc__}"
        object.__setattr__(self, "__doc__", doc)

    def __repr__(self) -> str:
        subject = getattr(self.subject, "__name__", self.subject)
        return f"<Plot '{self.name}' of a {subject}: {self.about}>"

    @overload
    def __call__(
        self, *targets: Any, split: str = "test", page: int = 1, ax: None = None
    ) -> PlotFigure: ...

    @overload
    def __call__(
        self, *targets: Any, split: str = "test", page: Literal[1] = 1, ax: Axes
    ) -> Axes: ...

    def __call__(
        self, *targets: Any, split: str = "test", page: int = 1, ax: Axes | None = None
    ) -> PlotFigure | Axes:
        """Draw the plot.

        Args:
            targets: what the plot shows. A plot of one recording takes a `Recording`, a `Run`, or
                the path of either; a plot of two takes two of these, or a `Comparison`; a plot over
                seeds takes a list of them for each configuration.
            split: for a run, the split whose recording is used.
            page: which page to draw, from 1. `PlotFigure.pages` says how many there are, and so
                does the title of the figure if there are several.
            ax: draw on these Axes instead of on a new figure. Only plots with one panel accept it.

        Returns:
            The figure, with its caption in `PlotFigure.caption`; or ``ax``.

        Raises:
            InputError: a recording cannot be opened; the plot needs something that was not
                recorded (`Unavailable`); there is no such page; or the plot has several panels and
                does not fit on ``ax``.
        """
        result = self.result(open_subject(self.name, self.subject, targets, split))
        if ax is not None:
            return self._draw_on(ax, result)
        figures = self.figures(result)
        if not 1 <= page <= len(figures):
            raise InputError(
                "AS902",
                f"the plot {self.name} has no page {page}; choose a page from 1 to {len(figures)}",
            )
        return figures[page - 1]

    def result(self, subject: S) -> R | Note:
        """Return everything that the figures and the caption need.

        Raises:
            Unavailable: the subject cannot have the plot.
            InputError: something that the plot needs cannot be read.
        """
        for need in self.needs:
            missing = need.missing(subject)
            if missing and need.left_out:
                raise Unavailable(need.code, missing.removesuffix("."))
            if missing:
                return Note(missing, identity(subject) if isinstance(subject, Recording) else None)
        try:
            return self.compute(subject)
        except InputError as error:
            if error.code not in WITHOUT_CLASSES:
                raise
            raise Unavailable(error.code, error.message) from None

    def words(self, result: R | Note) -> str:
        """Return the caption."""
        return result.text if isinstance(result, Note) else self.caption(result)

    def numbers(self, result: R | Note) -> pd.DataFrame:
        """Return the numbers that the figure shows; an empty table if it shows none."""
        if isinstance(result, Note) or self.table is None:
            return pd.DataFrame()
        return self.table(result)

    def figures(self, result: R | Note) -> list[PlotFigure]:
        """Draw the result, and return the figures, one for each page."""
        with style():
            if isinstance(result, Note):
                figures = [_note_figure(result, self.heading or self.title)]
            elif self.lay_out is not None:
                figures = self.lay_out(result)
            else:
                figure = Figure(figsize=(7.5, 4.5), layout="constrained")
                self.draw(figure.subplots(), result)
                figure.suptitle(self.title)
                figures = [figure]
            count, caption = len(figures), self.words(result)
            if count > 1:
                for page, figure in enumerate(figures, start=1):
                    title, *more = figure.get_suptitle().split("\n")
                    figure.suptitle("\n".join([f"{title} (page {page} of {count})", *more]))
            return [
                as_plot_figure(figure, plot=self.name, caption=caption, page=page, pages=count)
                for page, figure in enumerate(figures, start=1)
            ]

    def make(self, subject: S) -> Drawing:
        """Compute and draw the plot, and return the figures with their caption.

        Raises:
            Unavailable: the subject cannot have the plot.
            InputError: something that the plot needs cannot be read.
        """
        result = self.result(subject)
        return Drawing(self.figures(result), self.words(result))

    def concerns(self, subject: S) -> bool:
        """Return whether lists of the plots of a subject include this plot."""
        return not any(need.asked_for and need.missing(subject) for need in self.needs)

    def asks(self, *what: str) -> bool:
        """Return whether all of these names are among the needs of the plot."""
        return set(what) <= {need.what for need in self.needs}

    def _draw_on(self, ax: Axes, result: R | Note) -> Axes:
        with style():
            if isinstance(result, Note):
                return draw_note(ax, drawable(result.text))
            if self.draw_on is not None:
                return self.draw_on(ax, result)
            if self.lay_out is None:
                return self.draw(ax, result)
        raise InputError(
            "AS901",
            f"the plot {self.name} has several panels and cannot be drawn on one Axes; call it "
            "without ax=, and it returns a figure of its own",
        )


def _note_figure(note: Note, heading: str) -> Figure:
    figure = Figure(figsize=(7, 2), layout="constrained")
    draw_note(figure.subplots(), drawable(note.text))
    if note.of is not None:
        figure.suptitle(f"{heading}: {title_of(note.of)}")
    return figure


def _check(plot: Plot[Any, Any]) -> None:
    """Refuse an incomplete plot when it is registered, not when it is first drawn."""
    if not isinstance(plot, Plot):
        raise TypeError(f"it must be a Plot, not a {type(plot).__name__}")
    package = sys.modules["attnscope.plots"]
    if plot.name in package.__all__ or plot.name in package._MODULES:
        raise ValueError(f"attnscope.plots.{plot.name} is something else; take another name")
    for field in ("title", "about"):
        text = getattr(plot, field)
        if not isinstance(text, str) or not text.strip() or "\n" in text:
            raise ValueError(f"its {field} must be one line of text")
    if plot.subject not in SUBJECTS:
        known = ", ".join(subject.__name__ for subject in SUBJECTS)
        raise ValueError(f"its subject must be one of {known}")
    for field in ("compute", "draw", "caption"):
        if not callable(getattr(plot, field)):
            raise TypeError(f"its {field} must be a function")
    for field in ("lay_out", "draw_on", "table"):
        function = getattr(plot, field)
        if function is not None and not callable(function):
            raise TypeError(f"its {field} must be a function or None")
    if not all(isinstance(need, Need) for need in plot.needs):
        raise TypeError("its needs must be a tuple of Need")


PLOTS: Registry[Plot[Any, Any]] = Registry("plot", _check)
"""All plots by name."""


def register_plot(plot: Plot[S, R]) -> Plot[S, R]:
    """Add a plot to `PLOTS`.

    Returns:
        The plot.

    Raises:
        InputError: its name is taken, or the plot is not complete.
    """
    PLOTS.register(plot.name, plot)
    return plot


def plots_of(subject: type[S]) -> list[Plot[S, Any]]:
    """Return the plots of one of `SUBJECTS`, in the order in which they are shown."""
    found = [plot for plot in PLOTS.values() if plot.subject is subject]
    return sorted(found, key=lambda plot: plot.place)  # a stable sort


def plots_for(subject: S) -> list[Plot[S, Any]]:
    """Return the plots of a subject that concern it: `Plot.concerns`."""
    return [plot for plot in plots_of(type(subject)) if plot.concerns(subject)]
