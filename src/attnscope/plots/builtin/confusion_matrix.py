"""Counts of true and predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.plots.axes import label_axis
from attnscope.plots.choosing import choice_note, most_confused
from attnscope.plots.images import draw_colorbar, show
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.tables import flat
from attnscope.plots.text import as_count, as_interval, as_percent
from attnscope.plots.theme import GATE_MAP, INK, drawable_names
from attnscope.plots.titles import title_of
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import mean_share_interval

_CLASSES = 40  # that are drawn, if there are many


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of true and predicted classes."""

    of: Identity
    classes: Sequence[str]
    counts: pd.DataFrame
    """Rows (index): true class; columns: predicted class."""
    chosen: Sequence[int] | None = None
    """Numbers of the classes that are drawn; None for all."""

    @property
    def drawn(self) -> Sequence[int]:
        """Numbers of the classes that are drawn."""
        return range(len(self.classes)) if self.chosen is None else self.chosen


def compute(recording: Recording) -> ConfusionMatrix:
    """Count the images of each true and predicted class."""
    counts = statistics.confusion_matrix(recording)
    chosen = most_confused(counts.to_numpy(), _CLASSES)
    return ConfusionMatrix(identity(recording), recording.classes, counts, chosen)


def draw(ax: Axes, counts: pd.DataFrame, only: Sequence[int] | None = None) -> Axes:
    """Draw the shares of the true class as colors; up to 12 classes with counts in the cells.

    Args:
        ax: the Axes to draw on.
        counts: of `ConfusionMatrix`. The row of a class without images is gray.
        only: numbers of the classes to draw. Default: all. Shares are those of all images.
    """
    numbers = counts.to_numpy(dtype=np.float64)
    totals = numbers.sum(1, keepdims=True)
    shares = np.divide(numbers, totals, out=np.full_like(numbers, np.nan), where=totals > 0)
    if only is not None:
        kept = list(only)
        numbers, shares = (values[np.ix_(kept, kept)] for values in (numbers, shares))
        counts = counts.iloc[kept, kept]
    shown = show(ax, shares, 0, 1, GATE_MAP)
    ax.set_aspect("equal")
    size = len(counts)
    if size <= 12:
        for i in range(size):
            for j in range(size):
                if not np.isfinite(shares[i, j]):
                    continue
                dark = _is_dark(shown.cmap(shown.norm(shares[i, j])))
                text = f"{numbers[i, j]:.0f}"
                if numbers[i, j]:
                    text += f"\n{as_percent(shares[i, j])}"
                ax.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color=("#9AA3B5" if not numbers[i, j] else "white") if dark else INK,
                )
    label_axis(ax.yaxis, list(counts.index))
    label_axis(ax.xaxis, list(counts.columns))
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    return ax


def draw_on(ax: Axes, matrix: ConfusionMatrix) -> Axes:
    """Draw the matrix with its title and color bar."""
    _draw_with_bar(ax, matrix)
    ax.set_title(_title(matrix))
    return ax


def lay_out(matrix: ConfusionMatrix) -> list[Figure]:
    """Draw the matrix with its color bar."""
    size = float(np.clip(1.9 + 0.5 * len(matrix.drawn), 4.2, 9))
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    _draw_with_bar(figure.subplots(), matrix)
    figure.suptitle(_title(matrix))
    return [figure]


def table(matrix: ConfusionMatrix) -> pd.DataFrame:
    """Return the counts of all classes."""
    return flat(matrix.counts)


def caption(matrix: ConfusionMatrix) -> str:
    """Say the accuracy and the most frequent error."""
    numbers = matrix.counts.to_numpy().astype(float)
    right, total = np.trace(numbers), numbers.sum()
    low, high = mean_share_interval(np.array([right / total]), np.array([int(total)]))
    text = (
        "Number of images of each true and predicted class, and share of the true class. Accuracy "
        f"{as_percent(right / total)} ({as_interval(low, high, as_percent)}): {right:,.0f} of "
        f"{total:,.0f} images."
    )
    wrong = numbers - np.diag(np.diag(numbers))
    if wrong.any():
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        text += (
            f" The most frequent error is class {matrix.classes[i]} predicted as "
            f"{matrix.classes[j]}: {as_count(int(wrong[i, j]), 'image')}, "
            f"{as_percent(wrong[i, j] / numbers[i].sum())} of the true class"
        )
        ties = int((wrong == wrong[i, j]).sum()) - 1
        text += f" ({as_count(ties, 'other error')} as often)." if ties else "."
    empty = [c for c, row in zip(matrix.classes, numbers, strict=True) if not row.any()]
    if empty:
        text += f" Classes without images (gray rows): {', '.join(empty)}."
    note = choice_note(matrix.classes, matrix.drawn, "of the most frequent errors")
    return f"{text} {note}".rstrip()


def _draw_with_bar(ax: Axes, matrix: ConfusionMatrix) -> None:
    names = drawable_names(matrix.classes)
    draw(ax, matrix.counts.set_axis(names, axis=0).set_axis(names, axis=1), matrix.drawn)
    draw_colorbar(ax, "share of the true class", [ax])


def _title(matrix: ConfusionMatrix) -> str:
    return f"Confusion matrix: {title_of(matrix.of)}"


def _is_dark(color: tuple[float, ...]) -> bool:
    return bool(np.dot(color[:3], (0.299, 0.587, 0.114)) < 0.55)


register_plot(
    Plot(
        name="confusion_matrix",
        title="Confusion matrix",
        about="How many images of each true class the network assigns to each class.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        draw_on=draw_on,
        caption=caption,
        table=table,
        place=30,
    )
)
