"""The hidden folder in which a recording grows: locked, gone on with, shared by processes.

While it is written, ``NAME`` is the hidden folder ``.NAME.partial`` beside it, with ``plan.json``,
which says what is being captured, and the shards that are whole. A shard becomes visible by a
rename, so that whatever stops a capture, a shard is whole or not there.

Processes of one capture meet in that folder and nowhere else: the first makes the plan, and each
writes shards of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import (
    DISK_ERRORS,
    locked,
    read_json,
    refuse_existing,
    sha256_of,
    write_bytes,
)
from attnscope.recording.format import Shard, parse_shard, shard_name

_POLL = 0.1  # seconds between two looks at what other processes have written
_SPEAK = 60.0  # seconds after which a process that waits says for what


class PartialFolder:
    """The folder beside ``folder`` in which shards gather until they are all there."""

    def __init__(self, folder: Path, plan_file: bytes, plan_id: str, alone: bool) -> None:
        """Touches nothing.

        Args:
            folder: what it becomes.
            plan_file: the bytes of ``plan.json``.
            plan_id: their SHA-256.
            alone: whether one process fills it.
        """
        self.folder = folder
        self.place = folder.with_name(f".{folder.name}{layout.PARTIAL_SUFFIX}")
        self.shards = self.place / layout.SHARDS
        self._plan_file, self._plan_id = plan_file, plan_id
        self._plan: dict[str, Any] = json.loads(plan_file)
        self._alone = alone
        self._missing: list[Path] = []
        self._lock = ExitStack()
        self._taken = False

    def take(self) -> None:
        """The first process: lock, and make or check the plan.

        Raises:
            InputError: the folder exists already or cannot be made, another process writes it, or
                what is half-done there is of another plan.
        """
        self._missing = [parent for parent in self.folder.parents if not parent.exists()]
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            raise InputError(
                f"{self.folder} cannot be made ({error.strerror}); take another folder"
            ) from None
        try:
            self._lock.enter_context(
                locked(self.folder.with_name(f".{self.folder.name}{layout.LOCK_SUFFIX}"))
            )
        except BlockingIOError:
            raise InputError(
                f"another capture is writing {self.folder}; wait for it, or take another folder"
            ) from None
        self._taken = True
        refuse_existing(self.folder)
        if self._alone and not self.whole():
            # What was killed before its first shard says nothing that would have to be kept.
            shutil.rmtree(self.place, ignore_errors=True)
        self.shards.mkdir(parents=True, exist_ok=True)
        if (self.place / layout.PLAN).exists():
            self._compare(self.place)
        elif self.whole():
            raise InputError(
                f"{self.place} holds shards without a {layout.PLAN}; remove it and capture again"
            )
        else:
            write_bytes(self.place / layout.PLAN, self._plan_file)
        if self._alone:
            self.sweep()

    def join(self) -> None:
        """Another process: wait for the plan of the first.

        Raises:
            InputError: it is another plan.
        """

        def missing() -> str:
            homes = (self.place, self.folder)
            return "" if any((f / layout.PLAN).exists() for f in homes) else "the first process"

        wait_until(missing)
        self._compare(self.place if self.place.exists() else self.folder)

    def _compare(self, folder: Path) -> None:
        found = read_json(folder / layout.PLAN)
        if found == self._plan:
            return
        found = found if isinstance(found, dict) else {}
        differences = _differences(found, self._plan)
        raise InputError(
            f"{folder} was begun with {_enumerate(differences)}; capture as it was begun, or "
            "remove that folder to begin anew"
        )

    def holds(self, index: int) -> bool:
        """Whether a shard is there and whole; its hashes are checked.

        Raises:
            InputError: what lies there is of another capture, or has changed.
        """
        folder = self.shards / shard_name(index)
        if not os.path.lexists(folder):
            return False
        shard = self.read(folder)
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

    def read(self, folder: Path) -> Shard:
        """What a whole shard says of itself.

        Raises:
            InputError: it is none, or one of another recording.
        """
        remedy = f"remove {folder} and start the same command again"
        try:
            value = read_json(folder / layout.SHARD)
            of, index = value["of"], value["index"]
            shard = parse_shard(
                {"name": shard_name(index), "count": value["count"], "sha256": value["sha256"]}
            )
        except (InputError, KeyError, TypeError, ValueError):
            raise InputError(f"{folder} is no shard of a recording; {remedy}") from None
        if of != self._plan_id or shard.name != folder.name:
            raise InputError(f"{folder} is a shard of another recording; {remedy}")
        return shard

    def whole(self) -> list[Path]:
        """The folders of the shards that are whole, in the order of the images."""
        if not self.shards.is_dir():
            return []
        found = [path for path in self.shards.iterdir() if not path.name.startswith(".")]
        # As numbers: from 100,000 shards on, names are longer.
        return sorted(found, key=lambda path: (len(path.name), path.name))

    def sweep(self) -> None:
        """Remove what a killed process had not finished."""
        for folder in (self.place, self.shards):
            for path in folder.glob(f".*{layout.PARTIAL_SUFFIX}"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def become(self) -> None:
        """Appear under the name of the whole folder.

        Raises:
            InputError: there is one meanwhile.
        """
        self.sweep()
        refuse_existing(self.folder)  # a rename would replace an empty folder made meanwhile
        os.replace(self.place, self.folder)

    def leave(self) -> None:
        """Let go of the folder; nothing stays of what has no whole shard."""
        if self._taken and self._alone:
            self.sweep()
            if not self.whole():
                shutil.rmtree(self.place, ignore_errors=True)
        self._lock.close()
        for parent in self._missing:  # innermost first; one that somebody else filled stays
            with suppress(OSError):
                parent.rmdir()

    def explained(self, error: BaseException) -> BaseException:
        """The error, with a word on what stays where that matters."""
        count = len(self.whole())
        stays = f"{count} whole {'shard stays' if count == 1 else 'shards stay'} in {self.place}"
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            what = f"{stays}: make room and" if count else "make room and"
            return OSError(
                error.errno,
                f"{error.strerror}; {what} start the same command again",
                str(error.filename or self.folder),
            )
        if isinstance(error, KeyboardInterrupt) and count and not error.args:
            return KeyboardInterrupt(f"interrupted; {stays}: the same command goes on")
        return error


def wait_until(missing: Callable[[], str]) -> None:
    """Wait until ``missing`` says nothing is; what it says is told on stderr once a minute."""
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
