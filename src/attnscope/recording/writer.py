"""Folders of immutable shards under one manifest: how they are written, gone on with, and opened.

While it is written, ``NAME`` is the hidden folder ``.NAME.partial`` beside it, with ``plan.json``,
which says what is being captured, and the shards that are whole. A shard becomes visible by a
rename, so that whatever stops a capture, a shard is whole or not there. The finished folder is the
same one, with ``manifest.json`` and under its own name.

Processes of one capture meet in that folder and nowhere else: each writes shards of its own, and
the first writes the manifest when all are there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from attnscope.errors import InputError
from attnscope.files import DISK_ERRORS, locked, read_json, refuse_existing, write_bytes, write_json
from attnscope.kinds import Gate
from attnscope.recording.format import (
    FORMAT,
    ROW_COLUMNS,
    SHARD_FILES,
    Shard,
    parse_shard,
    sha256_of,
    shard_name,
)

_POLL = 0.1  # seconds between two looks at what other processes have written
_SPEAK = 60.0  # seconds after which a process that waits says for what


class ShardWriter(ABC):
    """Fills a folder shard by shard; it appears under its name when ``with`` ends well.

    What was begun under the same plan goes on: shards that are whole stay whatever happens, and
    `has` tells which they are. Where no shard became whole, nothing stays.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        folder: Path,
        *,
        gates: list[Gate],
        classes: list[str],
        grad_cam_layers: list[str],
        about: Mapping[str, Any],
        pooled_inputs: Sequence[str] = (),
        identity: Mapping[str, Any] | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Says what is to be written; nothing is touched before ``with``.

        Args:
            folder: what is made, which must not exist.
            gates: in the order in which they act.
            classes: their names.
            grad_cam_layers: paths of modules.
            about: what the folder tells of itself, of JSON values.
            pooled_inputs: names of the gates of which what they multiply is written as well.
            identity: what else must be the same for a half-done folder to be gone on with, of JSON
                values: weights, data, batch size ...
            rank: which of the processes that fill the folder this is.
            processes: their number.
        """
        self._header = {
            "classes": classes,
            "gates": [asdict(gate) for gate in gates],
            "grad_cam_layers": grad_cam_layers,
            "about": dict(about),
        }
        if pooled_inputs:  # without any, the plan stays that of a capture before there were any
            self._header["pooled_inputs"] = list(pooled_inputs)
        plan = {"format": FORMAT, "kind": self.kind, **self._header, **(identity or {})}
        # What cannot be written is said before the work.
        self._plan_file = (json.dumps(plan, indent=2, allow_nan=False) + "\n").encode()
        self._plan: dict[str, Any] = json.loads(self._plan_file)
        self._id = hashlib.sha256(self._plan_file).hexdigest()
        self._gates, self._pooled_inputs = gates, pooled_inputs
        self._rank, self._alone = rank, processes == 1
        self._folder = folder
        self._partial = folder.with_name(f".{folder.name}.partial")
        self._shards = self._partial / "shards"
        self._missing: list[Path] = []
        self._lock = ExitStack()
        self._taken = False
        self._next = 0

    def __enter__(self) -> Self:
        """Takes the folder, or joins the first process in it.

        Raises:
            InputError: the folder exists already or cannot be made, another process writes it, or
                what is half-done there is of another plan.
        """
        try:
            if self._rank == 0:
                self._take()
            else:
                self._join()
        except BaseException as error:
            self._leave()
            if (explained := self._explained(error)) is error:
                raise
            raise explained from error
        return self

    def has(self, index: int) -> bool:
        """Whether a shard is there and whole; its hashes are checked.

        Raises:
            InputError: what lies there is of another capture, or has changed.
        """
        if self._rank != 0 and os.path.lexists(self._folder):
            return True  # nothing was left to do, and the first process has finished
        folder = self._shards / shard_name(index)
        if not os.path.lexists(folder):
            return False
        shard = self._read(folder)
        for name, expected in shard.sha256.items():
            try:
                changed = sha256_of(folder / name) != expected
            except OSError:
                changed = True
            if changed:
                raise InputError(
                    f"{folder / name} has changed since it was written (SHA-256); remove {folder} "
                    "and start the same command again"
                )
        return True

    def wait_for(self, count: int) -> None:
        """Until the shards 0 to ``count - 1`` are there, by whichever process.

        Says once a minute on stderr what it waits for.
        """

        def missing() -> str:
            left = sorted(set(map(shard_name, range(count))) - set(os.listdir(self._shards)))
            if not left:
                return ""
            return f"{len(left)} of {count} shards of other processes, first {left[0]}"

        if self._rank == 0:
            _wait(missing)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._rank == 0:
                self._finish()
            elif error is None:
                _wait(lambda: "" if os.path.lexists(self._folder) else "the first process")
        except BaseException as late:
            self._leave()
            if (explained := self._explained(late)) is late:
                raise
            raise explained from late
        self._leave()
        if error is not None and (explained := self._explained(error)) is not error:
            raise explained from error

    def add_shard(
        self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame, index: int | None = None
    ) -> None:
        """Writes one shard.

        Args:
            arrays: of its images, as the kind of the folder has them.
            rows: columns path, label, prediction and loss, one row an image.
            index: its place in the order of the images; default after the last one that was added.

        Raises:
            ValueError: there is no image, or the arrays are not those of this kind.
            OSError: it could not be written; nothing of it stays.
        """
        self._check(arrays, rows)
        index = self._next if index is None else index
        self._next = index + 1
        ordered = {key: np.ascontiguousarray(value) for key, value in sorted(arrays.items())}
        rows = rows[list(ROW_COLUMNS)].astype(ROW_COLUMNS)
        folder = self._shards / shard_name(index)
        part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
        try:
            part.mkdir()
            write_bytes(part / "arrays.safetensors", save_arrays(ordered))
            write_bytes(part / "rows.parquet", rows.to_parquet(index=False))
            hashes = {name: sha256_of(part / name) for name in SHARD_FILES}
            write_json(
                part / "shard.json",
                {"of": self._id, "index": index, "count": len(rows), "sha256": hashes},
            )
            os.replace(part, folder)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            # A process that a kill orphaned may have been quicker: the same command, so the same.
            there = isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not (there and self.has(index)):
                raise

    @abstractmethod
    def _check(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        """Raises a ValueError where the arrays are not those of this kind."""

    def _take(self) -> None:
        """The first process: lock, and make or check the plan."""
        self._missing = [parent for parent in self._folder.parents if not parent.exists()]
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            raise InputError(
                f"{self._folder} cannot be made ({error.strerror}); take another folder"
            ) from None
        try:
            self._lock.enter_context(locked(self._folder.with_name(f".{self._folder.name}.lock")))
        except BlockingIOError:
            raise InputError(
                f"another capture is writing {self._folder}; wait for it, or take another folder"
            ) from None
        self._taken = True
        refuse_existing(self._folder)
        if self._alone and not self._whole():
            # What was killed before its first shard says nothing that would have to be kept.
            shutil.rmtree(self._partial, ignore_errors=True)
        self._shards.mkdir(parents=True, exist_ok=True)
        if (self._partial / "plan.json").exists():
            self._compare(self._partial)
        elif self._whole():
            raise InputError(
                f"{self._partial} holds shards without a plan.json; remove it and capture again"
            )
        else:
            write_bytes(self._partial / "plan.json", self._plan_file)
        if self._alone:
            self._sweep()

    def _join(self) -> None:
        """Another process: wait for the plan of the first."""

        def missing() -> str:
            homes = (self._partial, self._folder)
            return "" if any((f / "plan.json").exists() for f in homes) else "the first process"

        _wait(missing)
        self._compare(self._partial if self._partial.exists() else self._folder)

    def _compare(self, folder: Path) -> None:
        found = read_json(folder / "plan.json")
        if found == self._plan:
            return
        found = found if isinstance(found, dict) else {}
        differences = _differences(found, self._plan)
        raise InputError(
            f"{folder} was begun with {_enumerate(differences)}; capture as it was begun, or "
            "remove that folder to begin anew"
        )

    def _read(self, folder: Path) -> Shard:
        """What a whole shard says of itself, if it is ours."""
        remedy = f"remove {folder} and start the same command again"
        try:
            value = read_json(folder / "shard.json")
            of, index = value["of"], value["index"]
            shard = parse_shard(
                {"name": shard_name(index), "count": value["count"], "sha256": value["sha256"]}
            )
        except (InputError, KeyError, TypeError, ValueError):
            raise InputError(f"{folder} is no shard of a recording; {remedy}") from None
        if of != self._id or shard.name != folder.name:
            raise InputError(f"{folder} is a shard of another recording; {remedy}")
        return shard

    def _whole(self) -> list[Path]:
        if not self._shards.is_dir():
            return []
        found = [path for path in self._shards.iterdir() if not path.name.startswith(".")]
        # As numbers: from 100,000 shards on, names are longer.
        return sorted(found, key=lambda path: (len(path.name), path.name))

    def _sweep(self) -> None:
        """Removes what a killed process had not finished."""
        for folder in (self._partial, self._shards):
            for path in folder.glob(".*.partial"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _finish(self) -> None:
        # In the order of their names, which is that of the images, whoever came first.
        shards = [self._read(path) for path in self._whole()]
        if not shards:
            raise InputError("no image was recorded; a recording needs one at least")
        names = [shard.name for shard in shards]
        gaps = sorted(set(map(shard_name, range(len(names)))) - set(names))
        if gaps:
            raise InputError(f"{self._shards / gaps[0]} is missing; start the same command again")
        write_json(
            self._partial / "manifest.json",
            {
                "format": FORMAT,
                "kind": self.kind,
                "id": self._id,
                "count": sum(shard.count for shard in shards),
                **self._header,
                "shards": [asdict(shard) for shard in shards],
            },
        )
        self._sweep()
        refuse_existing(self._folder)  # a rename would replace an empty folder made meanwhile
        os.replace(self._partial, self._folder)

    def _leave(self) -> None:
        """Lets go of the folder; nothing stays of what has no whole shard."""
        if self._taken and self._alone:
            self._sweep()
            if not self._whole():
                shutil.rmtree(self._partial, ignore_errors=True)
        self._lock.close()
        for parent in self._missing:  # innermost first; one that somebody else filled stays
            with suppress(OSError):
                parent.rmdir()

    def _explained(self, error: BaseException) -> BaseException:
        """The error, with a word on what stays where that matters."""
        count = len(self._whole())
        stays = f"{count} whole {'shard stays' if count == 1 else 'shards stay'} in {self._partial}"
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            what = f"{stays}: make room and" if count else "make room and"
            return OSError(
                error.errno,
                f"{error.strerror}; {what} start the same command again",
                str(error.filename or self._folder),
            )
        if isinstance(error, KeyboardInterrupt) and count and not error.args:
            return KeyboardInterrupt(f"interrupted; {stays}: the same command goes on")
        return error


def _wait(missing: Callable[[], str]) -> None:
    """Until ``missing`` says nothing is; what it says is told once a minute."""
    spoken = time.monotonic()
    while what := missing():
        if time.monotonic() - spoken > _SPEAK:
            print(f"attnscope: waiting for {what}", file=sys.stderr, flush=True)
            spoken = time.monotonic()
        time.sleep(_POLL)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In words, the entries in which two plans differ."""
    words = []
    for key in sorted({*found, *wanted}):
        there, here = found.get(key), wanted.get(key)
        if there == here:
            continue
        if key == "about" and isinstance(there, dict) and isinstance(here, dict):
            words.extend(_differences(there, here))
            continue
        what = key.removesuffix("_sha256").replace("_", " ")
        short = (isinstance(value, (int, float, str)) for value in (there, here))
        if all(short) and max(len(str(there)), len(str(here))) < 40:
            words.append(f"{what} {there} instead of {here}")
        else:
            words.append(f"other {what}")
    return list(dict.fromkeys(words))


def _enumerate(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
