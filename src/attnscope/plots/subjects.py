"""What a plot can show (its subject), and how a call's arguments become one. No matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnscope.comparison import (
    Comparison,
    SeedComparison,
    compare,
    compare_kinds,
    open_all,
    open_recorded,
)
from attnscope.errors import InputError
from attnscope.gate_history import GateHistory
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.lazy import renamed_names
from attnscope.recording.outcomes import Outcomes, find_outcomes
from attnscope.recording.places import run_of
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.shell import shell_command
from attnscope.statistics import group_by_kind

__all__ = [
    "SUBJECTS",
    "Comparison",
    "GateHistory",
    "Identity",
    "Intervened",
    "SeedComparison",
    "Seeds",
    "compare_kinds",
    "gate_counts",
    "has_grad_cam",
    "history_of",
    "identity",
    "no_gate",
    "no_grad_cam",
    "open_subject",
]

_WORDS = {PER_CHANNEL: "channel", MAP: "spatial"}
"""What gates with a trait are called."""


@dataclass(frozen=True)
class Intervened:
    """One recording, and the outcomes of the interventions on its network."""

    recording: Recording
    outcomes: Outcomes


@dataclass(frozen=True)
class Seeds:
    """Several seeds of one configuration, with interventions on each."""

    kind: str
    """The name of the configuration."""
    recordings: Sequence[Recording]
    outcomes: Sequence[Outcomes]
    """The outcomes of each recording's network."""


SUBJECTS = (Intervened, GateHistory, Recording, Comparison, Seeds, SeedComparison)
"""What a plot can show. Interventions come first, because they answer what readers ask first."""

_TAKES: dict[type, str] = {
    Intervened: "one recording with interventions: a Recording, a Run, or the path of either",
    GateHistory: (
        "one history of gates: a GateHistory or its file, a GateMonitor, or a Run that attnscope "
        "train --monitor made"
    ),
    Recording: "one recording: a Recording, a Run, or the path of either",
    Comparison: "two recordings of the same images, or a Comparison (attnscope.compare)",
    Seeds: "a list of recordings with interventions, one for each seed of one configuration",
    SeedComparison: (
        "two lists of recordings, one for each seed, or a SeedComparison (attnscope.compare)"
    ),
}
"""The arguments with which a plot of each subject is called."""
_COUNTS = {Intervened: 1, GateHistory: 1, Recording: 1, Comparison: 2, SeedComparison: 2}
"""How many of them."""


@dataclass(frozen=True)
class Identity:
    """What titles say of a recording."""

    name: str
    split: str | None
    images: int


def open_subject(plot: str, subject: type, targets: Sequence[Any], split: str = "test") -> Any:
    """Return the subject of a plot, for the arguments with which the plot was called.

    Args:
        plot: name of the plot, for messages.
        subject: one of `SUBJECTS`.
        targets: the arguments: the subject itself, or recordings, runs or paths.
        split: the split whose recording is taken of a run.

    Raises:
        InputError: the arguments are not of this kind of plot, or a recording or the outcomes of
            its interventions cannot be opened.
    """
    if len(targets) == 1 and isinstance(targets[0], subject):
        return targets[0]
    count = _COUNTS.get(subject)
    if not targets or (count is not None and len(targets) != count):
        got = ", ".join(type(target).__name__ for target in targets) or "nothing"
        raise InputError(
            "AS900", f"the plot {plot} got {got}; it takes {_TAKES.get(subject, subject.__name__)}"
        )
    if subject is Recording:
        return open_recorded(targets[0], split)
    if subject is GateHistory:
        return _open_history(targets[0])
    if subject is Intervened:
        recording = open_recorded(targets[0], split)
        return Intervened(recording, _outcomes_of(recording))
    if subject is Comparison:
        return compare(*targets, split=split)
    if subject is SeedComparison:
        return compare(open_all(targets[0], split), open_all(targets[1], split))
    recordings = [one for target in targets for one in open_all(target, split)]
    kinds = group_by_kind(recordings)
    if len(kinds) != 1:
        raise InputError(
            "AS903",
            f"the plot {plot} got {len(kinds)} configurations ({', '.join(kinds)}); give the "
            "seeds of one configuration, which differ in nothing but the seed",
        )
    ((kind, seeds),) = kinds.items()
    return Seeds(kind, seeds, [_outcomes_of(recording) for recording in seeds])


def identity(recording: Recording) -> Identity:
    """Return what titles say of a recording."""
    return Identity(recording.name, recording.split, len(recording))


def no_gate(recording: Recording, trait: str = "") -> str:
    """Return a sentence that says that gates with a trait are missing, and names the others."""
    has = ", ".join(gate_counts(recording))
    if not has:
        return f"{recording.name} has no gates."
    return f"{recording.name} has no {_WORDS.get(trait, trait)} gates (its gates: {has})."


def gate_counts(recording: Recording) -> list[str]:
    """Return how many gates of each kind there are: ``8 channel``, ``8 spatial``."""
    kinds = [gate.kind for gate in recording.gates]
    return [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]


def has_grad_cam(recording: Recording) -> bool:
    """Return whether Grad-CAM was recorded."""
    return bool(recording.grad_cam_layers)


def no_grad_cam(*recordings: Recording) -> str:
    """Return a sentence that names the recordings without Grad-CAM; empty if all have it."""
    without = " and ".join(r.name for r in recordings if not has_grad_cam(r))
    return f"Grad-CAM was not recorded for {without}." if without else ""


def history_of(recording: Recording) -> GateHistory | None:
    """Return the gates over the training of a recording's run; None if there are none.

    Raises:
        InputError: the file cannot be read.
    """
    run = Run.holding(recording)
    return run.gate_history() if run is not None and run.gate_history_file.is_file() else None


def _open_history(target: Any) -> GateHistory:
    """Return the history of a monitor, a run or a file."""
    history = getattr(target, "history", None)  # of a GateMonitor, whose module imports torch
    if isinstance(history, GateHistory):
        return history
    if isinstance(target, Recording):
        target = Run.holding(target) or target.folder
    if isinstance(target, Run):
        return target.gate_history()
    if isinstance(target, str | os.PathLike):
        path = Path(target)
        folder = run_of(path) or path
        return Run(folder).gate_history() if folder.is_dir() else GateHistory.read(path)
    raise InputError(
        "AS900",
        f"a {type(target).__name__} is not a history of gates; give {_TAKES[GateHistory]}",
    )


def _outcomes_of(recording: Recording) -> Outcomes:
    outcomes = find_outcomes(recording)
    if outcomes is None:
        target = run_of(recording.folder) or recording.folder
        raise InputError(
            "AS905",
            f"{recording.folder} has no interventions; run them with: "
            f"{shell_command('intervene', target)}",
        )
    return outcomes


__getattr__ = renamed_names(
    __name__, {"Pair": "Comparison", "TwoKinds": "SeedComparison", "two_kinds": "compare_kinds"}
)
