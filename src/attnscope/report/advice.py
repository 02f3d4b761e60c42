"""Commands that create what is missing, for messages and pages."""

from __future__ import annotations

from attnscope.recording.places import run_of
from attnscope.recording.recording import Recording
from attnscope.shell import shell_command


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
        return shell_command("intervene", recording.folder) if recording.has_source else None
    return shell_command("intervene", run, *([] if split == "test" else ["--split", split]))
