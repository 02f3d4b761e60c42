"""Outputs that one process writes at a time, and folders that are filled at their final place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from attnscope.errors import InputError
from attnscope.files import (
    locked,
    make_folder,
    new_folder,
    refuse_existing,
    remove_leftovers,
    temporary_path,
)
from attnscope.layout import LOCK_SUFFIX, UNFINISHED


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Keep other processes from writing to an output, and remove what killed ones left there.

    The lock file ``.NAME.lock`` lies beside the output, or in it where only it can be written.

    Args:
        place: the output, a file or a folder, which need not exist. Parents are created, and
            removed at the end if they are empty then.

    Raises:
        InputError: AS118, another process writes to it; AS114, a parent cannot be created.
    """
    place = Path(os.path.abspath(place))
    missing = [parent for parent in place.parents if not parent.exists()]
    home = place.parent
    if missing:
        make_folder(home, place)
    elif place.is_dir() and not os.access(home, os.W_OK | os.X_OK):
        home = place
    with ExitStack() as held:
        try:
            held.enter_context(locked(home / f".{place.name}{LOCK_SUFFIX}"))
        except BlockingIOError as error:
            if reason := _refusal(home, place):
                raise InputError(
                    "AS114",
                    f"{place} cannot be created: no file can be written to {home} ({reason}); "
                    "choose another place with --out",
                ) from None
            raise InputError(
                "AS118",
                f"{error.strerror} is writing to {place}; wait until it has finished, or choose "
                "another place with --out",
            ) from None
        try:
            remove_leftovers(place.parent, place.name)
            if place.is_dir():
                remove_leftovers(place)
            yield
        finally:
            held.close()
            for parent in missing:  # innermost first
                with suppress(OSError):
                    parent.rmdir()


def _refusal(home: Path, place: Path) -> str:
    """Return why no file can be made in a folder, as in ``/proc``; empty if one can."""
    trial = temporary_path(home / place.name)
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


@contextmanager
def growing_folder(folder: Path) -> Iterator[None]:
    """Create a folder that is filled at its final place, so that what is written can name it.

    If the block raises, the folder is removed. What a killed process left of it is removed by the
    next call: the folder holds the file `UNFINISHED` until it is complete.

    Args:
        folder: the folder to create, with its parents.

    Raises:
        InputError: AS113, a complete folder exists; AS114, it cannot be created; AS118, another
            process is filling it.
    """
    if not _is_unfinished(folder):
        refuse_existing(folder)
    with writing(folder):
        if _is_unfinished(folder):
            _remove_folder(folder)
        with new_folder(folder) as new:
            (new / UNFINISHED).touch()
        try:
            yield
            (folder / UNFINISHED).unlink()
        except BaseException:
            _remove_folder(folder)
            raise


def _is_unfinished(folder: Path) -> bool:
    return not folder.is_symlink() and (folder / UNFINISHED).is_file()


def _remove_folder(folder: Path) -> None:
    """Remove a folder at once for others: what a kill leaves of it has a temporary name."""
    temporary = temporary_path(folder)
    os.replace(folder, temporary)
    shutil.rmtree(temporary, ignore_errors=True)
