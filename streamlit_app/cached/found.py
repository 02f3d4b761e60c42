"""What the folder of the dashboard contains: recordings, interventions, gates over training."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from attnscope import runs as run_folders
from attnscope.dashboard.inventory import DAMAGED, Entry, list_entries
from attnscope.errors import InputError
from attnscope.files import sha256_of
from attnscope.gate_history import GateHistory
from attnscope.layout import ABOUT, MANIFEST
from attnscope.recording.outcomes import Outcomes, find_outcomes, outcomes_folder
from attnscope.recording.recording import Recording


@dataclass(frozen=True)
class Run:
    """One recording in the dashboard."""

    label: str
    """Its path in the folder, without ``recordings``: ``cifar10-cbam/test``."""
    key: str
    """Its path and the SHA-256 of its manifest."""
    folder: Path

    @cached_property
    def recording(self) -> Recording:
        """The recording, which is opened when it is first used: there may be hundreds.

        Raises:
            InputError: it is damaged.
        """
        return Recording(self.folder, read_rows=False)


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


_known: dict[Path, dict[str, Run]] = {}
"""Folder of a dashboard -> key of a run -> the run, so that it is opened once for all visitors."""


def entries() -> list[Entry]:
    """Return what the folder contains: recordings in every state, and runs without one.

    Raises:
        InputError: the folder does not exist.
    """
    return list_entries(folder())


def runs() -> tuple[dict[str, Run], list[str]]:
    """Return the recordings by label, and one line for each that cannot be read.

    Only manifests are read. A recording whose manifest is whole can be damaged nevertheless, which
    opening it says.

    Raises:
        InputError: the folder does not exist.
    """
    found, broken = {}, []
    for entry in entries():
        if entry.state == DAMAGED:
            broken.append(entry.note)
        if not entry.can_be_opened:
            continue
        file = entry.folder / MANIFEST
        try:
            state = file.stat()
            content = _hash(str(file), state.st_size, state.st_mtime_ns, state.st_ino)
        except OSError as error:  # it was removed a moment ago
            broken.append(f"{file} cannot be read ({error.strerror})")
            continue
        found[entry.label] = Run(entry.label, f"{entry.folder} {content}", entry.folder)
    # A new object would open its recording anew.
    before = _known.get(folder(), {})
    _known[folder()] = {run.key: before.get(run.key, run) for run in found.values()}
    return {run.label: run for run in _known[folder()].values()}, broken


@lru_cache(maxsize=4096)
def _hash(file: str, size: int, changed: int, number: int) -> str:
    """Return the SHA-256 of a file; the other arguments change when the file changes."""
    return sha256_of(Path(file))


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
    outcomes = _read_outcomes(run, key)
    return None if outcomes is None else Intervened(run, key, outcomes)


@lru_cache(maxsize=16)
def _read_outcomes(run: Run, key: str) -> Outcomes | None:
    """Read the interventions; the key changes when a file changes."""
    return find_outcomes(run.recording)


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
    return Monitored(key, _read_history(about.folder, key))


@lru_cache(maxsize=16)
def _read_history(run: Path, key: str) -> GateHistory:
    """Read the gates over training; the key changes when the file changes."""
    return run_folders.Run(run).gate_history()
