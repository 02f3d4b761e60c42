"""Files are written aside and renamed, so that a reader never meets half of one."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attnscope.errors import InputError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What a disk says that takes no more."""


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


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds the lock ``file`` for this process alone; it is made, and removed at the end.

    The system lets go of the lock when the process ends, however it ends: a file that a killed
    process left behind locks nothing.

    Raises:
        BlockingIOError: another process holds it.
        InputError: the file system has no locks, or the file cannot be made.
    """
    import fcntl  # of Unix alone, and needed by what writes alone

    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            raise InputError(
                f"{file} cannot be made ({error.strerror}); take another folder"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(descriptor)
            with suppress(FileNotFoundError):
                found = file.stat()
                if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                    break
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                f"{file} cannot be locked ({error.strerror}); take a folder on a file system "
                "that has locks"
            ) from None
        os.close(descriptor)  # somebody removed it between our opening and locking it
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def refuse_existing(folder: Path) -> None:
    """Raises an InputError where ``folder`` exists already, be it a link that leads nowhere."""
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already; take another folder or remove it")


def _aside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")
