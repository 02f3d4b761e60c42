"""Trainings that were interrupted: whether a folder has one, and the command that continues it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import is_locked, read_json
from attnscope.shell import shell_command


def is_interrupted(run: Path) -> bool:
    """Return whether a folder holds a training that was interrupted and does not run now."""
    try:
        there = (run / layout.CHECKPOINT).is_file() and not (run / layout.RESULT).exists()
    except OSError:  # one may not enter the folder
        return False
    folder = run.resolve()
    return there and not is_locked(folder.with_name(f".{folder.name}{layout.LOCK_SUFFIX}"))


def how_to_continue(run: Path) -> str:
    """Return in words how the training of a run is continued.

    Args:
        run: A run folder with a ``config.json``.

    Returns:
        ``continue it with: attnscope train --epochs 4 --out RUN --resume``, or the same without the
        command if it is not known: of earlier versions, of several processes, and from Python.
    """
    config: object = None
    with suppress(InputError, OSError):
        config = read_json(run / layout.CONFIG)
    command = config.get("command") if isinstance(config, dict) else None
    is_known = isinstance(command, list) and all(isinstance(word, str) for word in command)
    if not is_known or not isinstance(config, dict) or config.get("devices", 1) != 1:
        return "continue it with the command that started it, and --resume"
    words = [str(word) for word in command or ()]
    return f"continue it with: {shell_command('train', *words, '--out', run, '--resume')}"
