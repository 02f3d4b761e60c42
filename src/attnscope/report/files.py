"""Plots as PNG and PDF files."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attnscope.errors import InputError
from attnscope.files import StrPath, expect_folder, write_bytes
from attnscope.layout import FIGURES
from attnscope.plots import Drawing, Plot, Unavailable, plots_for, plots_of
from attnscope.plots.subjects import (
    Comparison,
    GateHistory,
    Intervened,
    SeedComparison,
    history_of,
)
from attnscope.plots.theme import missing_characters, style
from attnscope.progress import progress_bar
from attnscope.recording.outcomes import find_outcomes
from attnscope.recording.places import enclosing_run, folder_beside
from attnscope.recording.recording import Recording
from attnscope.writing import writing

DPI = 170
"""Resolution of the PNG files."""

_log = logging.getLogger(__name__)


def write_figures(folder: StrPath, out: StrPath | None = None) -> list[Path]:
    """Write every plot of a recording and of its interventions as PNG and PDF.

    Args:
        folder: a run, whose test split is used, or a recording.
        out: the output folder. Default: ``figures`` in the run.

    Returns:
        The files. A plot that cannot be drawn is left out, and the log gives the reason.

    Raises:
        InputError: there is no recording, it cannot be read, or another process writes to the
            output folder (AS118).
    """
    recording = Recording(folder)
    if out is None:
        out = folder_beside(recording.folder, FIGURES)
    expect_folder(Path(out))
    warn_missing_characters([recording])
    wanted = plots_of_recording(recording)
    with writing(Path(out)), progress_bar(len(wanted), "figure", alone=False) as bar:
        return _write(wanted, Path(out), bar.update)


def write_comparison(folder_a: StrPath, folder_b: StrPath, out: StrPath) -> list[Path]:
    """Write every plot of two recordings as PNG and PDF.

    Args:
        folder_a: a run or a recording.
        folder_b: another run or recording, of the same images in the same order.
        out: the output folder.

    Raises:
        InputError: a recording cannot be read, or the two are not of the same images.
    """
    return write_plots(Comparison(Recording(folder_a), Recording(folder_b)), out)


def write_plots(subject: Comparison | SeedComparison, out: StrPath) -> list[Path]:
    """Write every plot of two recordings, or of two configurations, as PNG and PDF.

    Args:
        subject: what `attnscope.compare` returns.
        out: the output folder. It is created only if the recordings can be compared.

    Raises:
        InputError: the recordings are not of the same images, the configurations do not have the
            same seeds, or another process writes to the output folder (AS118).
    """
    expect_folder(Path(out))
    warn_missing_characters(subject.recordings)
    with writing(Path(out)):
        return _write([(plot, subject) for plot in plots_of(type(subject))], Path(out))


def write_drawings(drawings: Mapping[str, Drawing], out: StrPath) -> list[Path]:
    """Write drawings as PNG and PDF under their names; a second page gets the suffix ``_2``."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawing in drawings.items():
        for number, figure in enumerate(drawing.figures, start=1):
            stem = name if number == 1 else f"{name}_{number}"
            for ending in ("png", "pdf"):
                write_bytes(folder / f"{stem}.{ending}", render(figure, ending, DPI))
                figure.set_layout_engine("none")  # lay out once: PNG and PDF have the same layout
                written.append(folder / f"{stem}.{ending}")
    return written


Subject = Recording | Intervened | GateHistory
"""What the plots of a recording are of."""


def expect_own_names(runs: Sequence[Path]) -> None:
    """Refuse runs whose files would have the same names.

    Raises:
        InputError: AS940, there is no run; AS941, two runs have the same folder name.
    """
    if not runs:
        raise InputError("AS940", "no run is given; give the folders of one or more runs")
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "AS941",
                f"{names.count(name)} runs have the folder name '{name}', but files are named "
                "after runs; rename the folders",
            )


def plots_of_recording(recording: Recording) -> list[tuple[Plot[Any, Any], Subject]]:
    """Return each plot of a recording with its subject: interventions, training, the recording.

    Interventions or a history that cannot be read are left out, and the log says why.
    """
    subjects: list[Subject] = []
    try:
        outcomes = find_outcomes(recording)
        if outcomes is not None:
            subjects.append(Intervened(recording, outcomes))
    except InputError as problem:  # the plots of the recording do not depend on them
        _log.warning("figures of interventions are left out: %s", problem)
    try:
        history = history_of(recording)
        if history is not None:
            subjects.append(history)
    except InputError as problem:
        _log.warning("figures of the gates over training are left out: %s", problem)
    subjects.append(recording)
    found: list[tuple[Plot[Any, Any], Subject]] = []
    for subject in subjects:
        plots = plots_of_one(subject) if isinstance(subject, Recording) else plots_for(subject)
        found += [(plot, subject) for plot in plots]
    return found


def plots_of_one(recording: Recording) -> list[Plot[Recording, Any]]:
    """Return the plots that concern a recording.

    Those of files that only a training of attnscope writes are left out for other networks.
    """
    trained_here = enclosing_run(recording.folder) is not None
    return [
        plot
        for plot in plots_for(recording)
        if trained_here or not any(need.code == "AS909" for need in plot.needs)
    ]


def render(figure: Figure, file_format: str, dpi: int) -> bytes:
    """Return the figure as the bytes of a ``png`` or ``pdf`` file."""
    # Without dates and versions, the same numbers give the same bytes.
    metadata = {"Software": None} if file_format == "png" else {"CreationDate": None}
    buffer = io.BytesIO()
    with style():
        if file_format == "png":
            _draw_png(figure, buffer, dpi, metadata)
        else:
            figure.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def _draw_png(figure: Figure, buffer: io.BytesIO, dpi: int, metadata: dict[str, None]) -> None:
    """Write what `Figure.savefig` writes, which draws everything twice to lay it out once."""
    before = figure.dpi
    figure.dpi = dpi
    try:
        FigureCanvasAgg(figure).print_png(buffer, metadata=metadata)  # type: ignore[no-untyped-call]
    finally:
        figure.dpi = before


def warn_missing_characters(recordings: Sequence[Recording]) -> None:
    """Warn in one line about characters in names that no installed font has."""
    texts = [text for r in recordings for text in (*r.classes, r.name)]
    missing = missing_characters(texts)
    if missing:
        _log.warning(
            "no installed font has the characters %s (%d characters); figures show boxes and the "
            "number of the class instead. Install a font that has them, such as fonts-noto-cjk",
            missing[:10],
            len(missing),
        )


def lines_of(left_out: Mapping[str, str]) -> list[str]:
    """Return one line for each reason why something is left out, which names all of it.

    Args:
        left_out: Name of a plot or statistic -> the reason.
    """
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in names.items()]


def _write(
    wanted: Sequence[tuple[Plot[Any, Any], object]],
    out: Path,
    ended: Callable[[], object] = lambda: None,
) -> list[Path]:
    """Write plots of subjects. What cannot be drawn is named in the log, once for each reason."""
    written: list[Path] = []
    left_out: dict[str, str] = {}
    for plot, subject in wanted:
        try:
            drawing = plot.make(subject)
        except Unavailable as reason:
            left_out[plot.name] = str(reason)
        else:
            written += write_drawings({plot.name: drawing}, out)
        ended()
    for line in lines_of(left_out):
        _log.warning("left out: %s", line)
    return written
