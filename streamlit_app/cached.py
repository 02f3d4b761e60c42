"""The recordings in the folder, and cached statistics and figures.

Cache keys contain the hash of a recording's manifest, which in turn contains the hashes of its
files. A recording that was made again is therefore read again at the next click.

This file has more than 400 lines, because everything that the pages cache is in one place.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from attnscope import report, statistics
from attnscope import runs as run_folders
from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.files import sha256_of
from attnscope.gate_history import GateHistory
from attnscope.kinds import MAP
from attnscope.layout import ABOUT, MANIFEST, RECORDINGS
from attnscope.plots import PLOTS, Drawing, subjects
from attnscope.plots.builtin.channel_gates import tested_effects
from attnscope.plots.images import scale_of
from attnscope.plots.needs import MASKS
from attnscope.plots.subjects import Comparison
from attnscope.plots.text import short_names, shorten
from attnscope.plots.theme import GATE_MAP, GRAD_CAM_MAP, drawable_names
from attnscope.plots.usage import usage_of
from attnscope.recording.outcomes import Outcomes, find_outcomes, outcomes_folder
from attnscope.recording.places import list_recordings, masks_file
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.maps import comparable_gates


@dataclass(frozen=True)
class Run:
    """One recording in the dashboard."""

    label: str
    """Its path in the folder, without ``recordings``: ``cifar10-cbam/test``."""
    key: str
    """Its path and the SHA-256 of its manifest."""
    recording: Recording


def folder() -> Path:
    """Return the folder on the command line, after ``--``. Nothing outside it is opened.

    Raises:
        InputError: there is none.
    """
    if len(sys.argv) < 2:
        raise InputError(
            "AS970", "no folder is given; start the dashboard with: attnscope dashboard FOLDER"
        )
    return Path(sys.argv[1])


def runs() -> tuple[dict[str, Run], list[str]]:
    """Return the recordings by label, and one line for each that cannot be read.

    Raises:
        InputError: the folder contains no recording.
    """
    root = folder()
    places, problems = list_recordings(root)
    manifests, broken = [], [str(problem) for problem in problems]
    for path in places:
        try:
            manifests.append((str(path / MANIFEST), sha256_of(path / MANIFEST)))
        except OSError as error:
            broken.append(f"{path / MANIFEST} cannot be read ({error.strerror})")
    found, damaged = _open(root, tuple(manifests))
    return found, [*broken, *damaged]


@st.cache_resource(show_spinner="Opening recordings", max_entries=8)
def _open(root: Path, manifests: tuple[tuple[str, str], ...]) -> tuple[dict[str, Run], list[str]]:
    found, broken = [], []
    for file, _ in manifests:
        try:
            # Rows are read when a page needs them: there may be hundreds of recordings.
            found.append(Recording(Path(file).parent, read_rows=False))
        except InputError as error:  # a damaged recording must not hide the others
            broken.append(str(error))
    hashes = {str(Path(file).parent): content for file, content in manifests}
    opened = {}
    for recording in found:
        place = recording.folder.relative_to(root).parts
        parts = [part for part in place if part != RECORDINGS]
        if not parts or place[0] == RECORDINGS:
            parts = [root.resolve().name, *parts]
        label = "/".join(parts)
        path = str(recording.folder)
        opened[label] = Run(label, f"{path} {hashes[path]}", recording)
    return opened, broken


def _key(run: Run) -> str:
    return run.key


_cached = st.cache_data(
    show_spinner="Computing statistics", show_time=True, max_entries=200, hash_funcs={Run: _key}
)


@_cached
def class_metrics(run: Run) -> pd.DataFrame:
    """``statistics.class_metrics``"""
    return statistics.class_metrics(run.recording)


@_cached
def confusion_matrix(run: Run) -> pd.DataFrame:
    """``statistics.confusion_matrix``"""
    return statistics.confusion_matrix(run.recording)


@_cached
def calibration(run: Run) -> pd.DataFrame:
    """``statistics.calibration``"""
    return statistics.calibration(run.recording)


@_cached
def calibration_summary(run: Run) -> pd.DataFrame:
    """``statistics.calibration_summary``"""
    return statistics.calibration_summary(run.recording)


@_cached
def confidence(run: Run) -> NDArray[np.float64]:
    """Return the softmax probability of the predicted class, ``(images,)``."""
    return run.recording.confidence


@_cached
def misclassified(run: Run) -> pd.DataFrame:
    """``statistics.misclassified``"""
    return statistics.misclassified(run.recording)


@_cached
def class_profiles(run: Run, gate: str) -> pd.DataFrame:
    """``statistics.class_profiles``"""
    return statistics.class_profiles(run.recording, gate)


@_cached
def channel_effects(run: Run, gate: str) -> pd.DataFrame:
    """``channel_gates.tested_effects``"""
    return tested_effects(run.recording, gate)


@_cached
def gate_profiles(run: Run) -> pd.DataFrame:
    """``statistics.gate_profiles``"""
    return statistics.gate_profiles(run.recording)


@_cached
def gate_state(run: Run) -> pd.DataFrame:
    """``statistics.gate_state``"""
    return statistics.gate_state(run.recording)


@_cached
def class_mean_maps(run: Run, gate: str) -> NDArray[np.float64]:
    """``statistics.class_mean_maps``"""
    return statistics.class_mean_maps(run.recording, gate)


@_cached
def class_mean_grad_cam(run: Run) -> NDArray[np.float64]:
    """``statistics.class_mean_grad_cam`` for the predicted class"""
    return statistics.class_mean_grad_cam(run.recording)


@_cached
def agreement_summary(run: Run) -> pd.DataFrame:
    """``statistics.agreement_summary`` with Grad-CAM for the predicted class; of the classes
    without intervals
    """
    return statistics.agreement_summary(run.recording, class_intervals=False)


@_cached
def same_images(a: Run, b: Run) -> bool:
    """Return whether two recordings are of the same images in the same order."""
    if len(a.recording) != len(b.recording):  # known without reading rows
        return False
    try:
        expect_same_images(a.recording, b.recording)
    except InputError:
        return False
    return True


@_cached
def compare_accuracy(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_accuracy``"""
    return statistics.compare_accuracy(a.recording, b.recording)


@_cached
def compare_profiles(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_profiles``"""
    return statistics.compare_profiles(a.recording, b.recording)


@_cached
def compare_class_order(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_class_order``"""
    return statistics.compare_class_order(a.recording, b.recording)


@_cached
def compare_grad_cam(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_grad_cam`` for the predicted class"""
    return statistics.compare_grad_cam(a.recording, b.recording)


@dataclass(frozen=True)
class Intervened:
    """A recording with the outcomes of interventions on its network."""

    run: Run
    key: str
    """Key of the run, and a SHA-256 of the modification times of the files."""
    outcomes: Outcomes


def interventions(run: Run) -> Intervened | None:
    """Return the interventions on the present recording; None if the folder contains none.

    Raises:
        InputError: they cannot be read.
    """
    about = (outcomes_folder(run.recording.folder) / ABOUT).resolve()
    if not about.is_relative_to(folder().resolve()) or not about.is_file():
        return None
    # The key is made before reading, so that files written in between are read again next time.
    files = sorted((file.name, file.stat().st_mtime_ns) for file in about.parent.iterdir())
    key = f"{run.key} {hashlib.sha256(repr(files).encode()).hexdigest()}"
    outcomes = find_outcomes(run.recording)
    return None if outcomes is None else Intervened(run, key, outcomes)


def _intervened_key(intervened: Intervened) -> str:
    return intervened.key


@st.cache_data(
    show_spinner="Computing statistics", max_entries=20, hash_funcs={Intervened: _intervened_key}
)
def gate_usage(intervened: Intervened) -> pd.DataFrame:
    """``statistics.gate_usage``

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return usage_of(intervened.outcomes)


@dataclass(frozen=True)
class Monitored:
    """The gates over the training of a recording's run."""

    key: str
    """The path of the file and its modification time."""
    history: GateHistory


def monitored(run: Run) -> Monitored | None:
    """Return the gates over training; None if the folder contains none.

    Raises:
        InputError: they cannot be read.
    """
    about = run_folders.Run.holding(run.recording)
    if about is None:
        return None
    file = about.gate_history_file.resolve()
    if not file.is_relative_to(folder().resolve()) or not file.is_file():
        return None
    key = f"{file} {file.stat().st_mtime_ns}"  # before reading: training may still go on
    return Monitored(key, about.gate_history())


def _monitored_key(monitored: Monitored) -> str:
    return monitored.key


GRAD_CAM = "Grad-CAM"
NO_OVERLAY = "none"
Shown = tuple[list[bytes], str]
"""The figures of a plot as PNG, and its caption (plain text, not Markdown)."""


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


_draw = st.cache_data(show_spinner="Drawing figures", max_entries=64, hash_funcs={Run: _key})


@st.cache_data(show_spinner=False, max_entries=2000, hash_funcs={Run: _key})
def image(run: Run, row: int, source: str, low: float, high: float) -> bytes:
    """Return image ``row`` as PNG, with a map over it on the scale from ``low`` to ``high``."""
    pixels = run.recording.image(row)
    if source == NO_OVERLAY:
        return layouts.enlarged(pixels)
    cmap = GRAD_CAM_MAP if source == GRAD_CAM else GATE_MAP
    return layouts.overlay(pixels, heat(run, row, source), low, high, cmap)


def plot(run: Run, name: str) -> Shown:
    """Draw a plot of one recording.

    Raises:
        Unavailable: the recording lacks what the plot needs.
    """
    masks = masks_file(run.recording.folder)  # they may be added or replaced at any time
    needs_masks = PLOTS.find(name).asks(MASKS) and masks.is_file()
    return _plot(run, name, masks.stat().st_mtime_ns if needs_masks else None)


@_draw
def _plot(run: Run, name: str, masks: int | None) -> Shown:
    return _rendered(PLOTS.find(name).make(run.recording))


@st.cache_data(
    show_spinner="Drawing figures", max_entries=20, hash_funcs={Intervened: _intervened_key}
)
def usage_plot(intervened: Intervened, name: str) -> Shown:
    """Draw a plot of the interventions on one recording.

    Raises:
        Unavailable: an experiment that the plot needs is missing.
    """
    subject = subjects.Intervened(intervened.run.recording, intervened.outcomes)
    return _rendered(PLOTS.find(name).make(subject))


@st.cache_data(
    show_spinner="Drawing figures", max_entries=20, hash_funcs={Monitored: _monitored_key}
)
def training_plot(monitored: Monitored, name: str) -> Shown:
    """Draw a plot of the gates over training."""
    return _rendered(PLOTS.find(name).make(monitored.history))


@_draw
def comparison(a: Run, b: Run, name: str) -> Shown:
    """Draw a plot of two recordings."""
    return _rendered(PLOTS.find(name).make(Comparison(a.recording, b.recording)))


def _rendered(drawing: Drawing) -> Shown:
    return [report.render(page, "png", layouts.DPI) for page in drawing.figures], drawing.caption


@_draw
def channels_png(run: Run, gate: str, by_effect: bool) -> bytes:
    """Draw the mean gate of each class and channel, sorted by number or by omega squared."""
    order, ranked = None, "channel"
    if by_effect:
        effects = channel_effects(run, gate).sort_values("omega_squared", ascending=False)
        order = [int(c) for c in effects["channel"]]
        ranked = "channel, in descending order of omega squared"
    info = run.recording.info(gate)
    profiles = class_profiles(run, gate)
    low, high = scale_of(info, [profiles["mean"].to_numpy()])
    return layouts.channels(profiles, low, high, order, ranked)


@_draw
def class_maps_png(run: Run, classes: list[int], own_bounds: bool) -> bytes:
    """Draw the mean spatial gates and the mean Grad-CAM of some classes."""
    gates = run.recording.gates_with(MAP)
    means = {gate.name: class_mean_maps(run, gate.name)[classes] for gate in gates}
    columns = _gate_columns(run, means, own_bounds)
    if run.recording.grad_cam_layers:
        cams = class_mean_grad_cam(run)[classes]
        columns.append(layouts.Column(GRAD_CAM, cams, 0, _top(cams), grad_cam=True))
    names = _short_classes(run)
    return layouts.map_grid([names[c] for c in classes], [], columns)


@_draw
def image_maps_png(run: Run, rows: list[int], own_bounds: bool) -> bytes:
    """Draw some images with their spatial gates and Grad-CAM."""
    recording = run.recording
    names = [gate.name for gate in recording.gates_with(MAP)]
    maps = {name: np.stack([heat(run, row, name) for row in rows]) for name in names}
    columns = _gate_columns(run, maps, own_bounds)
    if recording.grad_cam_layers:
        cams = np.stack([heat(run, row, GRAD_CAM) for row in rows])
        columns.append(layouts.Column(GRAD_CAM, cams, 0, _top(cams), grad_cam=True))
    classes = _short_classes(run)
    titles = [str(row) for row in rows]
    if recording.label_kind == CLASS:
        titles = [f"{row}: {classes[recording.labels[row]]}" for row in rows]
    if recording.has_scores:
        predicted = recording.predictions
        titles = [
            f"{title}\n→ {classes[predicted[row]]}" for title, row in zip(titles, rows, strict=True)
        ]
    return layouts.map_grid(titles, [recording.image(row) for row in rows], columns)


@_draw
def two_cams_png(a: Run, b: Run, rows: list[int]) -> bytes:
    """Draw some images with the Grad-CAM of two networks, each network on its own scale."""
    columns = []
    for run in (a, b):
        cams = np.stack([heat(run, row, GRAD_CAM) for row in rows])
        title = f"{GRAD_CAM}, {shorten(drawable_names([run.label])[0], 16)}"
        columns.append(layouts.Column(title, cams, 0, _top(cams), grad_cam=True))
    classes = _short_classes(a)
    names = [
        f"{row}: {classes[a.recording.labels[row]]}\n→ {classes[a.recording.predictions[row]]}"
        f"\n→ {classes[b.recording.predictions[row]]}"
        for row in rows
    ]
    return layouts.map_grid(names, [a.recording.image(row) for row in rows], columns)


def _gate_columns(
    run: Run, maps: dict[str, NDArray[Any]], own_bounds: bool
) -> list[layouts.Column]:
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


def _top(cams: NDArray[Any]) -> float:
    """Return the upper end of a scale for Grad-CAM; 1 if all values are zero or missing."""
    finite = cams[np.isfinite(cams)]
    return float(finite.max(initial=0)) or 1.0


def _short_classes(run: Run) -> list[str]:
    return [shorten(name, 16) for name in drawable_names(run.recording.classes)]
