"""Options that several commands share, and what they print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from attnscope.errors import InputError
from attnscope.registry import loaded_by_hand

RunArgument = Annotated[Path, tyro.conf.Positional]
NameArgument = Annotated[str, tyro.conf.Positional]
RunsArgument = Annotated[tuple[Path, ...], tyro.conf.Positional]


def plugin_options() -> list[str]:
    """The options with which a command in another process loads the plugins of this one."""
    return [f"--plugin={module}" for module in loaded_by_hand()]


def read_result(run: Path) -> dict[str, Any]:
    """What a training ended with: ``result.json`` of a run folder."""
    from attnscope import layout
    from attnscope.files import read_json

    result: dict[str, Any] = read_json(run / layout.RESULT)
    return result


def announce_run(run: Path) -> None:
    """Print the accuracy of a run and the next command."""
    result = read_result(run)
    print(
        f"test accuracy {result['test']['accuracy']:.2%} ({result['weights']} weights), "
        f"{result['seconds_per_step']:.2f} s a step: {run}"
    )
    print(f"Next: attnscope capture {run}")


def announce_files(files: Sequence[Path]) -> None:
    """Print how many files were written where."""
    print(f"{len(files)} files in {files[0].parent}")


def verify_folder(folder: Path) -> str:
    """Verify a recording or moments; one line that says what they hold.

    Raises:
        InputError: a file is missing or has changed.
    """
    from attnscope.recording.moments import Moments
    from attnscope.recording.reader import captured_kind
    from attnscope.recording.recording import Recording

    recording: Moments | Recording
    recording = Moments(folder) if captured_kind(folder) == "moments" else Recording(folder)
    found = recording.verify()
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"{found[0]}{more}; capture again")
    return f"{recording.folder}: {len(recording)} images, {len(recording.gates)} gates, all well"
