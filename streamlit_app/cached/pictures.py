"""Figures and pictures of recordings, as PNG; figures also as PDF, and their numbers as CSV."""

from __future__ import annotations

from typing import Any

import layouts
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope import report
from attnscope.kinds import MAP
from attnscope.plots import PLOTS
from attnscope.plots.images import scale_of
from attnscope.plots.needs import MASKS
from attnscope.plots.text import short_names, shorten
from attnscope.plots.theme import GATE_MAP, GRAD_CAM_MAP, drawable_names
from attnscope.recording.places import masks_file
from attnscope.statistics.maps import comparable_gates
from cached import results, tables
from cached.caching import drawing, picture
from cached.found import Intervened, Monitored, Run

GRAD_CAM = "Grad-CAM"
NO_OVERLAY = "none"
SCREEN = "screen"
"""Format of a figure on a page: PNG with at most `layouts.WIDEST` pixels in a row."""
Shown = tuple[list[bytes], str]
"""The figures of a plot as PNG or PDF, or one CSV file of its numbers; and its caption (plain text,
not Markdown)."""


def overlays(run: Run) -> list[str]:
    """Return what can be drawn over images: nothing, Grad-CAM or a gate with rows and columns."""
    cam = [GRAD_CAM] if run.recording.grad_cam_layers else []
    return [NO_OVERLAY, *cam, *(gate.name for gate in comparable_gates(run.recording))]


def heat(run: Run, row: int, source: str) -> NDArray[Any]:
    """Return a map of one image, ``(height, width)``: of a gate, or Grad-CAM after the ReLU."""
    rows = slice(row, row + 1)
    if source == GRAD_CAM:
        signed: NDArray[Any] = run.recording.grad_cam(rows=rows)[0]
        return signed.clip(0)
    values: NDArray[Any] = run.recording.spatial(source, rows)[0]
    return values


@picture
def image(run: Run, row: int, source: str, low: float, high: float) -> bytes:
    """Return image ``row`` as PNG, with a map over it on the scale from ``low`` to ``high``."""
    pixels = run.recording.image(row)
    if source == NO_OVERLAY:
        return layouts.enlarged(pixels)
    cmap = GRAD_CAM_MAP if source == GRAD_CAM else GATE_MAP
    return layouts.overlay(pixels, heat(run, row, source), low, high, cmap)


def plot(run: Run, name: str, file_format: str = SCREEN) -> Shown:
    """Draw a plot of one recording.

    Args:
        run: the recording.
        name: name of the plot.
        file_format: `SCREEN`, ``png``, ``pdf``, or ``csv`` for its numbers.

    Raises:
        Unavailable: the recording lacks what the plot needs.
    """
    masks = masks_file(run.recording.folder)  # they may be added or replaced at any time
    needs_masks = PLOTS.find(name).asks(MASKS) and masks.is_file()
    return _plot(run, name, file_format, masks.stat().st_mtime_ns if needs_masks else None)


@drawing
def _plot(run: Run, name: str, file_format: str, masks: int | None) -> Shown:
    return _made(name, results.of_run(name, run, masks), file_format)


@drawing
def usage_plot(intervened: Intervened, name: str, file_format: str = SCREEN) -> Shown:
    """Draw a plot of the interventions on one recording, as `plot`.

    Raises:
        Unavailable: an experiment that the plot needs is missing.
    """
    return _made(name, results.of_interventions(name, intervened), file_format)


@drawing
def training_plot(monitored: Monitored, name: str, file_format: str = SCREEN) -> Shown:
    """Draw a plot of the gates over training, as `plot`."""
    return _made(name, results.of_training(name, monitored), file_format)


@drawing
def comparison(a: Run, b: Run, name: str, file_format: str = SCREEN) -> Shown:
    """Draw a plot of two recordings, as `plot`."""
    return _made(name, results.of_comparison(name, a, b), file_format)


@drawing
def seeds(
    a: list[Run], b: list[Run], names: tuple[str, str], name: str, file_format: str = SCREEN
) -> Shown:
    """Draw a plot of two configurations over seeds, as `plot`."""
    return _made(name, results.of_seeds(name, a, b, names), file_format)


def _made(name: str, result: Any, file_format: str) -> Shown:
    plot = PLOTS.find(name)
    if file_format == "csv":
        return [plot.numbers(result).to_csv(index=False).encode()], plot.words(result)
    pages = plot.figures(result)
    if file_format == SCREEN:
        files = [report.render(page, "png", screen_dpi(page)) for page in pages]
    else:
        files = [report.render(page, file_format, layouts.DPI) for page in pages]
    return files, plot.words(result)


def screen_dpi(figure: Figure) -> int:
    """Return the resolution of a figure on a page: that of its file, or less if it is very wide."""
    return min(layouts.DPI, int(layouts.WIDEST / figure.get_figwidth()))


@drawing
def class_maps_png(run: Run, classes: list[int], own_bounds: bool) -> bytes:
    """Draw the mean spatial gates and the mean Grad-CAM of some classes."""
    gates = run.recording.gates_with(MAP)
    means = {gate.name: tables.class_mean_maps(run, gate.name)[classes] for gate in gates}
    columns = gate_columns(run, means, own_bounds)
    if run.recording.grad_cam_layers:
        cams = tables.class_mean_grad_cam(run)[classes]
        columns.append(layouts.Column(GRAD_CAM, cams, 0, top_of(cams), grad_cam=True, is_over=True))
    names = _short_classes(run)
    return layouts.map_grid([names[c] for c in classes], [], columns)


def gate_columns(run: Run, maps: dict[str, NDArray[Any]], own_bounds: bool) -> list[layouts.Column]:
    """Return one column per gate, all on one scale: the bounds, or the range of the values."""
    if not maps:
        return []
    infos = [run.recording.info(name) for name in maps]
    if own_bounds:
        scales = [scale_of(gate, [maps[gate.name]]) for gate in infos]
        low, high = min(low for low, _ in scales), max(high for _, high in scales)
    else:
        low = min(float(np.nanmin(values)) for values in maps.values())
        high = max(float(np.nanmax(values)) for values in maps.values())
    return [
        layouts.Column(title, values, low, high, grad_cam=False)
        for title, values in zip(short_names(list(maps)), maps.values(), strict=True)
    ]


def top_of(cams: NDArray[Any]) -> float:
    """Return the upper end of a scale for Grad-CAM; 1 if all values are zero or missing."""
    finite = cams[np.isfinite(cams)]
    return float(finite.max(initial=0)) or 1.0


def _short_classes(run: Run) -> list[str]:
    return [shorten(name, 16) for name in drawable_names(run.recording.classes)]
