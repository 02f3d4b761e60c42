"""Files are written aside and renamed, so that a reader never meets half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attnscope.errors import InputError, first_line

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What a disk says that takes no more."""
_PATIENCE = 0.1  # seconds for which a lock is tried


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


def sha256_of(file: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    from filelock import FileLock, Timeout  # needed by what writes alone

    # Not none at all: where the holder ends and removes the file meanwhile, it is taken anew.
    lock = FileLock(file, timeout=_PATIENCE, poll_interval=_PATIENCE / 10, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock", file) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"{file} cannot be locked ({reason}); take a folder that can be written, on a file "
            "system that has locks"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # before it is let go of, lest it be that of the next holder
        lock.release()


def refuse_existing(folder: Path) -> None:
    """Raises an InputError where ``folder`` exists already, be it a link that leads nowhere."""
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already; take another folder or remove it")


def _aside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")
