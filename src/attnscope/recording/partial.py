"""The hidden folder of an unfinished recording: locked, resumed, and shared by processes.

While ``NAME`` is being written, it is the hidden folder ``.NAME.partial`` beside it. It holds
``plan.json``, which says what is captured, and the complete shards. A shard gets its name by a
rename, so a shard is complete or absent, no matter what stops a capture.

The processes of one capture share that folder and nothing else. The main process (rank 0) writes
the plan, and each process writes its own shards.
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
from attnscope.recording.format import Shard, parse_shard, shard_name, with_current_keys

_POLL_SECONDS = 0.1  # between two checks for the files of other processes
_REPORT_SECONDS = 60.0  # after which a waiting process reports what it waits for


def planned(folder: Path) -> dict[str, Any] | None:
    """Return the plan of an unfinished recording; None if there is none that can be read.

    Args:
        folder: The folder of the finished recording.
    """
    try:
        plan = read_json(_place_of(folder) / layout.PLAN)
    except InputError:
        return None
    return plan if isinstance(plan, dict) else None


def wait_for_plan(folder: Path) -> None:
    """Wait until the main process has written the plan of a recording, or finished it."""

    def missing() -> str:
        homes = (_place_of(folder), folder)
        return "" if any((home / layout.PLAN).exists() for home in homes) else "the main process"

    wait_until(missing)


def _place_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{layout.PARTIAL_SUFFIX}")


class PartialFolder:
    """The folder beside ``folder`` that collects shards until all of them are there."""

    def __init__(self, folder: Path, plan_file: bytes, plan_id: str, is_alone: bool) -> None:
        """Describe the folder; nothing is written yet.

        Args:
            folder: The folder of the finished recording.
            plan_file: The bytes of ``plan.json``.
            plan_id: Their SHA-256.
            is_alone: Whether a single process writes the recording.
        """
        self.folder = folder
        self.place = _place_of(folder)
        self.shards = self.place / layout.SHARDS
        self._plan_file, self._plan_id = plan_file, plan_id
        self._plan: dict[str, Any] = json.loads(plan_file)
        self._is_alone = is_alone
        self._new_parents: list[Path] = []
        self._lock = ExitStack()
        self._is_locked = False

    def open_as_main(self) -> None:
        """Lock the folder, and write the plan or compare it with the one that is there.

        Raises:
            InputError: The finished folder exists or cannot be created, another capture writes to
                it, or the unfinished one was started with other settings.
        """
        self._new_parents = [parent for parent in self.folder.parents if not parent.exists()]
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            raise InputError(
                "AS650",
                f"{self.folder} cannot be created ({error.strerror}); choose another folder",
            ) from None
        try:
            self._lock.enter_context(
                locked(self.folder.with_name(f".{self.folder.name}{layout.LOCK_SUFFIX}"))
            )
        except BlockingIOError as error:
            raise InputError(
                "AS651",
                f"{error.strerror} is writing to {self.folder}; wait until it has finished, or "
                "choose another folder",
            ) from None
        self._is_locked = True
        refuse_existing(self.folder)
        if self._is_alone and not self.complete_shards():
            # A capture that was killed before its first shard left nothing worth keeping.
            shutil.rmtree(self.place, ignore_errors=True)
        self.shards.mkdir(parents=True, exist_ok=True)
        if (self.place / layout.PLAN).exists():
            self._compare_plan(self.place)
        elif self.complete_shards():
            raise InputError(
                "AS652",
                f"{self.place} has shards but no {layout.PLAN}; remove it and capture again",
            )
        else:
            write_bytes(self.place / layout.PLAN, self._plan_file)
        if self._is_alone:
            self.remove_leftovers()

    def join(self) -> None:
        """Wait for the plan of the main process, as any other process does.

        Raises:
            InputError: It differs from the plan of this process.
        """
        wait_for_plan(self.folder)
        self._compare_plan(self.place if self.place.exists() else self.folder)

    def _compare_plan(self, folder: Path) -> None:
        found = read_json(folder / layout.PLAN)
        if found == self._plan:
            return
        found = found if isinstance(found, dict) else {}
        raise InputError(
            "AS653",
            f"{folder} was started with other settings ({differences(found, self._plan)}); "
            "capture with the same settings, or remove that folder to start over",
        )

    def has_shard(self, index: int) -> bool:
        """Return whether a shard is complete, after checking its hashes.

        Raises:
            InputError: It belongs to another capture, or has changed.
        """
        folder = self.shards / shard_name(index)
        if not os.path.lexists(folder):
            return False
        shard = self.read_shard(folder)
        for name, expected in shard.sha256.items():
            try:
                changed = sha256_of(folder / name) != expected
            except OSError:
                changed = True
            if changed:
                raise InputError(
                    "AS654",
                    f"{folder / name} has changed since it was written (SHA-256); remove {folder} "
                    "and run the same command again",
                )
        return True

    def read_shard(self, folder: Path) -> Shard:
        """Return the description of a complete shard.

        Raises:
            InputError: The folder is not a shard, or is one of another recording.
        """
        remedy = f"remove {folder} and run the same command again"
        try:
            value = read_json(folder / layout.SHARD)
            of, index = value["of"], value["index"]
            shard = parse_shard(
                {"name": shard_name(index), "count": value["count"], "sha256": value["sha256"]}
            )
        except (InputError, KeyError, TypeError, ValueError):
            raise InputError("AS655", f"{folder} is not a shard of a recording; {remedy}") from None
        if of != self._plan_id or shard.name != folder.name:
            raise InputError("AS656", f"{folder} is a shard of another recording; {remedy}")
        return shard

    def complete_shards(self) -> list[Path]:
        """Return the folders of the complete shards, in the order of the images."""
        if not self.shards.is_dir():
            return []
        found = [path for path in self.shards.iterdir() if not path.name.startswith(".")]
        # Sort as numbers: from 100,000 shards on, the names are longer.
        return sorted(found, key=lambda path: (len(path.name), path.name))

    def remove_leftovers(self) -> None:
        """Remove files that a killed process had not finished."""
        for folder in (self.place, self.shards):
            for path in folder.glob(f".*{layout.PARTIAL_SUFFIX}"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Give the folder its final name.

        Raises:
            InputError: Another folder has that name by now.
        """
        self.remove_leftovers()
        refuse_existing(self.folder)  # a rename would replace an empty folder
        os.replace(self.place, self.folder)

    def close(self) -> None:
        """Release the lock, and remove the folder if it has no complete shard."""
        if self._is_locked and self._is_alone:
            self.remove_leftovers()
            if not self.complete_shards():
                shutil.rmtree(self.place, ignore_errors=True)
        self._lock.close()
        for parent in self._new_parents:  # innermost first; one that others filled stays
            with suppress(OSError):
                parent.rmdir()

    def with_advice(self, error: BaseException) -> BaseException:
        """Return an error that also says which shards are kept and how to resume.

        It is the same error if that does not matter.
        """
        count = len(self.complete_shards())
        kept = f"{count} complete {'shard is' if count == 1 else 'shards are'} kept in {self.place}"
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            what = f"{kept}: free some space and" if count else "free some space and"
            return OSError(
                error.errno,
                f"{error.strerror}; {what} run the same command again",
                str(self.folder),
            )
        if isinstance(error, KeyboardInterrupt) and count and not error.args:
            return KeyboardInterrupt(f"interrupted; {kept}: run the same command to resume")
        return error


def wait_until(missing: Callable[[], str]) -> None:
    """Wait until ``missing`` returns an empty string; report it on stderr once a minute."""
    reported = time.monotonic()
    while what := missing():
        if time.monotonic() - reported > _REPORT_SECONDS:
            print(f"attnscope: waiting for {what}", file=sys.stderr, flush=True)
            reported = time.monotonic()
        time.sleep(_POLL_SECONDS)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return the settings in which two plans differ: ``batch size 4, now 8; weights``.

    Args:
        found: The plan that was found.
        wanted: The plan of this call.
    """
    return "; ".join(dict.fromkeys(_differing(found, wanted)))


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    words = []
    for key in sorted({*found, *wanted}):
        there, here = found.get(key), wanted.get(key)
        if there == here:
            continue
        if key == "about" and isinstance(there, dict) and isinstance(here, dict):
            current = with_current_keys(there)
            words.extend([] if there == current else ["attnscope 0.1"])
            words.extend(_differing(current, here))
            continue
        what = key.removesuffix("_sha256").replace("_", " ")
        short = (isinstance(value, (int, float, str)) for value in (there, here))
        if all(short) and max(len(str(there)), len(str(here))) < 40:
            words.append(f"{what} {there}, now {here}")
        else:
            words.append(what)
    return words
