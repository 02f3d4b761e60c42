"""What the folder of the dashboard contains: recordings, interventions, gates over training."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from attnscope import runs as run_folders
from attnscope.errors import InputError
from attnscope.files import sha256_of
from attnscope.gate_history import GateHistory
from attnscope.layout import ABOUT, MANIFEST, RECORDINGS
from attnscope.recording.outcomes import Outcomes, find_outcomes, outcomes_folder
from attnscope.recording.places import list_recordings
from attnscope.recording.recording import Recording


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
