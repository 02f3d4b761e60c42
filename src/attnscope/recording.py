"""The Recording: what one network did on one data set, in files that need no torch to be read.

A recording is a folder with ``manifest.json`` and immutable shards ``shards/00000`` and so on. Each
shard holds ``arrays.safetensors`` and ``rows.parquet``; the manifest holds their SHA-256.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
        self._target = new_folder(folder)
        self._shards: list[Shard] = []

    def __enter__(self) -> RecordingWriter:
        self._folder = self._target.__enter__()
        (self._folder / "shards").mkdir()
        return self

    def add_shard(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        """Writes one shard.

        Args:
            arrays: ``gate/NAME`` (float32, ``(n, C)`` or ``(n, H, W)``), ``grad_cam/LAYER/predicted``
                and ``.../true`` (float16, signed, ``(n, h, w)``), ``logits`` (float32, ``(n, K)``),
                ``images`` (uint8, ``(n, H, W, 3)``).
            rows: columns path, label, prediction and loss, one row an image.
        """
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
        if kind is None:
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
        self._target.__exit__(kind, error, trace)


class Recording:
    """What one network did on one data set.

    Arrays come from memory-mapped files; each call reads what it returns and nothing else.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens a recording, or the recording of the test part in a run folder.

        Raises:
            InputError: there is no recording, it is cut off, or it is of another format.
        """
        folder = Path(folder)
        if not (folder / "manifest.json").is_file() and (folder / "recordings/test").is_dir():
            folder = folder / "recordings" / "test"
        if not (folder / "manifest.json").is_file():
            raise InputError(
                f"{folder} holds no recording (no manifest.json); make one with attnscope capture"
            )
        manifest = read_json(folder / "manifest.json")
        try:
            if manifest["format"] != FORMAT:
                raise InputError(
                    f"{folder} is of format {manifest['format']}, this attnscope reads {FORMAT}; "
                    "capture again"
                )
            self.gates = [
                Gate(**{**gate, "grid": tuple(gate["grid"]) if gate["grid"] else None})
                for gate in manifest["gates"]
            ]
            self.classes: list[str] = manifest["classes"]
            self.grad_cam_layers: list[str] = manifest["grad_cam_layers"]
            self.about: dict[str, Any] = manifest["about"]
            self._shards = [Shard(**shard) for shard in manifest["shards"]]
            self._count: int = manifest["count"]
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / 'manifest.json'} is no manifest of a recording ({error}); capture again"
            ) from None
        self.folder = folder
        tables = [self._read_rows(shard) for shard in self._shards]
        self.rows: pd.DataFrame = pd.concat(tables, ignore_index=True)
        """One row an image: path, label, prediction, loss."""
        if len(self.rows) != self._count:
            raise InputError(
                f"{folder} has {len(self.rows)} rows, its manifest says {self._count}; capture again"
            )

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
    def logits(self) -> NDArray[np.float32]:
        """``(N, K)``"""
        return self._array("logits")

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, ``(N, K)``."""
        logits = self.logits.astype(np.float64)
        exp = np.exp(logits - logits.max(1, keepdims=True))
        return exp / exp.sum(1, keepdims=True)

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
            raise InputError(f"Grad-CAM target '{target}' is not known; take {' or '.join(TARGETS)}")
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
        return self._array("images", slice(i, i + 1))[0]

    def verify(self) -> list[str]:
        """What is wrong with the files, one line each: hashes, counts, ranges. Empty is well."""
        found = []
        for shard in self._shards:
            folder = self.folder / "shards" / shard.name
            for name, expected in shard.sha256.items():
                if not (folder / name).is_file():
                    found.append(f"{folder / name} is missing")
                elif _sha256(folder / name) != expected:
                    found.append(f"{folder / name} has changed since it was written (SHA-256)")
        if found:
            return found  # ranges of damaged files say nothing more
        for gate in self.gates:
            values = self.gate(gate.name)
            if len(values) != len(self):
                found.append(f"gate {gate.name} has {len(values)} images of {len(self)}")
            outside = ~((values >= gate.lo) & (values <= gate.hi))  # NaN is outside, too
            if outside.any():
                found.append(f"gate {gate.name} has {outside.sum()} values outside its bounds")
        if not np.isfinite(self.logits).all():
            found.append("some logits are not finite")
        if not self.rows["label"].between(0, len(self.classes) - 1).all():
            found.append("some labels are no class")
        return found

    def _expect_kind(self, name: str, kind: str) -> None:
        found = self.info(name).kind
        if found != kind:
            raise InputError(f"gate '{name}' is of kind {found}, not {kind}")

    def _read_rows(self, shard: Shard) -> pd.DataFrame:
        file = self.folder / "shards" / shard.name / "rows.parquet"
        try:
            return pd.read_parquet(file)[list(_ROW_COLUMNS)]
        except Exception as error:  # pyarrow raises OSError, ArrowInvalid and others
            raise InputError(f"{file} cannot be read ({_first_line(error)}); capture again") from None

    def _array(self, key: str, rows: slice = slice(None)) -> NDArray[Any]:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows of a recording are read in steps of 1")
        pieces, first = [], 0
        for shard in self._shards:
            low, high = max(start - first, 0), min(stop - first, shard.count)
            first += shard.count
            if low >= high:
                continue
            file = self.folder / "shards" / shard.name / "arrays.safetensors"
            try:
                with safe_open(file, framework="numpy") as arrays:
                    pieces.append(arrays.get_slice(key)[low:high])
            except (SafetensorError, OSError) as error:
                raise InputError(f"{file} cannot be read ({_first_line(error)}); capture again") from None
        if not pieces:
            raise InputError(f"rows {start} to {stop} of {self.folder} hold no image")
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def open_recordings(folder: Path) -> list[Recording]:
    """Every recording in a folder of runs, or below it, sorted by path.

    Raises:
        InputError: there is none.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist; check the path")
    found = sorted(
        file.parent
        for pattern in ("manifest.json", "*/manifest.json", "*/recordings/*/manifest.json",
                        "recordings/*/manifest.json")
        for file in folder.glob(pattern)
    )
    if not found:
        raise InputError(f"{folder} holds no recording; make one with attnscope capture RUN")
    return [Recording(path) for path in found]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
