"""Atomic writing of files and folders: a reader never sees one that is half written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attnscope.errors import InputError, first_line

StrPath = str | os.PathLike[str]
"""What public functions take as a path."""
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Error numbers of a disk that is full, over its quota or read-only."""
_LOCK_TIMEOUT = 0.1  # seconds


def write_bytes(file: Path, content: bytes | Sequence[bytes | memoryview]) -> None:
    """Write a file atomically.

    The content is written to a temporary file in the same folder, flushed to the disk, and renamed.
    An existing file is replaced; it stays as it is if anything fails.

    Args:
        file: where to write.
        content: what to write, as a whole or in parts.
    """
    temporary = _temporary_path(file)
    parts = [content] if isinstance(content, bytes) else content
    try:
        # tempfile would create files that only the user can read, whatever the umask says.
        with temporary.open("xb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(file: Path, value: Any) -> None:
    """Write a value as indented JSON.

    Args:
        file: where to write; see `write_bytes`.
        value: anything that JSON can hold.

    Raises:
        ValueError: the value contains NaN or infinity, which are not JSON.
    """
    write_bytes(file, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: AS110, the file does not exist; AS111, it cannot be read; AS112, it is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_reject_constant)
    except FileNotFoundError:
        raise InputError("AS110", f"file {file} does not exist; check the path") from None
    except OSError as error:
        raise InputError(
            "AS111",
            f"file {file} cannot be read ({error.strerror}); check the path and its permissions",
        ) from None
    except (ValueError, RecursionError) as error:  # from decoding or parsing
        raise InputError(
            "AS112",
            f"file {file} is not valid JSON ({first_line(error)}); restore it or create it again",
        ) from None


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Create a folder atomically: fill a temporary folder, which is renamed at the end.

    If the block raises, the temporary folder is removed, and so are parents that were created.

    Args:
        folder: the folder to create, with its parents.

    Yields:
        The temporary folder, in the same parent folder.

    Raises:
        InputError: AS113, the folder already exists; AS114, it cannot be created.
    """
    refuse_existing(folder)
    missing = [parent for parent in folder.parents if not parent.exists()]
    temporary = _temporary_path(folder)
    try:
        make_folder(temporary, folder)
        yield temporary
        refuse_existing(folder)  # the rename would replace an empty folder created meanwhile
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:  # innermost first; parents that others use meanwhile stay
            with suppress(OSError):
                parent.rmdir()
        raise


def make_folder(folder: Path, shown: Path | None = None) -> None:
    """Create a folder with its parents.

    Args:
        folder: the folder to create.
        shown: the folder to name in the error message. Default: ``folder``.

    Raises:
        InputError: AS114, it cannot be created.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            "AS114",
            f"folder {shown or folder} cannot be created ({error.strerror}); "
            "choose another folder or check the permissions",
        ) from None


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that no other process can hold at the same time.

    The lock file is created, and removed at the end. The operating system releases the lock when
    the process ends for any reason, so a file that a killed process left behind locks nothing.

    Args:
        file: the lock file.

    Raises:
        BlockingIOError: another process holds the lock.
        InputError: AS115, the file cannot be created, or the file system does not support locks.
    """
    from filelock import FileLock, Timeout  # only needed for writing

    # The timeout is not 0: if the holder removes the file meanwhile, filelock tries again.
    lock = FileLock(
        file, timeout=_LOCK_TIMEOUT, poll_interval=_LOCK_TIMEOUT / 10, fallback_to_soft=False
    )
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock", file) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            "AS115",
            f"file {file} cannot be locked ({reason}); choose a writable folder on a file system "
            "that supports locks",
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # before the release: afterwards it may be the next holder's
        lock.release()


def refuse_existing(folder: Path) -> None:
    """Check that an output path is free.

    Raises:
        InputError: AS113, it exists. A broken symbolic link counts as existing.
    """
    if os.path.lexists(folder):
        raise InputError("AS113", f"{folder} already exists; choose another folder or remove it")


def _temporary_path(file: Path) -> Path:
    return file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")
