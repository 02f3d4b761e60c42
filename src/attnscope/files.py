"""Atomic writing of files and folders: a reader never sees one that is half written.

It has more than 400 lines, because writing, its locks and what killed processes leave belong
together.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attnscope.errors import InputError, first_line
from attnscope.integrity import CHECKSUM, is_json_whole, json_bytes, open_regular, sealed_json
from attnscope.layout import LOCK_SUFFIX

StrPath = str | os.PathLike[str]
"""What public functions take as a path."""
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Error numbers of a disk that is full, over its quota or read-only."""
PATH_ERRORS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO),
    }
)
"""Error numbers of a path that cannot be used as it is, which a user can change."""
BROKEN_SEAL = "AS119"
"""The code of the error if a file is not as it was written."""
_LONGEST_NAME = 220  # bytes; most file systems allow 255, of which temporary files need some
_SHOWN = 200  # characters of a path in a message
_LOCK_TIMEOUT = 0.1  # seconds
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9]{1,9})-[0-9a-f]{8}\.partial", re.DOTALL)
_UNCLAIMED = 10.0  # seconds from the creation of a temporary file to its lock, at most


def write_bytes(file: Path, content: bytes | Sequence[bytes | memoryview]) -> None:
    """Write a file atomically.

    The content is written to a temporary file in the same folder, flushed to the disk, and renamed.
    An existing file is replaced; it stays as it is if anything fails. Through a link, the file to
    which it points is written.

    Args:
        file: where to write.
        content: what to write, as a whole or in parts.

    Raises:
        OSError: the disk is full, for example. It names the file.
    """
    named, file = file, Path(os.path.realpath(file))
    remove_leftovers(file.parent, file.name)
    temporary = temporary_path(file)
    parts = [content] if isinstance(content, bytes) else content
    try:
        # tempfile would create files that only the user can read, whatever the umask says.
        with temporary.open("xb") as stream:
            _claim(stream.fileno())
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, file)  # while it is locked, so that nobody removes it
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk names no file, or the temporary one
            raise OSError(error.errno, error.strerror, str(named)) from error
        raise


def write_json(file: Path, value: Any) -> None:
    """Write a value as indented JSON.

    Args:
        file: where to write; see `write_bytes`.
        value: anything that JSON can hold.

    Raises:
        ValueError: the value contains NaN or infinity, which are not JSON.
    """
    write_bytes(file, json_bytes(value))


def write_sealed(file: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its own SHA-256, which `read_json` checks; see `write_json`."""
    write_bytes(file, sealed_json(value))


def read_json(file: Path) -> Any:
    """Read a JSON file. A seal (`attnscope.integrity`) is checked and left out.

    Raises:
        InputError: AS110, the file does not exist; AS111, it cannot be read; AS112, it is not JSON;
            AS119, it has changed since it was written.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read()
        value = json.loads(content.decode(), parse_constant=_reject_constant)
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
    if is_whole := is_json_whole(content):
        del value[CHECKSUM]
    elif is_whole is False:
        raise InputError(
            BROKEN_SEAL,
            f"file {file} has changed since it was written (SHA-256); restore it or make it again",
        )
    return value


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal."""
    with open_regular(file) as stream:
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
    remove_leftovers(folder.parent, folder.name)
    temporary = temporary_path(folder)
    try:
        make_folder(temporary, folder)
        with _claimed(temporary):
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
        BlockingIOError: another process holds the lock. Its message says which one, and since when.
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
        raise BlockingIOError(errno.EWOULDBLOCK, _holder_of(file), file) from None
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
        with suppress(OSError):  # it only helps the message of another process
            file.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        file.unlink(missing_ok=True)  # before the release: afterwards it may be the next holder's
        lock.release()


def is_locked(file: Path) -> bool:
    """Return whether another process holds a lock (`locked`); nothing is changed.

    Args:
        file: the lock file, which need not exist.
    """
    with suppress(OSError), _opened(file) as descriptor:
        try:
            # For an instant only: a process that wants the lock meanwhile tries again.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes had begun to write in a folder with this module.

    What another process is writing at this moment stays: it holds a lock on it.

    Args:
        folder: the folder; it need not exist.
        name: the file or folder that was to be written. Default: any.
    """
    try:
        found = [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]
    except OSError:
        return
    for path in found:
        match = _TEMPORARY.fullmatch(path.name)
        assert match is not None
        if name not in (None, match["name"]) or not _is_abandoned(path, int(match["process"])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def remove_free_lock(output: Path) -> None:
    """Remove the lock file beside an output that a killed process left, if no process holds it.

    Whoever finishes an output removes its lock last. A kill at that moment leaves the lock beside
    an output that is complete, and that no command writes again.
    """
    output = Path(os.path.abspath(output))  # `.` has no name
    file = output.parent / f".{output.name}{LOCK_SUFFIX}"
    with suppress(OSError), _opened(file) as descriptor:
        if _claim(descriptor):  # a process that waits for the lock makes a new file
            file.unlink()


def _is_abandoned(path: Path, process: int) -> bool:
    """Return whether no process writes this temporary file or folder any more."""
    with suppress(OSError):
        if _is_alive(process) and time.time() - path.lstat().st_mtime < _UNCLAIMED:
            return False
        with _opened(path) as descriptor:
            return _claim(descriptor)
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to someone else
        pass
    return True


def _claim(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed; return whether that succeeded.

    A file system without locks keeps its leftovers.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    with _opened(folder) as descriptor:
        _claim(descriptor)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _holder_of(file: Path) -> str:
    """Return which process holds a lock, and since when, as far as its file says so."""
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(file.stat().st_mtime))
        holder = file.read_text(encoding="utf-8", errors="replace")[:100]
    except OSError:
        holder, since = "", ""
    if not holder.startswith("process ") or not holder.isprintable():
        return "another process"
    return f"{holder}, since {since},"


def is_there(path: Path) -> bool:
    """Return whether there is a file, a folder, a link or anything else at a path.

    Raises:
        OSError: Its folder may not be entered, so that nobody knows. (`os.path.lexists` says no.)
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def refuse_path(error: OSError) -> InputError:
    """Return the refusal of a path that an operation failed on with one of `PATH_ERRORS`."""
    return InputError(
        "AS117",
        f"{_shortened(Path(str(error.filename)))}: {error.strerror}; correct its permissions, or "
        "choose another file or folder",
    )


def expect_file(file: Path) -> None:
    """Check that a file can be written, before the work whose result it will hold.

    Raises:
        InputError: AS116; the message says why not.
    """
    reason = _place_problem(file)
    if not reason and file.is_dir():
        reason = "it is a folder"
    elif not reason and file.exists() and not file.is_file():
        reason = "it is a pipe or a device"
    target = Path(os.path.realpath(file))
    if not reason and file.is_symlink() and not target.parent.is_dir():
        reason = f"it is a link into the folder {target.parent}, which does not exist"
    if reason := reason or _place_problem(target):
        raise InputError(
            "AS116",
            f"{_shortened(file)} cannot be written: {reason}; choose another file with --out",
        )


def expect_folder(folder: Path) -> None:
    """Check that files can be written into a folder, which need not exist.

    Raises:
        InputError: AS116; the message says why not.
    """
    reason = _place_problem(folder)
    if not _long_name(folder) and os.path.lexists(folder):
        reason = "" if folder.is_dir() else "it is a file"
        if not reason and not os.access(folder, os.W_OK | os.X_OK):
            reason = "permission denied"
    if reason:
        raise InputError(
            "AS116",
            f"{_shortened(folder)} cannot be written: {reason}; choose another folder with --out",
        )


def _place_problem(path: Path) -> str:
    """Return why a path cannot be created in the folder that will contain it, or nothing."""
    if _long_name(path):
        return f"a name has more than {_LONGEST_NAME} bytes, which is too long"
    for parent in path.parents:
        if os.path.lexists(parent):
            if not parent.is_dir():
                return f"{parent} is not a folder"
            return "" if os.access(parent, os.W_OK | os.X_OK) else f"permission denied in {parent}"
    return ""


def _long_name(path: Path) -> bool:
    return any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts)


def _shortened(path: Path) -> str:
    return str(path) if len(str(path)) <= _SHOWN else f"{str(path)[:_SHOWN]}…"


def refuse_existing(folder: Path) -> None:
    """Check that an output path is free and can be written.

    Raises:
        InputError: AS114, it cannot be created; AS113, it exists. A broken symbolic link counts as
            existing.
    """
    if not _long_name(folder) and os.path.lexists(folder):
        remove_free_lock(folder)
        raise InputError("AS113", f"{folder} already exists; choose another folder or remove it")
    if reason := _place_problem(folder):
        raise InputError(
            "AS114",
            f"{_shortened(folder)} cannot be created: {reason}; choose another folder with --out",
        )


def temporary_path(file: Path) -> Path:
    """Return a new name beside a file or folder, which `remove_leftovers` recognizes."""
    name = os.fsdecode(os.fsencode(file.name)[:_LONGEST_NAME])
    return file.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")
