"""Finished pieces of an experiment, which an interrupted call leaves and the next one takes up.

A piece is what a few reruns of a network gave: some arrays under a name. Pieces are written in
files of several pieces, each of which gets its name by a rename. So a piece is complete or absent,
no matter what stops the experiment.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import read_json, write_bytes, write_sealed
from attnscope.integrity import is_array_file_whole, sealed_arrays
from attnscope.recording.partial import differences

Piece = Mapping[str, NDArray[Any]]
"""Name of an array -> the array."""

_SUFFIX = ".safetensors"
_SEPARATOR = "|"
"""Between the name of a piece and the name of one of its arrays, which does not contain it."""
_SECONDS = 10.0
"""Finished pieces are written after this time at the latest."""
_BYTES = 2**26
"""Finished pieces are written once they have this size."""


class Pieces:
    """The finished pieces of one experiment: in memory and, if there is a folder, in files.

    It is used in a ``with`` block. Its end writes what is not written yet, also after an error.

    Args:
        folder: The folder of the pieces. None keeps them in memory only.
        plan: What must be equal for pieces of an earlier call to be used, as JSON values.
    """

    def __init__(self, folder: Path | None = None, plan: Mapping[str, Any] | None = None) -> None:
        self._folder, self._plan = folder, dict(plan or {})
        self._known: dict[str, dict[str, NDArray[Any]]] = {}
        self._unwritten: list[str] = []
        self._bytes = 0  # of the unwritten pieces
        self._files = 0
        self._written = time.monotonic()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __enter__(self) -> Self:
        """Read the pieces of an earlier call.

        Raises:
            InputError: They were made with other settings (AS634), or cannot be read (AS635).
        """
        if self._folder is not None and (self._folder / layout.PLAN).is_file():
            plan = read_json(self._folder / layout.PLAN)
            if plan != self._plan:
                found = differences(plan if isinstance(plan, dict) else {}, self._plan)
                raise InputError(
                    "AS634",
                    f"{self._folder} was started with other settings ({found}); use the same "
                    "settings, or remove that folder to start over",
                )
            for file in sorted(self._folder.glob(f"*{_SUFFIX}")):
                self._read(file)
        self._written = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.write()

    def find(self, name: str) -> Piece | None:
        """Return a piece; None if it is not finished."""
        return self._known.get(name)

    def keep(self, name: str, piece: Piece) -> None:
        """Keep a finished piece, which has at least one array."""
        self._known[name] = dict(piece)
        self._unwritten.append(name)
        self._bytes += sum(array.nbytes for array in piece.values())
        if time.monotonic() - self._written > _SECONDS or self._bytes > _BYTES:
            self.write()

    def forget(self, names: Iterable[str]) -> None:
        """Remove pieces from memory that others have replaced, so that many fit into it."""
        for name in names:
            self._known.pop(name, None)
        self._unwritten = [name for name in self._unwritten if name in self._known]

    def write(self) -> None:
        """Write the pieces that are only in memory."""
        self._written = time.monotonic()
        if self._folder is None or not self._unwritten:
            return
        if not (self._folder / layout.PLAN).is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_sealed(self._folder / layout.PLAN, self._plan)
        arrays = {
            f"{name}{_SEPARATOR}{key}": np.asarray(array, order="C")
            for name in self._unwritten
            for key, array in self._known[name].items()
        }
        content = sealed_arrays(save_arrays(arrays))
        write_bytes(self._folder / f"{self._files:06d}{_SUFFIX}", content)
        self._files += 1
        self._unwritten.clear()
        self._bytes = 0

    def _read(self, file: Path) -> None:
        try:
            if is_array_file_whole(file) is False:
                raise ValueError("it has changed since it was written (SHA-256)")
            for key, array in load_file(file).items():
                name, _, of_array = key.rpartition(_SEPARATOR)
                self._known.setdefault(name, {})[of_array] = array
            self._files = max(self._files, int(file.stem) + 1)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                "AS635",
                f"{file} cannot be read ({first_line(error)}); remove it and run the same command "
                "again",
            ) from None


def partial_folder(folder: Path) -> Path:
    """Return the hidden folder beside outcomes that holds unfinished experiments."""
    return folder.with_name(f".{folder.name}{layout.PARTIAL_SUFFIX}")


def unfinished(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the experiments that an earlier call left unfinished: name -> plan."""
    place = partial_folder(folder)
    plans = {file.parent.name: read_json(file) for file in sorted(place.glob(f"*/{layout.PLAN}"))}
    return {name: plan for name, plan in plans.items() if isinstance(plan, dict)}


def remove_pieces(folder: Path, experiment: str) -> None:
    """Remove the pieces of an experiment, and the hidden folder if nothing else is in it."""
    place = partial_folder(folder)
    shutil.rmtree(place / experiment, ignore_errors=True)
    with suppress(OSError):
        place.rmdir()
