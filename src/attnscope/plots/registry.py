"""What a plot is, and all plots by name.

A plot goes from a subject (a recording, a pair of them ...) to a typed result, and from that result
alone to figures and to a caption. ``attnscope figures``, ``compare`` and ``report`` and the
dashboard go through `PLOTS`: whatever is registered appears in each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.errors import InputError
from attnscope.plots.images import draw_note
from attnscope.plots.needs import Need
from attnscope.plots.subjects import SUBJECTS, Identity, identity
from attnscope.plots.theme import drawable, style
from attnscope.plots.titles import title_of
from attnscope.recording.recording import Recording
from attnscope.registry import Registry

S = TypeVar("S")
R = TypeVar("R")
_LAST = 1000


class Unavailable(InputError):
    """A plot that this subject cannot have; the message says what is missing."""


@dataclass(frozen=True)
class Note:
    """Words that stand on the figure because there is nothing to draw; they are its caption too."""

    text: str
    of: Identity | None = None
    """The recording that the title names."""


@dataclass(frozen=True)
class Drawing:
    """A plot of one subject."""

    figures: list[Figure]
    """Usually one; more where one page would not be legible."""
    caption: str
    """Sentences with the numbers."""


@dataclass(frozen=True)
class Plot(Generic[S, R]):
    """One plot: what it computes, how it is drawn, and what it says in words.

    >>> from attnscope import Recording
    >>> from attnscope.plots import PLOTS
    >>> drawing = PLOTS["gate_state"].make(Recording("runs/demo-cbam"))  # doctest: +SKIP
    """

    name: str
    """Of the files, and in `PLOTS`."""
    title: str
    """Above the figure in the report and in the dashboard."""
    about: str
    """One line: what it shows."""
    subject: type[S]
    """What it is of, one of `SUBJECTS`."""
    compute: Callable[[S], R | Note]
    """Everything that is drawn or said, as a dataclass; a `Note` where there is nothing to draw.
    May raise `Unavailable`."""
    draw: Callable[..., Axes]
    """Draws one panel on an Axes and returns it: ``draw(ax, result)`` where there is no `lay_out`,
    which otherwise hands each panel what it shows."""
    caption: Callable[[R], str]
    """Sentences over the result; nothing has to be drawn for them."""
    lay_out: Callable[[R], list[Figure]] | None = None
    """The figures, where they are more than one Axes under the title."""
    needs: tuple[Need, ...] = ()
    """What it cannot be drawn without."""
    heading: str = ""
    """Title of the figure that says what is missing; by default `title`."""
    place: int = _LAST
    """Where it stands among the plots of its subject; without one it comes after those with one."""

    def result(self, subject: S) -> R | Note:
        """What is drawn and said.

        Raises:
            Unavailable: the subject cannot have the plot.
            InputError: something that it needs cannot be read.
        """
        for need in self.needs:
            missing = need.missing(subject)
            if missing and need.left_out:
                raise Unavailable(missing)
            if missing:
                return Note(missing, identity(subject) if isinstance(subject, Recording) else None)
        return self.compute(subject)

    def words(self, result: R | Note) -> str:
        """The caption."""
        return result.text if isinstance(result, Note) else self.caption(result)

    def figures(self, result: R | Note) -> list[Figure]:
        """The figures, which are matplotlib's own and none of pyplot's."""
        with style():
            if isinstance(result, Note):
                return [_note_figure(result, self.heading or self.title)]
            if self.lay_out is not None:
                return self.lay_out(result)
            figure = Figure(figsize=(7.5, 4.5), layout="constrained")
            self.draw(figure.subplots(), result)
            figure.suptitle(self.title)
            return [figure]

    def make(self, subject: S) -> Drawing:
        """Computes, draws and tells.

        Raises:
            Unavailable: the subject cannot have the plot.
            InputError: something that it needs cannot be read.
        """
        result = self.result(subject)
        return Drawing(self.figures(result), self.words(result))

    def concerns(self, subject: S) -> bool:
        """Whether it is shown, or said to be missing, where all plots of a subject are."""
        return not any(need.asked_for and need.missing(subject) for need in self.needs)

    def asks(self, *what: str) -> bool:
        """Whether all of these are among its needs."""
        return set(what) <= {need.what for need in self.needs}


def _note_figure(note: Note, heading: str) -> Figure:
    figure = Figure(figsize=(7, 2), layout="constrained")
    draw_note(figure.subplots(), drawable(note.text))
    if note.of is not None:
        figure.suptitle(f"{heading}: {title_of(note.of)}")
    return figure


def _check(plot: Plot[Any, Any]) -> None:
    """Refuse what is not complete where it is registered, not where it is first drawn."""
    if not isinstance(plot, Plot):
        raise TypeError("it must be a Plot")
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
    if plot.lay_out is not None and not callable(plot.lay_out):
        raise TypeError("its lay_out must be a function or None")
    if not all(isinstance(need, Need) for need in plot.needs):
        raise TypeError("its needs must be a tuple of Need")


PLOTS: Registry[Plot[Any, Any]] = Registry("plot", _check)
"""All plots by name."""


def register_plot(plot: Plot[S, R]) -> Plot[S, R]:
    """Add a plot.

    Returns:
        The plot.

    Raises:
        InputError: its name is taken, or it is not complete.
    """
    PLOTS.register(plot.name, plot)
    return plot


def plots_of(subject: type[S]) -> list[Plot[S, Any]]:
    """The plots of one of `SUBJECTS`, in the order in which they are shown."""
    found = [plot for plot in PLOTS.values() if plot.subject is subject]
    return sorted(found, key=lambda plot: plot.place)  # stable


def plots_for(subject: S) -> list[Plot[S, Any]]:
    """Those of them that concern one subject: `Plot.concerns`."""
    return [plot for plot in plots_of(type(subject)) if plot.concerns(subject)]
