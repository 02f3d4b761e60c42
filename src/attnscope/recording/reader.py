"""Open a folder of shards: its rows, its logits, what is known of its gates."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.kinds import KINDS, Gate
from attnscope.recording.attributed import Attributions
from attnscope.recording.format import (
    FORMAT,
    ROW_COLUMNS,
    TARGETS,
    Shard,
    parse_gate,
    parse_items,
    parse_shard,
    shard_file,
)
from attnscope.recording.places import captured_in, is_captured
from attnscope.recording.reopening import find_source, open_images, open_network
from attnscope.recording.verification import verify_files, verify_rows

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages
    from attnscope.sources import Module, Source


_HOLDS = {
    "recording": "a recording of every image; open it with attnscope.Recording",
    "moments": "moments, sums over the images of each class, and no single image; open it with "
    "attnscope.Moments, or capture without --moments",
}


class ShardReader(ABC):
    """What a capture left in a folder: its rows and logits, and what is known of its gates."""

    kind: ClassVar[str]
    _place: ClassVar[str]
    """The folder of a run that holds what is of this kind."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens what was captured, or in a run folder what was captured of the test split.

        Raises:
            InputError: there is nothing, it is cut off, it is of another kind or format, or one of
                its files lies outside its folder.
        """
        folder = captured_in(Path(folder), self._place)
        if not is_captured(folder):
            raise InputError(
                f"{folder} holds no {self.kind} (no {layout.MANIFEST}); make one with attnscope "
                "capture"
            )
        manifest = read_json(folder / layout.MANIFEST)
        if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
            raise InputError(
                f"{folder} is of format {manifest['format']}, this attnscope reads {FORMAT}; "
                "capture again"
            )
        if isinstance(manifest, dict) and manifest.get("kind", "recording") != self.kind:
            holds = _HOLDS.get(str(manifest.get("kind", "recording")), "something else")
            raise InputError(f"{folder} holds {holds}")
        try:
            self.gates = [parse_gate(gate) for gate in parse_items(manifest["gates"], dict)]
            self.classes: list[str] = parse_items(manifest["classes"], str)
            self.grad_cam_layers: list[str] = parse_items(manifest["grad_cam_layers"], str)
            self.pooled_inputs: list[str] = parse_items(manifest.get("pooled_inputs", []), str)
            known = manifest.get("attributions")
            self.attributions = Attributions() if known is None else Attributions.from_dict(known)
            """Attribution methods beside Grad-CAM, and of how many images."""
            self.about: dict[str, Any] = dict(manifest["about"])
            self._source: object = manifest.get("source")
            self._shards = [parse_shard(shard) for shard in parse_items(manifest["shards"], dict)]
            self._count = sum(shard.count for shard in self._shards)
            self.id: str | None = manifest.get("id")
            """SHA-256 of ``plan.json``; None of a recording of attnscope before it had one."""
            if not self._shards or self._count != manifest["count"]:
                raise ValueError("the counts of its shards do not add up")
        except InputError as error:  # a kind of gate that is not registered here
            raise InputError(f"{folder} cannot be opened: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / layout.MANIFEST} is no manifest of a recording "
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

    def gates_with(self, trait: str) -> list[Gate]:
        """The gates whose kind has a trait of `attnscope.kinds`, in the order in which they act."""
        return [gate for gate in self.gates if gate.has(trait)]

    def verify(self) -> list[str]:
        """What is wrong with the files, one line each: hashes, counts, ranges. Empty is well."""
        # Ranges of damaged files say nothing more.
        return verify_files(self.folder, self.id, self._shards) or [
            *self._verify_values(),
            *verify_rows(self.rows, len(self.classes)),
        ]

    def source(self, data_root: Path | None = None) -> Source:
        """Where the network and the images are: in the run around it, or as it was captured.

        Args:
            data_root: where torchvision's sets lie now, if not where they lay.

        Raises:
            InputError: it is not known, as of what was captured from Python.
        """
        return find_source(self.folder, self.about, self._source, data_root)

    def network(self) -> Module:
        """The network that was captured, in eval mode on the CPU; needs torch.

        Of ``package.module:callable`` the user's own code runs, as it did for the capture.

        Raises:
            InputError: it cannot be found any more, or it has other weights now.
        """
        return open_network(self.folder, self.source())

    def images(self, data_root: Path | None = None) -> LabeledImages:
        """The images that were captured, in the order of the rows, not normalized; needs torch.

        Args:
            data_root: of `source`.

        Raises:
            InputError: they cannot be found any more, or they are others now.
        """
        return open_images(self.folder, self.source(data_root))

    def _rounding(self, gate: Gate) -> float:
        """How far a gate may lie beyond its bounds for the precision in which it multiplied."""
        precision = 2.0**-7 if self.about.get("precision") == "bf16" else 1e-6
        return precision * max(abs(gate.lo), abs(gate.hi))

    @abstractmethod
    def _verify_values(self) -> list[str]:
        """What is wrong with the arrays, one line each."""

    def _expect_trait(self, name: str, trait: str) -> None:
        gate = self.info(name)
        if not gate.has(trait):
            wanted = " or ".join(k.name for k in KINDS.values() if trait in k.traits)
            raise InputError(f"gate '{name}' is of kind {gate.kind}, not {wanted}")

    def _expect_target(self, target: str) -> None:
        if target not in TARGETS:
            raise InputError(
                f"Grad-CAM target '{target}' is not known; take {' or '.join(TARGETS)}"
            )

    def _expect_grad_cam(self, layer: str | None, target: str) -> str:
        """The layer that is meant (default: the last one), if it was recorded."""
        self._expect_target(target)
        if layer is None and self.grad_cam_layers:
            layer = self.grad_cam_layers[-1]
        if layer not in self.grad_cam_layers:
            known = ", ".join(self.grad_cam_layers) or "none"
            raise InputError(f"{self.folder} has no Grad-CAM of '{layer}'; it has {known}")
        return layer

    def _read_rows(self, shard: Shard) -> pd.DataFrame:
        file = shard_file(self.folder, shard, layout.ROWS)
        try:
            rows = pd.read_parquet(file)[list(ROW_COLUMNS)].astype(ROW_COLUMNS)
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
        file = shard_file(self.folder, shard, layout.ARRAYS)
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
    folder = captured_in(folder, layout.RECORDINGS)
    manifest = read_json(folder / layout.MANIFEST) if is_captured(folder) else {}
    return (
        "moments"
        if isinstance(manifest, dict) and manifest.get("kind") == "moments"
        else "recording"
    )
