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
import re
import secrets
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays

from attnscope.errors import InputError, first_line
from attnscope.files import (
    DISK_ERRORS,
    locked,
    read_json,
    refuse_existing,
    write_bytes,
    write_json,
)
from attnscope.gate_info import Gate

FORMAT = 1
TARGETS = ("predicted", "true")
_ROW_COLUMNS = {"path": "str", "label": "int64", "prediction": "int64", "loss": "float64"}
_SHARD_FILES = ("arrays.safetensors", "rows.parquet")
_POLL = 0.1  # seconds between two looks at what other processes have written
_SPEAK = 60.0  # seconds after which a process that waits says for what
_HOLDS = {
    "recording": "a recording of every image; open it with attnscope.Recording",
    "moments": "moments, sums over the images of each class, and no single image; open it with "
    "attnscope.Moments, or capture without --moments",
}


@dataclass(frozen=True)
class Shard:
    """A stretch of images in index order."""

    name: str
    count: int
    sha256: dict[str, str]
    """File name -> SHA-256 in hexadecimal."""


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
        folder = self._shards / _name(index)
        if not os.path.lexists(folder):
            return False
        shard = self._read(folder)
        for name, expected in shard.sha256.items():
            try:
                changed = _sha256(folder / name) != expected
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
            left = sorted(set(map(_name, range(count))) - set(os.listdir(self._shards)))
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
        rows = rows[list(_ROW_COLUMNS)].astype(_ROW_COLUMNS)
        folder = self._shards / _name(index)
        part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
        try:
            part.mkdir()
            write_bytes(part / "arrays.safetensors", save_arrays(ordered))
            write_bytes(part / "rows.parquet", rows.to_parquet(index=False))
            hashes = {name: _sha256(part / name) for name in _SHARD_FILES}
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
            shard = _shard(
                {"name": _name(index), "count": value["count"], "sha256": value["sha256"]}
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
        gaps = sorted(set(map(_name, range(len(names)))) - set(names))
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


class ShardReader(ABC):
    """What a capture left in a folder: its rows and logits, and what is known of its gates."""

    kind: ClassVar[str]
    _place: ClassVar[str]
    """The folder of a run that holds what is of this kind."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens what was captured, or in a run folder what was captured of the test part.

        Raises:
            InputError: there is nothing, it is cut off, it is of another kind or format, or one of
                its files lies outside its folder.
        """
        folder = Path(folder)
        if not (folder / "manifest.json").is_file() and (folder / self._place / "test").is_dir():
            folder = folder / self._place / "test"
        if not (folder / "manifest.json").is_file():
            raise InputError(
                f"{folder} holds no {self.kind} (no manifest.json); make one with attnscope capture"
            )
        manifest = read_json(folder / "manifest.json")
        if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
            raise InputError(
                f"{folder} is of format {manifest['format']}, this attnscope reads {FORMAT}; "
                "capture again"
            )
        if isinstance(manifest, dict) and manifest.get("kind", "recording") != self.kind:
            holds = _HOLDS.get(str(manifest.get("kind", "recording")), "something else")
            raise InputError(f"{folder} holds {holds}")
        try:
            self.gates = [_gate(gate) for gate in _items(manifest["gates"], dict)]
            self.classes: list[str] = _items(manifest["classes"], str)
            self.grad_cam_layers: list[str] = _items(manifest["grad_cam_layers"], str)
            self.pooled_inputs: list[str] = _items(manifest.get("pooled_inputs", []), str)
            self.about: dict[str, Any] = dict(manifest["about"])
            self._shards = [_shard(shard) for shard in _items(manifest["shards"], dict)]
            self._count = sum(shard.count for shard in self._shards)
            self.id: str | None = manifest.get("id")
            """SHA-256 of ``plan.json``; None of a recording of attnscope before it had one."""
            if not self._shards or self._count != manifest["count"]:
                raise ValueError("the counts of its shards do not add up")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / 'manifest.json'} is no manifest of a recording "
                f"({first_line(error)}); capture again"
            ) from None
        self.folder = folder
        tables = [self._read_rows(shard) for shard in self._shards]
        self.rows: pd.DataFrame = pd.concat(tables, ignore_index=True)
        """One row an image: path, label, prediction, loss."""

    def __len__(self) -> int:
        return self._count

    @property
    def name(self) -> str:
        """What figures call the network: the run's name, else the folder's."""
        return str(self.about.get("name") or self.folder.resolve().name)

    @property
    def labels(self) -> NDArray[np.int64]:
        """True classes, ``(N,)``, indices into ``classes``."""
        return self.rows["label"].to_numpy()

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Predicted classes, ``(N,)``."""
        return self.rows["prediction"].to_numpy()

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is the true class, ``(N,)``; its mean is the accuracy."""
        right: NDArray[np.bool_] = self.predictions == self.labels
        return right

    @property
    def logits(self) -> NDArray[np.float32]:
        """``(N, K)``"""
        return self._array("logits")

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, ``(N, K)``."""
        logits = self.logits.astype(np.float64)
        exp = np.exp(logits - logits.max(1, keepdims=True))
        result: NDArray[np.float64] = exp / exp.sum(1, keepdims=True)
        return result

    def info(self, gate: str) -> Gate:
        """What is known of the gate of that name.

        Raises:
            InputError: there is none.
        """
        for known in self.gates:
            if known.name == gate:
                return known
        names = ", ".join(g.name for g in self.gates) or "none at all"
        raise InputError(f"{self.folder} has no gate '{gate}'; it has {names}")

    def gates_of_kind(self, kind: str) -> list[Gate]:
        """The gates of one kind, in the order in which they act."""
        return [gate for gate in self.gates if gate.kind == kind]

    def verify(self) -> list[str]:
        """What is wrong with the files, one line each: hashes, counts, ranges. Empty is well."""
        # Ranges of damaged files say nothing more.
        return self._verify_files() or [*self._verify_values(), *self._verify_rows()]

    def _verify_files(self) -> list[str]:
        found = []
        if self.id is not None:
            try:
                if _sha256(self.folder / "plan.json") != self.id:
                    found.append(
                        f"{self.folder / 'plan.json'} has changed since it was written (SHA-256)"
                    )
                else:
                    found += self._differences_from_plan()
            except OSError as error:
                found.append(f"{self.folder / 'plan.json'} is missing ({error.strerror})")
        known = {shard.name for shard in self._shards}
        for path in sorted((self.folder / "shards").iterdir()):
            # Hidden files are what systems leave behind.
            if path.name not in known and not path.name.startswith("."):
                found.append(f"{path} is no shard of this recording")
        for index, shard in enumerate(self._shards):
            if self.id is not None and not self._is_ours(index, shard):
                found.append(
                    f"{self.folder / 'shards' / shard.name} is a shard of another recording"
                )
                continue
            for name, expected in shard.sha256.items():
                try:
                    if _sha256(self._file(shard, name)) != expected:
                        found.append(
                            f"{self._file(shard, name)} has changed since it was written (SHA-256)"
                        )
                except OSError as error:
                    found.append(f"{self._file(shard, name)} is missing ({error.strerror})")
        return found

    def _differences_from_plan(self) -> list[str]:
        """What the manifest, which is read, says otherwise than the plan, whose hash is kept."""
        plan = read_json(self.folder / "plan.json")
        manifest = read_json(self.folder / "manifest.json")
        keys = ("format", "kind", "classes", "gates", "grad_cam_layers", "about", "pooled_inputs")
        return [
            f"{self.folder / 'manifest.json'} has other {key} than were captured"
            for key in keys
            if plan.get(key) != manifest.get(key)
        ]

    def _rounding(self, gate: Gate) -> float:
        """How far a gate may lie beyond its bounds for the precision in which it multiplied."""
        precision = 2.0**-7 if self.about.get("precision") == "bf16" else 1e-6
        return precision * max(abs(gate.lo), abs(gate.hi))

    def _is_ours(self, index: int, shard: Shard) -> bool:
        try:
            value = read_json(self._file(shard, "shard.json"))
        except InputError:
            return False
        return isinstance(value, dict) and (value.get("of"), value.get("index")) == (
            self.id,
            index,
        )

    @abstractmethod
    def _verify_values(self) -> list[str]:
        """What is wrong with the arrays, one line each."""

    def _verify_rows(self) -> list[str]:
        found = []
        for column in ("label", "prediction"):
            foreign = int((~self.rows[column].between(0, len(self.classes) - 1)).sum())
            if foreign:
                found.append(f"{foreign} values of the column {column} are no class")
        return found

    def _expect_kind(self, name: str, kind: str) -> None:
        found = self.info(name).kind
        if found != kind:
            raise InputError(f"gate '{name}' is of kind {found}, not {kind}")

    def _expect_grad_cam(self, layer: str | None, target: str) -> str:
        """The layer that is meant (default: the last one), if it was recorded."""
        if target not in TARGETS:
            raise InputError(
                f"Grad-CAM target '{target}' is not known; take {' or '.join(TARGETS)}"
            )
        if layer is None and self.grad_cam_layers:
            layer = self.grad_cam_layers[-1]
        if layer not in self.grad_cam_layers:
            known = ", ".join(self.grad_cam_layers) or "none"
            raise InputError(f"{self.folder} has no Grad-CAM of '{layer}'; it has {known}")
        return layer

    def _file(self, shard: Shard, name: str) -> Path:
        file = self.folder / "shards" / shard.name / name
        if not file.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{file} leads outside the recording; replace the link by the file")
        return file

    def _read_rows(self, shard: Shard) -> pd.DataFrame:
        file = self._file(shard, "rows.parquet")
        try:
            rows = pd.read_parquet(file)[list(_ROW_COLUMNS)].astype(_ROW_COLUMNS)
            if len(rows) != shard.count:
                raise ValueError(f"{len(rows)} rows instead of {shard.count}")
        except Exception as error:  # pyarrow raises OSError, ArrowInvalid and others
            raise InputError(
                f"{file} cannot be read ({first_line(error)}); capture again"
            ) from None
        return rows

    def _array(self, key: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Rows of an array that has one for each image."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows of a recording are read in steps of 1")
        pieces: list[NDArray[Any]] = []
        first = 0
        for shard in self._shards:
            low, high = max(start - first, 0), min(stop - first, shard.count)
            first += shard.count
            if low < high:
                pieces.append(self._piece(shard, key, slice(low, high)))
        if not pieces:  # no row was asked for: the shape of an image and the type are known still
            return self._piece(self._shards[0], key, slice(0, 0))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _piece(self, shard: Shard, key: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Rows of one shard's array, whatever a row of it is."""
        file = self._file(shard, "arrays.safetensors")
        try:
            with safe_open(file, framework="numpy") as arrays:
                piece: NDArray[Any] = arrays.get_slice(key)[rows.start : rows.stop]
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} cannot be read ({first_line(error)}); capture again"
            ) from None
        return piece


def captured_kind(folder: Path) -> str:
    """``moments`` where the manifest says so; else ``recording``, also where there is none."""
    for place in (folder, folder / "recordings" / "test"):
        if (place / "manifest.json").is_file():
            manifest = read_json(place / "manifest.json")
            return str(manifest.get("kind")) if isinstance(manifest, dict) else "recording"
    return "recording"


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


def _name(index: int) -> str:
    return f"{index:05d}"


def _items(value: Any, kind: type) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise TypeError(f"{value!r:.40} is no list of {kind.__name__}")
    return value


def _gate(value: dict[str, Any]) -> Gate:
    gate = Gate(**{**value, "grid": tuple(value["grid"]) if value["grid"] else None})
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
    for field in fields(Gate):  # their annotations are strings
        if not isinstance(getattr(gate, field.name), kinds.get(str(field.type), (object,))):
            raise TypeError(f"{field.name} of a gate is {getattr(gate, field.name)!r:.40}")
    return gate


def _shard(value: dict[str, Any]) -> Shard:
    shard = Shard(**value)
    # The name becomes a path: only what the writer makes is one.
    if not isinstance(shard.name, str) or not re.fullmatch(r"\d{5,}", shard.name, re.ASCII):
        raise ValueError(f"{shard.name!r:.40} is no name of a shard")
    if not isinstance(shard.count, int) or shard.count < 1:
        raise ValueError(f"shard {shard.name} counts {shard.count!r:.40} images")
    if not isinstance(shard.sha256, dict) or sorted(shard.sha256) != sorted(_SHARD_FILES):
        raise ValueError(f"shard {shard.name} has no hashes of {' and '.join(_SHARD_FILES)}")
    return shard


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
