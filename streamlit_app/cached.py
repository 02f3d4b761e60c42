"""The recordings folder and everything that is remembered between two runs of a page.

What is remembered is keyed by the content of a recording's manifest, which holds the hashes of its
files: a run that was captured again is seen at the next click.
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
from attnscope.errors import InputError
from attnscope.kinds import MAP
from attnscope.layout import ABOUT, MANIFEST, RECORDINGS
from attnscope.plots import PLOTS, Drawing, subjects
from attnscope.plots.subjects import Comparison
from attnscope.plots.text import short_names, shorten
from attnscope.plots.theme import GATE_MAP, GRAD_CAM_MAP, drawable_names
from attnscope.plots.usage import usage_of
from attnscope.recording.outcomes import Outcomes, find_outcomes, outcomes_folder
from attnscope.recording.recording import Recording, find_recordings


@dataclass(frozen=True)
class Run:
    """One recording as the dashboard knows it."""

    label: str
    """Its place below the folder, without the word ``recordings``: ``cifar10-cbam/test``."""
    key: str
    """Its path and the SHA-256 of its manifest."""
    recording: Recording


def folder() -> Path:
    """The folder on the command line, after ``--``; nothing outside it is ever opened.

    Raises:
        InputError: none was given.
    """
    if len(sys.argv) < 2:
        raise InputError("no folder was given; start with attnscope dashboard FOLDER")
    return Path(sys.argv[1])


def runs() -> tuple[dict[str, Run], list[str]]:
    """The recordings by label, and one line for each that cannot be read.

    Raises:
        InputError: there is no recording.
    """
    root = folder()
    manifests = [path / MANIFEST for path in find_recordings(root)]
    hashes = (hashlib.sha256(file.read_bytes()).hexdigest() for file in manifests)
    return _open(root, tuple(zip(map(str, manifests), hashes, strict=True)))


@st.cache_resource(show_spinner="Opening the recordings", max_entries=8)
def _open(root: Path, manifests: tuple[tuple[str, str], ...]) -> tuple[dict[str, Run], list[str]]:
    found, broken = [], []
    for file, _ in manifests:
        try:
            found.append(Recording(Path(file).parent))
        except InputError as error:  # one that is cut off must not hide the others
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


# ------------------------------------------------------------------------------------- statistics

_remember = st.cache_data(
    show_spinner="Computing", show_time=True, max_entries=200, hash_funcs={Run: _key}
)


@_remember
def class_metrics(run: Run) -> pd.DataFrame:
    """``statistics.class_metrics``"""
    return statistics.class_metrics(run.recording)


@_remember
def confusion_matrix(run: Run) -> pd.DataFrame:
    """``statistics.confusion_matrix``"""
    return statistics.confusion_matrix(run.recording)


@_remember
def calibration(run: Run) -> pd.DataFrame:
    """``statistics.calibration``"""
    return statistics.calibration(run.recording)


@_remember
def calibration_error(run: Run) -> float:
    """``statistics.calibration_error``"""
    return statistics.calibration_error(run.recording)


@_remember
def confidence(run: Run) -> NDArray[np.float64]:
    """The softmax probability of the predicted class, ``(N,)``."""
    top: NDArray[np.float64] = run.recording.probabilities.max(1)
    return top


@_remember
def misclassified(run: Run) -> pd.DataFrame:
    """``statistics.misclassified``"""
    return statistics.misclassified(run.recording)


@_remember
def class_profiles(run: Run, gate: str) -> pd.DataFrame:
    """``statistics.class_profiles``"""
    return statistics.class_profiles(run.recording, gate)


@_remember
def channel_effects(run: Run, gate: str) -> pd.DataFrame:
    """``statistics.channel_effects``"""
    return statistics.channel_effects(run.recording, gate)


@_remember
def gate_profiles(run: Run) -> pd.DataFrame:
    """``statistics.gate_profiles``"""
    return statistics.gate_profiles(run.recording)


@_remember
def gate_state(run: Run) -> pd.DataFrame:
    """``statistics.gate_state``"""
    return statistics.gate_state(run.recording)


@_remember
def class_mean_maps(run: Run, gate: str) -> NDArray[np.float64]:
    """``statistics.class_mean_maps``"""
    return statistics.class_mean_maps(run.recording, gate)


@_remember
def class_mean_grad_cam(run: Run) -> NDArray[np.float64]:
    """``statistics.class_mean_grad_cam`` of the predicted class."""
    return statistics.class_mean_grad_cam(run.recording)


@_remember
def agreement_summary(run: Run) -> pd.DataFrame:
    """``statistics.agreement_summary`` with the Grad-CAM of the predicted class."""
    return statistics.agreement_summary(run.recording)


@_remember
def compare_accuracy(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_accuracy``"""
    return statistics.compare_accuracy(a.recording, b.recording)


@_remember
def compare_profiles(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_profiles``"""
    return statistics.compare_profiles(a.recording, b.recording)


@_remember
def compare_class_order(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_class_order``"""
    return statistics.compare_class_order(a.recording, b.recording)


@_remember
def compare_grad_cam(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_grad_cam`` of the predicted class."""
    return statistics.compare_grad_cam(a.recording, b.recording)


# ---------------------------------------------------------------------------------- interventions


@dataclass(frozen=True)
class Intervened:
    """What interventions found out about the network of a recording."""

    run: Run
    key: str
    """That of the run, and a SHA-256 of when each file was last written."""
    outcomes: Outcomes


def interventions(run: Run) -> Intervened | None:
    """Those on a recording as it is now; None where there are none below the folder.

    Raises:
        InputError: they cannot be read.
    """
    about = (outcomes_folder(run.recording.folder) / ABOUT).resolve()
    if not about.is_relative_to(folder().resolve()) or not about.is_file():
        return None
    # Before they are read: what is written in between is then read again.
    files = sorted((file.name, file.stat().st_mtime_ns) for file in about.parent.iterdir())
    key = f"{run.key} {hashlib.sha256(repr(files).encode()).hexdigest()}"
    outcomes = find_outcomes(run.recording)
    return None if outcomes is None else Intervened(run, key, outcomes)


def _made_key(made: Intervened) -> str:
    return made.key


@st.cache_data(show_spinner="Computing", max_entries=20, hash_funcs={Intervened: _made_key})
def gate_usage(made: Intervened) -> pd.DataFrame:
    """``statistics.gate_usage``

    Raises:
        Unavailable: an experiment that it needs was not made.
    """
    return usage_of(made.outcomes)


# ------------------------------------------------------------------------------ images and plots

GRAD_CAM = "Grad-CAM"
PICTURE = "picture"
Shown = tuple[list[bytes], str]
"""The figures of a plot as PNG, with its caption (plain text, not markdown)."""


def overlays(run: Run) -> list[str]:
    """What a gallery can show: the pictures, Grad-CAM over them, or a spatial gate over them."""
    cam = [GRAD_CAM] if run.recording.grad_cam_layers else []
    return [PICTURE, *cam, *(gate.name for gate in run.recording.gates_with(MAP))]


def heat(run: Run, row: int, source: str) -> NDArray[Any]:
    """One image's map ``(h, w)``: a spatial gate, or Grad-CAM after the ReLU."""
    rows = slice(row, row + 1)
    if source == GRAD_CAM:
        signed: NDArray[Any] = run.recording.grad_cam(rows=rows)[0]
        return signed.clip(0)
    values: NDArray[Any] = run.recording.gate(source, rows)[0]
    return values


_draw = st.cache_data(show_spinner="Drawing", max_entries=64, hash_funcs={Run: _key})


@st.cache_data(show_spinner=False, max_entries=2000, hash_funcs={Run: _key})
def picture(run: Run, row: int, source: str, low: float, high: float) -> bytes:
    """Image ``row`` as PNG; with a map over it, on the scale from low to high."""
    image = run.recording.image(row)
    if source == PICTURE:
        return layouts.enlarged(image)
    cmap = GRAD_CAM_MAP if source == GRAD_CAM else GATE_MAP
    return layouts.overlay(image, heat(run, row, source), low, high, cmap)


@_draw
def plot(run: Run, name: str) -> Shown:
    """A plot of one recording.

    Raises:
        Unavailable: the recording cannot have it.
    """
    return _rendered(PLOTS.find(name).make(run.recording))


@st.cache_data(show_spinner="Drawing", max_entries=20, hash_funcs={Intervened: _made_key})
def usage_plot(made: Intervened, name: str) -> Shown:
    """A plot of the interventions on one recording.

    Raises:
        Unavailable: an experiment that it needs was not made.
    """
    return _rendered(PLOTS.find(name).make(subjects.Intervened(made.run.recording, made.outcomes)))


@_draw
def comparison(a: Run, b: Run, name: str) -> Shown:
    """A plot of two recordings."""
    return _rendered(PLOTS.find(name).make(Comparison(a.recording, b.recording)))


def _rendered(drawing: Drawing) -> Shown:
    return [report.render(page, "png", layouts.DPI) for page in drawing.figures], drawing.caption


@_draw
def channels_png(run: Run, gate: str, by_effect: bool) -> bytes:
    """Class × channel of one gate, by channel number or by omega squared."""
    order, ranked = None, "channel"
    if by_effect:
        effects = channel_effects(run, gate).sort_values("omega_squared", ascending=False)
        order, ranked = [int(c) for c in effects["channel"]], "channel's rank by omega squared"
    info = run.recording.info(gate)
    return layouts.channels(class_profiles(run, gate), info.lo, info.hi, order, ranked)


@_draw
def class_maps_png(run: Run, classes: list[int], own_bounds: bool) -> bytes:
    """The mean spatial gates and the mean Grad-CAM of some classes."""
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
    """Some images, each with every spatial gate and its Grad-CAM."""
    recording = run.recording
    names = [gate.name for gate in recording.gates_with(MAP)]
    maps = {name: np.stack([heat(run, row, name) for row in rows]) for name in names}
    columns = _gate_columns(run, maps, own_bounds)
    if recording.grad_cam_layers:
        cams = np.stack([heat(run, row, GRAD_CAM) for row in rows])
        columns.append(layouts.Column(GRAD_CAM, cams, 0, _top(cams), grad_cam=True))
    classes = _short_classes(run)
    titles = [
        f"{row}: {classes[recording.labels[row]]}\n→ {classes[recording.predictions[row]]}"
        for row in rows
    ]
    return layouts.map_grid(titles, [recording.image(row) for row in rows], columns)


@_draw
def two_cams_png(a: Run, b: Run, rows: list[int]) -> bytes:
    """Some images with the Grad-CAM of two networks, each network on a scale of its own."""
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
    """One scale for all gates: their bounds, or the range of what is shown."""
    if not maps:
        return []
    infos = [run.recording.info(name) for name in maps]
    if own_bounds:
        low, high = min(gate.lo for gate in infos), max(gate.hi for gate in infos)
    else:
        low = min(float(np.nanmin(values)) for values in maps.values())
        high = max(float(np.nanmax(values)) for values in maps.values())
    return [
        layouts.Column(title, values, low, high, grad_cam=False)
        for title, values in zip(short_names(list(maps)), maps.values(), strict=True)
    ]


def _top(cams: NDArray[Any]) -> float:
    """The upper end of a scale for Grad-CAM; 1 where all of it is zero, or there is none."""
    finite = cams[np.isfinite(cams)]
    return float(finite.max(initial=0)) or 1.0


def _short_classes(run: Run) -> list[str]:
    return [shorten(name, 16) for name in drawable_names(run.recording.classes)]
