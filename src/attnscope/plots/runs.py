"""The run in which a recording lies, and the interventions beside it."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from attnscope.layout import RECORDINGS
from attnscope.recording.outcomes import Outcomes, outcomes_folder, read_outcomes
from attnscope.recording.recording import Recording

_log = logging.getLogger(__name__)


def run_folder(recording: Recording) -> Path | None:
    """The run in which a recording lies, or None."""
    folder = recording.folder.resolve()
    return folder.parent.parent if folder.parent.name == RECORDINGS else None


def intervene_command(recording: Recording) -> str | None:
    """What makes the interventions on a recording, for a shell; None if it lies in no run."""
    run, split = run_folder(recording), recording.folder.resolve().name
    if run is None:
        return None
    more = "" if split == "test" else f" --part {shlex.quote(split)}"
    return f"attnscope intervene {shlex.quote(str(run))}{more}"


def find_outcomes(recording: Recording) -> Outcomes | None:
    """The interventions on a recording, if there are any; those on an older one are left out.

    Raises:
        InputError: they cannot be read.
    """
    folder = outcomes_folder(recording.folder)
    if not folder.is_dir():
        return None
    outcomes = read_outcomes(folder)
    if recording.id is None or outcomes.about.get("recording") != recording.id:
        _log.warning(
            "%s left out: it is not of %s as it is now; remove it and run attnscope intervene",
            folder,
            recording.folder,
        )
        return None
    return outcomes
