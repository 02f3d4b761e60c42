"""Commands that create what is missing, for messages and pages."""

from __future__ import annotations

import shlex

from attnscope.recording.places import run_of
from attnscope.recording.recording import Recording


def intervene_command(recording: Recording) -> str | None:
    """Return the shell command for the interventions on a recording.

    Returns:
        The command; None if interventions cannot answer for the recording (it has no gates, class
        scores or class labels), or if it does not say where its network and images are.
    """
    if not (recording.gates and recording.has_accuracy):
        return None
    run, split = run_of(recording.folder), recording.folder.resolve().name
    if run is None:
        folder = shlex.quote(str(recording.folder))
        return f"attnscope intervene {folder}" if recording.has_source else None
    more = "" if split == "test" else f" --split {shlex.quote(split)}"
    return f"attnscope intervene {shlex.quote(str(run))}{more}"
