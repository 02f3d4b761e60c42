"""The Recording: what one network did on one data set, in files that need no torch to be read.

A recording is a folder with ``manifest.json`` and immutable shards ``shards/00000`` and so on. Each
shard holds ``arrays.safetensors`` and ``rows.parquet``; the manifest holds their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays

from attnscope.errors import InputError
from attnscope.files import new_folder, read_json, write_bytes, write_json
from attnscope.gate_info import Gate

FORMAT = 1
_ROW_COLUMNS = {"path": "str", "label": "int64", "prediction": "int64", "loss": "float64"}
_SHARD_FILES = ("arrays.safetensors", "rows.parquet")
TARGETS = ("predicted", "true")


@dataclass(frozen=True)
class Shard:
    """A stretch of images in index order."""

    name: str
    count: int
    sha256: dict[str, str]
    """File name -> SHA-256 in hexadecimal."""


class RecordingWriter:
    """Fills a recording shard by shard; it appears under its name when ``with`` ends well.

    Raises:
        InputError: the folder exists already.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gates: list[Gate],
        classes: list[str],
        grad_cam_layers: list[str],
        about: Mapping[str, Any],
    ) -> None:
        self._gates, self._classes, self._layers = gates, classes, grad_cam_layers
        self._about = dict(about)
        json.dumps(self._about, allow_nan=False)  # what cannot be written is said before the work
        self._target = new_folder(folder)
        self._shards: list[Shard] = []

    def __enter__(self) -> RecordingWriter:
        self._folder = self._target.__enter__()
        (self._folder / "shards").mkdir()
        return self

    def add_shard(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        """Writes one shard.

        Args:
            arrays: ``gate/NAME`` (float32, ``(n, C)`` or ``(n, H, W)``),
                ``grad_cam/LAYER/predicted`` and ``.../true`` (float16, signed, ``(n, h, w)``),
                ``logits`` (float32, ``(n, K)``), ``images`` (uint8, ``(n, H, W, 3)``).
            rows: columns path, label, prediction and loss, one row an image.

        Raises:
            ValueError: there is no image, an array has another number of images than ``rows``, or a
                gate is missing or not float32.
        """
        counts = {key: len(value) for key, value in arrays.items() if len(value) != len(rows)}
        if len(rows) == 0 or counts:
            raise ValueError(f"a shard of {len(rows)} rows cannot hold arrays of {counts}")
        for gate in self._gates:
            values = arrays.get(f"gate/{gate.name}")
            if values is None or values.dtype != np.float32:
                raise ValueError(f"a shard needs gate/{gate.name} in float32")
        name = f"{len(self._shards):05d}"
        folder = self._folder / "shards" / name
        folder.mkdir()
        ordered = {key: np.ascontiguousarray(value) for key, value in sorted(arrays.items())}
        write_bytes(folder / "arrays.safetensors", save_arrays(ordered))
        rows = rows[list(_ROW_COLUMNS)].astype(_ROW_COLUMNS)
        write_bytes(folder / "rows.parquet", rows.to_parquet(index=False))
        hashes = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
        self._shards.append(Shard(name, len(rows), hashes))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._write_manifest()
        except BaseException:
            self._target.__exit__(*sys.exc_info())
            raise
        self._target.__exit__(kind, error, trace)

    def _write_manifest(self) -> None:
        if not self._shards:
            raise InputError("no image was recorded; a recording needs one at least")
        write_json(
            self._folder / "manifest.json",
            {
                "format": FORMAT,
                "count": sum(shard.count for shard in self._shards),
                "classes": self._classes,
                "gates": [asdict(gate) for gate in self._gates],
                "grad_cam_layers": self._layers,
                "about": self._about,
                "shards": [asdict(shard) for shard in self._shards],
            },
        )


class Recording:
    """What one network did on one data set.

    Arrays come from memory-mapped files; each call reads what it returns and nothing else.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens a recording, or the recording of the test part in a run folder.

        Raises:
            InputError: there is no recording, it is cut off, it is of another format, or one of
                its files lies outside its folder.
        """
        folder = Path(folder)
        if not (folder / "manifest.json").is_file() and (folder / "recordings/test").is_dir():
            folder = folder / "recordings" / "test"
        if not (folder / "manifest.json").is_file():
            raise InputError(
                f"{folder} holds no recording (no manifest.json); make one with attnscope capture"
            )
        manifest = read_json(folder / "manifest.json")
        if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
            raise InputError(
                f"{folder} is of format {manifest['format']}, this attnscope reads {FORMAT}; "
                "capture again"
            )
        try:
            self.gates = [_gate(gate) for gate in _items(manifest["gates"], dict)]
            self.classes: list[str] = _items(manifest["classes"], str)
            self.grad_cam_layers: list[str] = _items(manifest["grad_cam_layers"], str)
            self.about: dict[str, Any] = dict(manifest["about"])
            self._shards = [_shard(shard) for shard in _items(manifest["shards"], dict)]
            self._count = sum(shard.count for shard in self._shards)
            if not self._shards or self._count != manifest["count"]:
                raise ValueError("the counts of its shards do not add up")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / 'manifest.json'} is no manifest of a recording "
                f"({_first_line(error)}); capture again"
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

    def gate(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """A gate of any kind: ``(N, C)`` for a channel gate, ``(N, H, W)`` for a spatial one."""
        self.info(name)
        return self._array(f"gate/{name}", rows)

    def channel(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """A channel gate, ``(N, C)``.

        Raises:
            InputError: there is no such gate, or it is of another kind.
        """
        self._expect_kind(name, "channel")
        return self.gate(name, rows)

    def spatial(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """A spatial gate, ``(N, H, W)``.

        Raises:
            InputError: there is no such gate, or it is of another kind.
        """
        self._expect_kind(name, "spatial")
        return self.gate(name, rows)

    def gates_of_kind(self, kind: str) -> list[Gate]:
        """The gates of one kind, in the order in which they act."""
        return [gate for gate in self.gates if gate.kind == kind]

    def grad_cam(
        self, layer: str | None = None, target: str = "predicted", rows: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Signed Grad-CAM before its ReLU, ``(N, h, w)``, of the layer (default: the last one).

        Raises:
            InputError: the layer or the target was not recorded.
        """
        if target not in TARGETS:
            raise InputError(
                f"Grad-CAM target '{target}' is not known; take {' or '.join(TARGETS)}"
            )
        if layer is None and self.grad_cam_layers:
            layer = self.grad_cam_layers[-1]
        if layer not in self.grad_cam_layers:
            known = ", ".join(self.grad_cam_layers) or "none"
            raise InputError(f"{self.folder} has no Grad-CAM of '{layer}'; it has {known}")
        return self._array(f"grad_cam/{layer}/{target}", rows).astype(np.float32)

    def image(self, i: int) -> NDArray[np.uint8]:
        """The picture of image ``i``, ``(H, W, 3)``."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        picture: NDArray[np.uint8] = self._array("images", slice(i, i + 1))[0]
        return picture

    def verify(self) -> list[str]:
        """What is wrong with the files, one line each: hashes, counts, ranges. Empty is well."""
        found = []
        for shard in self._shards:
            for name, expected in shard.sha256.items():
                try:
                    if _sha256(self._file(shard, name)) != expected:
                        found.append(
                            f"{self._file(shard, name)} has changed since it was written (SHA-256)"
                        )
                except OSError as error:
                    found.append(f"{self._file(shard, name)} is missing ({error.strerror})")
        if found:
            return found  # ranges of damaged files say nothing more
        keys = [f"gate/{gate.name}" for gate in self.gates]
        keys += [f"grad_cam/{n}/{target}" for n in self.grad_cam_layers for target in TARGETS]
        bounds = {f"gate/{gate.name}": (gate.lo, gate.hi) for gate in self.gates}
        for key in [*keys, "logits", "images"]:
            try:
                values = self._array(key)
            except (InputError, ValueError) as error:  # a missing array; shards of other shapes
                found.append(f"{key}: {error}")
                continue
            low, high = bounds.get(key, (-np.inf, np.inf))
            outside = int((~((values >= low) & (values <= high) & np.isfinite(values))).sum())
            if outside:
                found.append(f"{key}: {outside} values not finite or not in {low} to {high}")
        for column in ("label", "prediction"):
            foreign = int((~self.rows[column].between(0, len(self.classes) - 1)).sum())
            if foreign:
                found.append(f"{foreign} values of the column {column} are no class")
        return found

    def _expect_kind(self, name: str, kind: str) -> None:
        found = self.info(name).kind
        if found != kind:
            raise InputError(f"gate '{name}' is of kind {found}, not {kind}")

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
                f"{file} cannot be read ({_first_line(error)}); capture again"
            ) from None
        return rows

    def _array(self, key: str, rows: slice = slice(None)) -> NDArray[Any]:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows of a recording are read in steps of 1")
        pieces: list[NDArray[Any]] = []
        first = 0
        for shard in self._shards:
            low, high = max(start - first, 0), min(stop - first, shard.count)
            first += shard.count
            if low < high:
                pieces.append(self._piece(shard, key, low, high))
        if not pieces:  # no row was asked for: the shape of an image and the type are known still
            return self._piece(self._shards[0], key, 0, 0)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _piece(self, shard: Shard, key: str, low: int, high: int) -> NDArray[Any]:
        file = self._file(shard, "arrays.safetensors")
        try:
            with safe_open(file, framework="numpy") as arrays:
                piece: NDArray[Any] = arrays.get_slice(key)[low:high]
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} cannot be read ({_first_line(error)}); capture again"
            ) from None
        return piece


def find_recordings(folder: Path) -> list[Path]:
    """Folders of the recordings in a folder of runs, a run or a recording, sorted; none is opened.

    Raises:
        InputError: there is none, or one lies behind a link that leads outside.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist; check the path")
    found = sorted(
        file.parent
        for pattern in (
            "manifest.json",
            "*/manifest.json",
            "recordings/*/manifest.json",
            "*/recordings/*/manifest.json",
        )
        for file in folder.glob(pattern)
        if not file.parent.name.startswith(".")  # left by a capture that was killed
    )
    if not found:
        raise InputError(f"{folder} holds no recording; make one with attnscope capture RUN")
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} leads outside {folder}; open the folder where it lies")
    return found


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
