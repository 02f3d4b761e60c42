"""Files are written aside and renamed, so that a reader never meets half of one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attnscope.errors import InputError


def write_bytes(file: Path, content: bytes) -> None:
    """Writes ``content`` beside ``file``, flushes it to the disk, and renames it to ``file``."""
    part = _aside(file)
    try:
        # Not by tempfile: its files are private, and these get what the user's umask says.
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(file: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON; NaN is refused, since other readers refuse it."""
    write_bytes(file, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file is missing, cannot be opened or is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:  # of decoding as well as of parsing
        raise InputError(f"{file} is not JSON ({error}); write it again") from None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to fill; it becomes ``folder``, or vanishes on an error.

    Raises:
        InputError: ``folder`` exists already, or cannot be made.
    """
    refuse_existing(folder)
    missing = [parent for parent in folder.parents if not parent.exists()]
    part = _aside(folder)
    try:
        try:
            part.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be made ({error.strerror}); take another folder"
            ) from None
        yield part
        refuse_existing(folder)  # a rename would replace an empty folder made meanwhile
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for parent in missing:  # innermost first; one that somebody else filled stays
            with suppress(OSError):
                parent.rmdir()
        raise


def refuse_existing(folder: Path) -> None:
    """Raises an InputError where ``folder`` exists already, be it a link that leads nowhere."""
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already; take another folder or remove it")


def _aside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")
