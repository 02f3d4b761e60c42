"""Commands that create what is missing, for messages and pages."""

from __future__ import annotations

import shlex

from attnscope.recording.places import run_of
from attnscope.recording.recording import Recording


def intervene_command(recording: Recording) -> str | None:
    """Return the shell command for the interventions on a recording; None if it is not in a run."""
    run, split = run_of(recording.folder), recording.folder.resolve().name
    if run is None:
        return None
    more = "" if split == "test" else f" --split {shlex.quote(split)}"
    return f"attnscope intervene {shlex.quote(str(run))}{more}"
