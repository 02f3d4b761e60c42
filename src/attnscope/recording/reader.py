"""Open a folder of shards: its rows, its logits, and the description of its gates.

This file has more than 400 lines, because opening, checking and reading shards belong together.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from attnscope import layout
from attnscope.data.label_kinds import CLASS, without_classes
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.hashes import verify_hash
from attnscope.integrity import open_regular
from attnscope.kinds import KINDS, PER_CHANNEL, Gate, gate_table
from attnscope.notebook import html_details, html_page, html_properties, number_of
from attnscope.recording.attributed import Attributions
from attnscope.recording.format import (
    FORMAT,
    ROW_COLUMNS,
    TARGETS,
    Shard,
    distinct_classes,
    expect_own_file,
    parse_gate,
    parse_items,
    parse_shard,
    shard_file,
    targets_of_labels,
    with_current_keys,
)
from attnscope.recording.labeled import expect_class_labels
from attnscope.recording.places import (
    capture_again,
    captured_in,
    enclosing_run,
    is_captured,
    no_recording,
)
from attnscope.recording.preparation import describe_preparation
from attnscope.recording.reopening import find_source, open_images, open_network
from attnscope.recording.rows import ALL_ROWS, Rows, consecutive, row_numbers
from attnscope.recording.verification import verify_files, verify_rows
from attnscope.shapes import Array

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages
    from attnscope.sources import Dataset, Module, Source


_DESCRIPTIONS = {
    "recording": "a recording of every image; open it with attnscope.Recording",
    "moments": "moments, which are sums over the images of each class; open it with "
    "attnscope.Moments, or capture again without --moments",
}
_OPTIONS = {"recording": "", "moments": "--moments"}
_LISTED_GATES = 8  # a message lists all gates of a network that has no more
_ROWS = 1024  # of which probabilities are computed at a time


class ShardReader(ABC):
    """What a capture wrote to a folder: its rows and logits, and the description of its gates.

    Iterating over it yields its gates, and ``name in recording`` says whether it has a gate of that
    name. Its length is the number of images.
    """

    kind: ClassVar[str]
    _place: ClassVar[str]
    """The subfolder of a run folder that holds folders of this kind."""

    def __init__(self, folder: str | os.PathLike[str], *, read_rows: bool = True) -> None:
        """Open a recording or moments; in a run folder, those of the test split.

        Args:
            folder: The recording or moments, or a run folder.
            read_rows: Whether the rows are read at once. Otherwise only their number is checked
                now, and they are read when they are first used: for lists of many recordings.

        Raises:
            InputError: The folder holds none, is incomplete, is of another kind or format, or one
                of its files lies outside the folder.
        """
        folder = captured_in(Path(folder), self._place)
        if not is_captured(folder):
            raise no_recording(folder, self.kind, _OPTIONS[self.kind])
        manifest = read_json(expect_own_file(folder, folder / layout.MANIFEST))
        if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
            raise InputError(
                "AS602",
                f"{folder} has format {manifest['format']}, and this version of attnscope reads "
                f"format {FORMAT}; update attnscope, or {capture_again(folder)}",
            )
        if isinstance(manifest, dict) and manifest.get("kind", "recording") != self.kind:
            kind = str(manifest.get("kind", "recording"))
            holds = _DESCRIPTIONS.get(kind, "neither a recording nor moments; check the path")
            raise InputError("AS603", f"{folder} holds {holds}")
        try:
            self.gates = [parse_gate(gate) for gate in parse_items(manifest["gates"], dict)]
            """The gates, in the order in which they act."""
            self.classes: list[str] = distinct_classes(parse_items(manifest["classes"], str))
            """Names of the classes, by label. Equal names are followed by their labels."""
            self.grad_cam_layers: list[str] = parse_items(manifest["grad_cam_layers"], str)
            """Paths of the modules whose Grad-CAM was recorded."""
            self.pooled_inputs: list[str] = parse_items(manifest.get("pooled_inputs", []), str)
            """Names of the gates whose pooled input was recorded."""
            known = manifest.get("attributions")
            self.attributions = Attributions() if known is None else Attributions.from_dict(known)
            """Attribution methods besides Grad-CAM, and the number of images that have maps."""
            self.label_kind = str(manifest.get("label_kind", CLASS))
            """What the labels are: ``class``, ``multi-label``, ``value``, ``other`` or ``none``."""
            self.about: dict[str, Any] = with_current_keys(dict(manifest["about"]))
            """Facts about the capture: name, source, split, seed, model, precision and others."""
            self.output: dict[str, Any] = dict(manifest.get("output") or {})
            """How the class scores were taken from what the network returns (its path, function
            and form); empty if it returns logits and nothing else."""
            self._source: object = manifest.get("source")
            self._keys = list(manifest)
            self._images_sha256: object = manifest.get("images_sha256")
            self._shards = [parse_shard(shard) for shard in parse_items(manifest["shards"], dict)]
            self._count = sum(shard.count for shard in self._shards)
            self.id: str | None = manifest.get("id")
            """SHA-256 of ``plan.json``; None for recordings of versions that wrote no plan."""
            if not self._shards or self._count != manifest["count"]:
                raise ValueError(
                    f"its count is {manifest['count']}, and its shards have {self._count} images"
                )
        except InputError as error:  # the kind of a gate is not registered here
            raise InputError("AS605", f"{folder} cannot be opened: {first_line(error)}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "AS604",
                f"{folder / layout.MANIFEST} is not a valid manifest ({first_line(error)}); "
                f"{capture_again(folder)}",
            ) from None
        self.folder = folder
        if read_rows:
            self.rows  # noqa: B018 - reads them
        else:
            for shard in self._shards:
                self._count_rows(shard)
        if not self.classes and not self.has_scores:  # nobody has named the classes of the labels
            self.classes = [str(k) for k in range(int(self.rows["label"].max()) + 1)]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row per image: path, label, prediction, loss."""
        tables = [self._read_rows(shard) for shard in self._shards]
        return pd.concat(tables, ignore_index=True)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Gate]:
        return iter(self.gates)

    def __contains__(self, gate: object) -> bool:
        return any(gate in (known, known.name) for known in self.gates)

    def __repr__(self) -> str:
        facts = [
            number_of(len(self), "image"),
            number_of(len(self.classes), "class", "classes"),
            number_of(len(self.gates), "gate"),
            f"accuracy {self.right.mean():.1%}" if self.has_accuracy else self.no_accuracy,
        ]
        return f"<{type(self).__name__} {self._title()!r}: {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        kinds = [gate.kind for gate in self.gates]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        properties = [
            ("Images", f"{len(self):,}"),
            ("Classes", len(self.classes)),
            ("Accuracy", f"{self.right.mean():.1%}" if self.has_accuracy else self.no_accuracy),
            ("Gates", counts or "none"),
            ("Grad-CAM layers", ", ".join(self.grad_cam_layers) or "none"),
            ("Folder", self.folder),
        ]
        return html_page(
            f"{type(self).__name__} {self._title()}",
            html_properties(properties),
            html_details(number_of(len(self.gates), "gate"), gate_table(self.gates)),
        )

    def _title(self) -> str:
        return self.name if self.split is None else f"{self.name}/{self.split}"

    @property
    def name(self) -> str:
        """Name of the network in figures: that of the run, or else of the folder."""
        return str(self.about.get("name") or self.folder.resolve().name)

    @property
    def split(self) -> str | None:
        """The split that was recorded: ``train``, ``validation`` or ``test``; None if unknown."""
        split = self.about.get("split")
        return str(split) if split else None

    @property
    def has_scores(self) -> bool:
        """Whether the network gave class scores; without them there are no predictions."""
        return bool(self.output.get("scores", True))

    @property
    def has_accuracy(self) -> bool:
        """Whether predictions can be compared with labels (`right`): there are both."""
        return not self.no_accuracy

    @property
    def no_accuracy(self) -> str:
        """What is missing to compare predictions with labels, in a few words; empty if nothing."""
        if not self.has_scores:
            return "no class scores"
        return "" if self.label_kind == CLASS else without_classes(self.label_kind)

    @property
    def labels(self) -> Int64[Array, " images"]:
        """True classes, as indices into ``classes``.

        Raises:
            InputError: The images have no class labels.
        """
        self._expect_labels()
        return self.rows["label"].to_numpy()

    @property
    def predictions(self) -> Int64[Array, " images"]:
        """Predicted classes, as indices into ``classes``.

        Raises:
            InputError: The network gave no class scores.
        """
        self._expect_scores("predictions")
        return self.rows["prediction"].to_numpy()

    @property
    def right(self) -> Bool[Array, " images"]:
        """Whether each prediction is correct; the mean is the accuracy.

        Raises:
            InputError: The network gave no class scores, or the images have no class labels.
        """
        right: NDArray[np.bool_] = self.predictions == self.labels
        return right

    @property
    def logits(self) -> Float32[Array, "images classes"]:
        """Outputs of the network before the softmax.

        If the network returned something else, such as probabilities, this is what `output` says.

        Raises:
            InputError: The network gave no class scores.
        """
        self._expect_scores("logits")
        return self._array("logits")

    def logits_of(self, rows: Rows) -> Float32[Array, "*images classes"]:
        """Return the `logits` of some images; no others are read.

        Args:
            rows: The images.

        Raises:
            InputError: The network gave no class scores.
            IndexError: A row is out of range.
        """
        self._expect_scores("logits")
        return self._array("logits", rows)

    @property
    def probabilities(self) -> Float64[Array, "images classes"]:
        """Softmax of the logits.

        Raises:
            InputError: The network gave no class scores.
        """
        return _softmax(self.logits)

    @property
    def confidence(self) -> Float64[Array, " images"]:
        """Softmax probability of the predicted class; the probabilities are never held at once.

        Raises:
            InputError: The network gave no class scores.
        """
        predictions = self.predictions
        found = np.empty(len(self))
        for start in range(0, len(self), _ROWS):
            rows = slice(start, min(start + _ROWS, len(self)))
            probabilities = _softmax(self._stretch("logits", rows.start, rows.stop))
            found[rows] = probabilities[np.arange(len(probabilities)), predictions[rows]]
        return found

    def info(self, gate: str) -> Gate:
        """Return the description of a gate.

        Raises:
            InputError: There is no gate of that name.
        """
        for known in self.gates:
            if known.name == gate:
                return known
        names = [known.name for known in self.gates]
        if not names:
            hint = "it has no gates; capture a network that has some"
        elif len(names) <= _LISTED_GATES:
            hint = f"choose one of {', '.join(names)}"
        else:
            nearest = get_close_matches(str(gate), names, 3, 0.0)
            hint = f"the nearest of its {len(names)} gates are {', '.join(nearest)}"
        raise InputError("AS608", f"{self.folder} has no gate '{gate}'; {hint}")

    def gates_of_kind(self, kind: str) -> list[Gate]:
        """Return the gates of one kind, in the order in which they act."""
        return [gate for gate in self.gates if gate.kind == kind]

    def gates_with(self, trait: str) -> list[Gate]:
        """Return the gates that have a trait or a view of it, in the order in which they act.

        Args:
            trait: One of `attnscope.kinds.TRAITS`. A gate of another kind has the values of
                `PER_CHANNEL` or `MAP` by a mean (`Gate.view`).
        """
        return [gate for gate in self.gates if self._offers(gate, trait)]

    def _offers(self, gate: Gate, trait: str) -> bool:
        return gate.offers(trait)

    def verify(self) -> list[str]:
        """Check the files: hashes, counts and ranges of values.

        Returns:
            The problems, one line each with its code. Empty if there are none.
        """
        # Values of damaged files give no further information.
        files = verify_files(self.folder, self.id, self._shards, self._keys)
        if self._images_sha256 is not None:
            files += self._verify_images_file(str(self._images_sha256))
        return files or [
            *self._verify_values(),
            *verify_rows(self.rows, len(self.classes), self.label_kind, self.has_scores),
        ]

    def _verify_images_file(self, expected: str) -> list[str]:
        try:
            file = expect_own_file(self.folder, self.folder / layout.IMAGES)
        except InputError as error:
            return [str(error)]
        return verify_hash(file, expected)

    @property
    def has_source(self) -> bool:
        """Whether it is known where the network and the images are; they may have changed."""
        return enclosing_run(self.folder) is not None or isinstance(self._source, dict)

    @property
    def preparation(self) -> dict[str, str]:
        """Image size and normalization in words, as far as they are known."""
        return describe_preparation(self.folder, self._source)

    def source(self, data_root: Path | None = None, data: str | None = None) -> Source:
        """Return where the network and the images are: in the run, or where they were captured.

        Args:
            data_root: Folder of torchvision's data sets, if they have moved since the capture.
            data: The data source with the place where the images are now, such as
                ``folder:PATH``, if they have moved.

        Raises:
            InputError: It is unknown, as for a capture that was made from Python.
        """
        return find_source(self.folder, self.about, self._source, data_root, data)

    def network(self) -> Module:
        """Load the network that was captured, in eval mode on the CPU. Needs torch.

        A target ``package.module:callable`` runs the user's code, as it did for the capture.

        Raises:
            InputError: It no longer exists, or it now has other weights.
        """
        return open_network(self.folder, self.source())

    def images(
        self, data_root: Path | None = None, data: str | None = None
    ) -> LabeledImages | Dataset[Any]:
        """Load the images that were captured, in the order of the rows, not normalized.

        A data set that was given as ``package.module:callable`` is opened by the user's code. Needs
        torch.

        Args:
            data_root: As for `source`.
            data: As for `source`.

        Raises:
            InputError: They no longer exist, or they are other images now.
        """
        return open_images(self.folder, self.source(data_root, data))

    def _rounding(self, gate: Gate) -> float:
        """Return how far rounding may take a gate beyond its bounds."""
        precision = 2.0**-7 if self.about.get("precision") == "bf16" else 1e-6
        return precision * max(abs(gate.lo), abs(gate.hi))

    @abstractmethod
    def _verify_values(self) -> list[str]:
        """Check the arrays; return the problems, one line each."""

    def _expect_trait(self, name: str, trait: str) -> None:
        gate = self.info(name)
        if not self._offers(gate, trait):
            wanted = " or ".join(k.name for k in KINDS.values() if trait in k.traits)
            suitable = [known.name for known in self.gates_with(trait)]
            remedy = f"such as '{suitable[0]}'" if suitable else f"which {self.name} does not have"
            lacks = "channels" if trait == PER_CHANNEL else "positions"
            raise InputError(
                "AS609",
                f"gate '{name}' is of kind {gate.kind}, whose values here have no {lacks}; choose "
                f"a gate of kind {wanted}, or another with {lacks}, {remedy}",
            )

    def _expect_scores(self, what: str) -> None:
        if not self.has_scores:
            raise InputError(
                "AS618",
                f"{self.folder} has no {what}, because the network gave no class scores; if its "
                f"output has some, {capture_again(self.folder, '--output', 'OUTPUT')}",
            )

    def _expect_labels(self, what: str = "") -> None:
        expect_class_labels(self.folder, self.label_kind, what)

    def _expect_target(self, target: str) -> None:
        if target not in TARGETS:
            raise InputError(
                "AS610", f"the Grad-CAM target is '{target}'; it must be {' or '.join(TARGETS)}"
            )
        if target not in targets_of_labels(self.label_kind):
            self._expect_labels(f"maps of the {target} class")

    def _expect_grad_cam(self, layer: str | None, target: str) -> str:
        """Return the layer (default: the last one) after checking that it was recorded."""
        self._expect_target(target)
        self._expect_scores("Grad-CAM")
        if layer is None and self.grad_cam_layers:
            layer = self.grad_cam_layers[-1]
        if layer is None:
            raise InputError(
                "AS611",
                f"{self.folder} has no Grad-CAM; {capture_again(self.folder)}, without "
                "--no-grad-cam",
            )
        if layer not in self.grad_cam_layers:
            known = ", ".join(self.grad_cam_layers) or "none"
            raise InputError(
                "AS611",
                f"{self.folder} has no Grad-CAM of layer '{layer}' (recorded: {known}); "
                f"{capture_again(self.folder, '--grad-cam-layers', layer)}",
            )
        return layer

    def _read_rows(self, shard: Shard) -> pd.DataFrame:
        file = shard_file(self.folder, shard, layout.ROWS)
        try:
            with open_regular(file) as stream:  # pyarrow cannot open a name that is not UTF-8
                rows = pd.read_parquet(stream)[list(ROW_COLUMNS)].astype(ROW_COLUMNS)
            if len(rows) != shard.count:
                raise ValueError(f"{len(rows)} rows instead of {shard.count}")
        except Exception as error:  # pyarrow raises OSError, ArrowInvalid and others
            raise _unreadable(self.folder, file, error) from None
        return rows

    def _count_rows(self, shard: Shard) -> None:
        """Check the number of rows by the end of their file, where Parquet has it."""
        from pyarrow import parquet  # imported here because the import takes time

        file = shard_file(self.folder, shard, layout.ROWS)
        try:
            count = parquet.read_metadata(file).num_rows
            if count != shard.count:
                raise ValueError(f"{count} rows instead of {shard.count}")
        except Exception as error:  # as for the rows
            raise _unreadable(self.folder, file, error) from None

    def _array(self, key: str, rows: Rows = ALL_ROWS) -> NDArray[Any]:
        """Read rows of an array that has one row per image, from the shards that hold them."""
        numbers = row_numbers(rows, len(self))
        if isinstance(numbers, range):
            if numbers.step == 1:
                return self._stretch(key, numbers.start, numbers.stop)
            numbers = np.asarray(numbers, np.int64)
        if numbers.ndim == 0:
            value: NDArray[Any] = self._stretch(key, int(numbers), int(numbers) + 1)[0]
            return value
        ends = np.cumsum([shard.count for shard in self._shards])
        shard_of = np.searchsorted(ends, numbers, side="right")
        # The shape and the type are known even if no row was asked for.
        empty = self._piece(self._shards[shard_of[0] if len(shard_of) else 0], key, slice(0, 0))
        result = np.empty((len(numbers), *empty.shape[1:]), empty.dtype)
        for index in np.unique(shard_of):
            shard, inside = self._shards[index], shard_of == index
            first = ends[index] - shard.count
            needed, position = np.unique(numbers[inside] - first, return_inverse=True)
            result[inside] = self._piece(shard, key, *consecutive(needed))[position]
        return result

    def _stretch(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """Read consecutive rows of an array that has one row per image."""
        result: NDArray[Any] | None = None
        first = filled = 0
        for shard in self._shards:
            low, high = max(start - first, 0), min(stop - first, shard.count)
            first += shard.count
            if low >= high:
                continue
            piece = self._piece(shard, key, slice(low, high))
            if high - low == stop - start:
                return piece
            if result is None:  # one shard at a time is held beside the result
                result = np.empty((stop - start, *piece.shape[1:]), piece.dtype)
            expected = (result.dtype, high - low, *result.shape[1:])
            if (piece.dtype, *piece.shape) != expected:
                raise _unreadable(
                    self.folder,
                    shard_file(self.folder, shard, layout.ARRAYS),
                    ValueError(f"{key} has another shape or type than the manifest says"),
                )
            result[filled : filled + len(piece)] = piece
            filled += len(piece)
        return self._piece(self._shards[0], key, slice(0, 0)) if result is None else result

    def _piece(self, shard: Shard, key: str, *slices: slice) -> NDArray[Any]:
        """Read slices of one shard's array; all of it by default."""
        file = shard_file(self.folder, shard, layout.ARRAYS)
        try:
            with safe_open(file, framework="numpy") as arrays:
                whole = arrays.get_slice(key)
                pieces = [whole[part.start : part.stop] for part in slices or (ALL_ROWS,)]
        except (SafetensorError, OSError) as error:
            raise _unreadable(self.folder, file, error) from None
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _has(self, key: str) -> bool:
        """Return whether the shards have an array."""
        file = shard_file(self.folder, self._shards[0], layout.ARRAYS)
        try:
            with safe_open(file, framework="numpy") as arrays:
                return key in arrays.keys()  # noqa: SIM118 - not a dictionary
        except (SafetensorError, OSError) as error:
            raise _unreadable(self.folder, file, error) from None


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of each row, in double precision."""
    wide = logits.astype(np.float64)
    exp = np.exp(wide - wide.max(1, keepdims=True))
    result: NDArray[np.float64] = exp / exp.sum(1, keepdims=True)
    return result


def captured_kind(folder: Path) -> str:
    """Return ``moments`` if the manifest says so, else ``recording``, even without a manifest."""
    folder = captured_in(folder, layout.RECORDINGS)
    manifest = read_json(folder / layout.MANIFEST) if is_captured(folder) else {}
    return (
        "moments"
        if isinstance(manifest, dict) and manifest.get("kind") == "moments"
        else "recording"
    )


def _unreadable(folder: Path, file: Path, error: Exception) -> InputError:
    return InputError(
        "AS606",
        f"{file} cannot be read ({first_line(error)}); restore it, or {capture_again(folder)}",
    )
