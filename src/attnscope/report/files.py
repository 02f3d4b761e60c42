"""Plots as PNG and PDF files."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from attnscope.errors import InputError
from attnscope.files import write_bytes
from attnscope.layout import FIGURES
from attnscope.plots import Drawing, Plot, Unavailable, plots_for, plots_of
from attnscope.plots.subjects import Intervened, Pair, TwoKinds
from attnscope.plots.theme import missing_characters, style
from attnscope.recording.outcomes import find_outcomes
from attnscope.recording.recording import Recording
from attnscope.runs import Run

DPI = 170
"""Of the PNG files."""

_log = logging.getLogger(__name__)


def write_figures(folder: Path, out: Path | None = None) -> list[Path]:
    """Writes every plot of a recording, and of its interventions, as PNG and PDF.

    Args:
        folder: a run (its test split is taken) or a recording.
        out: where to; ``figures`` in the run when not given.

    Returns:
        The files. A plot that the recording cannot have is left out, and the log says so.

    Raises:
        InputError: there is no recording, or it cannot be read.
    """
    recording = Recording(folder)
    if out is None:
        run = Run.holding(recording)
        out = run.figures_folder(recording.folder.name) if run else recording.folder / FIGURES
    tell_missing_characters([recording])
    written = []
    for plot, subject in plots_of_recording(recording):
        written += _write_plot(plot, subject, out)
    return written


def write_comparison(folder_a: Path, folder_b: Path, out: Path) -> list[Path]:
    """Writes every plot of two recordings as PNG and PDF.

    Args:
        folder_a: a run or a recording.
        folder_b: another, of the same images in the same order.
        out: where to.

    Raises:
        InputError: a recording cannot be read, or the two are not of the same images.
    """
    return write_plots(Pair(Recording(folder_a), Recording(folder_b)), out)


def write_plots(subject: Pair | TwoKinds, out: Path) -> list[Path]:
    """Writes every plot of two recordings, or of two kinds of network, as PNG and PDF.

    Args:
        subject: what they are of.
        out: where to; it is not made before it is known that the recordings can be compared.

    Raises:
        InputError: the recordings are not of the same images, or the kinds not of the same seeds.
    """
    recordings = [subject.a, subject.b] if isinstance(subject, Pair) else [*subject.a, *subject.b]
    tell_missing_characters(recordings)
    return [file for plot in plots_of(type(subject)) for file in _write_plot(plot, subject, out)]


def write_drawings(drawings: Mapping[str, Drawing], out: Path) -> list[Path]:
    """Writes drawings as PNG and PDF, each by its name; a second page gets the suffix ``_2``."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawing in drawings.items():
        for number, figure in enumerate(drawing.figures, start=1):
            stem = name if number == 1 else f"{name}_{number}"
            for ending in ("png", "pdf"):
                write_bytes(out / f"{stem}.{ending}", render(figure, ending, DPI))
                figure.set_layout_engine("none")  # laid out once: both have the same places
                written.append(out / f"{stem}.{ending}")
    return written


def plots_of_recording(recording: Recording) -> list[tuple[Plot[Any, Any], Recording | Intervened]]:
    """Each plot of a recording with what it is of; those of its interventions first, if any.

    Interventions that cannot be read are left out, with a warning.
    """
    found: list[tuple[Plot[Any, Any], Recording | Intervened]] = []
    try:
        outcomes = find_outcomes(recording)
    except InputError as problem:  # what the recording alone shows is still true
        _log.warning("figures of interventions left out: %s", problem)
        outcomes = None
    if outcomes is not None:
        made = Intervened(recording, outcomes)
        found += [(plot, made) for plot in plots_for(made)]
    return found + [(plot, recording) for plot in plots_for(recording)]


def render(figure: Figure, file_format: str, dpi: int) -> bytes:
    """The figure as the bytes of a ``png`` or ``pdf`` file."""
    # Without dates and versions the same numbers give the same bytes.
    metadata = {"Software": None} if file_format == "png" else {"CreationDate": None}
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def tell_missing_characters(recordings: Sequence[Recording]) -> None:
    """One line in the log where names have characters that no installed font has."""
    texts = [text for r in recordings for text in (*r.classes, r.name)]
    missing = missing_characters(texts)
    if missing:
        _log.warning(
            "no installed font has %s (%d characters); figures show boxes and the number of the "
            "class. Install a font that has them, e.g. fonts-noto-cjk",
            missing[:10],
            len(missing),
        )


def _write_plot(plot: Plot[Any, Any], subject: object, out: Path) -> list[Path]:
    try:
        drawing = plot.make(subject)
    except Unavailable as reason:
        _log.warning("%s left out: %s", plot.name, reason)
        return []
    return write_drawings({plot.name: drawing}, out)
