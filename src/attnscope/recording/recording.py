"""The Recording: what one network did on one data set, in files that are read without torch.

A recording is a folder with ``manifest.json`` and immutable shards ``shards/00000`` and so on. Each
shard has ``arrays.safetensors`` and ``rows.parquet``; the manifest has the SHA-256 of both.

This file has more than 400 lines, because one class gives access to everything in a recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray

from attnscope import layout
from attnscope.data.label_kinds import MULTI_LABEL, VALUE, describe_labels
from attnscope.errors import InputError, first_line
from attnscope.hashes import problem
from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.attributed import GRAD_CAM, Attributed
from attnscope.recording.format import TARGETS, targets_of_labels
from attnscope.recording.labeled import (
    class_columns,
    dimension_names,
    expect_xarray,
    lazy_variable,
    variable_name,
)
from attnscope.recording.places import capture_again
from attnscope.recording.places import find_recordings as find_recordings
from attnscope.recording.reader import ShardReader
from attnscope.recording.rows import ALL_ROWS, Rows, row_numbers
from attnscope.recording.verification import gate_shape, verify_array, verify_predictions
from attnscope.recording.viewing import read_view
from attnscope.recording.writer import ShardWriter
from attnscope.shapes import Array

if TYPE_CHECKING:
    from xarray import Dataset, Variable

    from attnscope.recording.outcomes import Outcomes

_TARGETS = "targets"
"""Array of labels that are no classes."""


class RecordingWriter(ShardWriter):
    """Writes a recording.

    The arrays of a shard are ``gate/NAME`` (float32, ``(n, C)`` or ``(n, H, W)``),
    ``grad_cam/LAYER/predicted`` and ``.../true`` (float16, signed, ``(n, h, w)``), ``logits``
    (float32, ``(n, K)``), and ``images`` (uint8, ``(n, H, W, 3)``). Optional are ``pooled/NAME``
    (float32, with the shape of ``gate/NAME``), ``targets`` (float32, ``(n, T)``: labels that are no
    classes) and, for the images that have maps, ``attribution/METHOD/LAYER/TARGET`` (float16,
    signed, ``(m, h, w)``). Without class labels, nothing explains the true class.
    """

    kind = "recording"

    def _check(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        counts = {
            key: len(value)
            for key, value in arrays.items()
            if len(value) != len(rows) and not key.startswith("attribution/")
        }
        if len(rows) == 0 or counts:
            raise ValueError(
                f"a shard has {len(rows)} rows, and the lengths of arrays are {counts}"
            )
        needed = [f"gate/{gate.name}" for gate in self._gates]
        for key in [*needed, *(f"pooled/{name}" for name in self._pooled_inputs)]:
            values = arrays.get(key)
            if values is None or values.dtype != np.float32:
                raise ValueError(f"a shard needs the array {key} in float32")


class Recording(ShardReader):
    """What one network did on one data set: the values of every gate for every image, and more.

    >>> recording = Recording("runs/digits-resnet18-cbam")
    >>> recording["layer1.0.attention.channel"]  # all images
    >>> recording["layer1.0.attention.channel", recording.labels == 2]  # images of one class
    >>> [gate.name for gate in recording]

    Arrays come from memory-mapped files. Each call reads what it returns and nothing else. The
    argument ``rows`` of its methods works as an index of a NumPy array does: a slice, a number, a
    list or array of numbers, or a boolean mask with one value per image.
    """

    kind = "recording"
    _place = layout.RECORDINGS

    def __getitem__(self, key: str | tuple[str, Rows]) -> Float32[Array, "*shape"]:
        """Return the values of a gate: ``recording[name]`` or ``recording[name, rows]``.

        Raises:
            InputError: There is no gate of that name.
            IndexError: A row is out of range.
            TypeError: The key is neither a name nor a name and rows.
        """
        name, rows = key if isinstance(key, tuple) and len(key) == 2 else (key, ALL_ROWS)
        if not isinstance(name, str):
            raise TypeError(
                f"a recording is indexed as recording[name] or recording[name, rows], not by "
                f"{key!r:.60}; use recording.image(i) for the picture of an image"
            )
        return self.gate(name, rows)

    def gate(self, name: str, rows: Rows = ALL_ROWS) -> Float32[Array, "*shape"]:
        """Return the values of a gate of any kind.

        Args:
            name: Name of the gate.
            rows: The images; default all.

        Returns:
            ``(N, C)`` for a channel gate, ``(N, H, W)`` for a spatial gate. A single row has no
            axis of images.

        Raises:
            InputError: There is no gate of that name.
            IndexError: A row is out of range.
        """
        self.info(name)
        return self._array(f"gate/{name}", rows)

    def channel(self, name: str, rows: Rows = ALL_ROWS) -> Float32[Array, "*images channels"]:
        """Return one value for each image and channel.

        Args:
            name: Name of a channel gate, or of a gate with channels and more axes, which is
                averaged over positions (`Gate.view`). Its branches and groups count as channels.
            rows: The images; default all.

        Raises:
            InputError: There is no gate of that name, or it has no channels.
            IndexError: A row is out of range.
        """
        return self.values(name, PER_CHANNEL, rows)

    def spatial(self, name: str, rows: Rows = ALL_ROWS) -> Float32[Array, "*images height width"]:
        """Return one map for each image.

        Args:
            name: Name of a spatial gate, or of a gate with positions and more axes, which is
                averaged over channels, and over the slices of a volume (`Gate.view`). A gate of
                rows gives ``(N, H, 1)``, and one of columns or of a sequence ``(N, 1, W)``.
            rows: The images; default all.

        Raises:
            InputError: There is no gate of that name, or it has no positions.
            IndexError: A row is out of range.
        """
        return self.values(name, MAP, rows)

    def values(
        self, name: str, trait: str | None = None, rows: Rows = ALL_ROWS
    ) -> Float32[Array, "*shape"]:
        """Return the values of a gate as a statistic of a trait takes them.

        Args:
            name: Name of the gate.
            trait: `attnscope.kinds.PER_CHANNEL`, `attnscope.kinds.MAP`, or None for the values as
                they were recorded.
            rows: The images; default all.

        Raises:
            InputError: There is no gate of that name, or it has neither the trait nor a view of it.
            IndexError: A row is out of range.
        """
        if trait is None:
            return self.gate(name, rows)
        self._expect_trait(name, trait)
        view = self.info(name).view(trait)
        if view is None:
            return self.gate(name, rows)
        numbers = np.asarray(row_numbers(rows, len(self)), np.int64)
        return read_view(partial(self.gate, name), view, numbers)

    def pooled_input(self, name: str, rows: Rows = ALL_ROWS) -> Float32[Array, "*shape"]:
        """Return the mean of the features that a gate multiplies, over the axes that it lacks.

        For a channel gate this is the mean of each channel over the positions, ``(N, C)``, which is
        the only input of an SE or ECA gate. For a spatial gate it is the mean over the channels,
        ``(N, H, W)``. The unit is that of the features.

        Args:
            name: Name of the gate.
            rows: The images; default all.

        Returns:
            An array with the shape of `gate`.

        Raises:
            InputError: There is no gate of that name, or its pooled input was not recorded.
            IndexError: A row is out of range.
        """
        self.info(name)
        if name not in self.pooled_inputs:
            raise InputError(
                "AS612",
                f"{self.folder} has no pooled input of gate '{name}' (gates that multiply "
                f"another gate have none); {capture_again(self.folder, '--pooled-inputs')}",
            )
        return self._array(f"pooled/{name}", rows)

    def grad_cam(
        self, layer: str | None = None, target: str = "predicted", rows: Rows = ALL_ROWS
    ) -> Float32[Array, "*images height width"]:
        """Return signed Grad-CAM, before its ReLU.

        Args:
            layer: Path of the module; default the last one that was recorded.
            target: The class that is explained: ``predicted`` or ``true``.
            rows: The images; default all.

        Raises:
            InputError: The layer or the target was not recorded.
            IndexError: A row is out of range.
        """
        layer = self._expect_grad_cam(layer, target)
        return self._array(f"grad_cam/{layer}/{target}", rows).astype(np.float32)

    @property
    def targets(self) -> Float32[Array, "images targets"]:
        """Labels that are numbers to predict, or 1 for each of several classes of an image.

        Raises:
            InputError: The labels are of another kind; see ``label_kind``.
        """
        if self.label_kind not in (MULTI_LABEL, VALUE):
            raise InputError(
                "AS649",
                f"{self.folder} has no targets ({describe_labels(self.label_kind)}); use labels "
                f"for classes, or for others {capture_again(self.folder)}",
            )
        return self._array(_TARGETS)

    @property
    def attribution_methods(self) -> list[str]:
        """Names of the recorded attribution methods, Grad-CAM first."""
        other = dict.fromkeys(found.method for found in self.attributions.methods)
        return [*([GRAD_CAM] if self.grad_cam_layers else []), *other]

    def attributed_rows(self, method: str = GRAD_CAM) -> Int64[Array, " attributed"]:
        """Return the sorted rows of the images that have maps of a method; for Grad-CAM all.

        Raises:
            InputError: The method was not recorded.
        """
        if method == GRAD_CAM:
            self._expect_grad_cam(None, TARGETS[0])
            return np.arange(len(self))
        self._attributed(method, None)
        return self.attributions.rows(len(self))

    def attribution(
        self, method: str = GRAD_CAM, layer: str | None = None, target: str = TARGETS[0]
    ) -> Float32[Array, "attributed height width"]:
        """Return the signed maps of an attribution method, one for each of `attributed_rows`.

        Args:
            method: One of `attribution_methods`.
            layer: For a method that explains layers; default the last one that was recorded.
            target: The class that is explained: ``predicted`` or ``true``.

        Raises:
            InputError: The method, the layer or the target was not recorded.
        """
        if method == GRAD_CAM:
            return self.grad_cam(layer, target)
        found = self._attributed(method, layer)
        self._expect_target(target)
        rows, first, pieces = self.attributions.rows(len(self)), 0, []
        for shard in self._shards:
            if ((rows >= first) & (rows < first + shard.count)).any():
                pieces.append(self._piece(shard, found.key(target)))
            first += shard.count
        return np.concatenate(pieces).astype(np.float32)

    def interventions(self) -> Outcomes | None:
        """Return the outcomes that `attnscope.intervene` wrote, or None."""
        from attnscope.recording.outcomes import find_outcomes

        return find_outcomes(self)

    @property
    def has_pictures(self) -> bool:
        """Whether the pictures of the images were recorded, as `capture` always does."""
        return self._has("images")

    def pictures(self, rows: Rows = ALL_ROWS) -> UInt8[Array, "images height width 3"]:
        """Return the pictures of images.

        Args:
            rows: The images; default all.

        Raises:
            IndexError: A row is out of range.
        """
        return self._array("images", rows)

    def image(self, i: int) -> UInt8[Array, "height width 3"]:
        """Return the picture of an image.

        Args:
            i: Its row, 0 to ``len(recording) - 1``.

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} is out of range; there are {len(self)} images")
        picture: NDArray[np.uint8] = self._array("images", slice(i, i + 1))[0]
        return picture

    def to_pandas(self, gate: str | None = None) -> pd.DataFrame:
        """Return a table with one row per image.

        Args:
            gate: Name of a gate with channels (`channel`); default all gates.

        Returns:
            The columns path, label and prediction (names of classes), right (whether the prediction
            is correct) and confidence (probability of the predicted class). Without class labels
            there are no label and right; without class scores, no prediction, right and
            confidence. With ``gate``, one more
            column for each of its channels: channel_0, channel_1 and so on. Without it, one column
            for each gate, named as the gate, with the mean gate of the image
            (`Gate.image_means`). A gate with the name of another column becomes ``gate:NAME``.

        Raises:
            InputError: There is no gate of that name, or it has no channels.
        """
        columns: dict[str, Any] = {**self._class_columns()}
        if self.has_accuracy:
            columns["right"] = self.right
        if self.has_scores:
            columns["confidence"] = self.confidence
        if gate is not None:
            values = self.channel(gate)
            columns |= {f"channel_{c}": values[:, c] for c in range(values.shape[1])}
        else:
            columns |= {variable_name(known): self._image_means(known) for known in self.gates}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(self), name="image"))

    def to_xarray(self, gates: str | Sequence[str] | None = None) -> Dataset:
        """Return the gates as a data set with named dimensions, whose values are read when used.

        Needs the extra ``attnscope[xarray]``.

        Args:
            gates: Name of a gate, or names of several; default all.

        Returns:
            One variable for each gate, and ``logits`` with the dimensions image and class. The
            coordinates of the images are path, label and prediction (names of classes). Without
            class scores there are no logits and predictions. Attributes: name and split of the
            recording; kind, activation, lower and upper bound and neutral value of each gate.

            If ``gates`` is one name, the dimensions of the gate are ``image`` and ``channel``, or
            ``image``, ``height`` and ``width``, and so on by its kind. The channels of two gates
            are different channels, so with several gates all dimensions but ``image`` have the name
            of the gate: ``channel:layer1.0.attention.channel``.

        Raises:
            InputError: There is no gate of that name, or xarray is not installed.
        """
        expect_xarray()
        from xarray import Dataset

        names = [gate.name for gate in self.gates] if gates is None else gates
        chosen = [self.info(name) for name in ([names] if isinstance(names, str) else names)]
        scores = {"logits": (("image", "class"), self.logits)} if self.has_scores else {}
        variables = {
            variable_name(gate): self._variable(gate, qualified=not isinstance(gates, str))
            for gate in chosen
        }
        attributes = {"name": self.name, "split": self.split}
        return Dataset(
            {**variables, **scores},
            coords={
                "image": np.arange(len(self)),
                "class": np.array(self.classes, dtype=object),
                **{name: ("image", values) for name, values in self._class_columns().items()},
            },
            attrs={key: value for key, value in attributes.items() if value is not None},
        )

    def _class_columns(self) -> dict[str, NDArray[np.object_]]:
        return class_columns(self.classes, self.rows, self.label_kind, self.has_scores, self.folder)

    def _variable(self, gate: Gate, *, qualified: bool) -> Variable:
        """Return a gate as a lazy variable; ``qualified`` names its dimensions after the gate."""
        empty = self.gate(gate.name, slice(0, 0))
        image, *others = dimension_names(gate, empty.ndim)
        return lazy_variable(
            [image, *(f"{name}:{gate.name}" if qualified else name for name in others)],
            partial(self.gate, gate.name),
            (len(self), *empty.shape[1:]),
            empty.dtype,
            {
                "kind": gate.kind,
                "activation": gate.activation,
                "lower_bound": gate.lo,
                "upper_bound": gate.hi,
                "neutral": gate.neutral,
            },
        )

    def _image_means(self, gate: Gate) -> NDArray[np.float64]:
        """Return the mean gate of each image, ``(N,)``, with one shard in memory at a time."""
        key = f"gate/{gate.name}"
        return np.concatenate([gate.image_means(self._piece(shard, key)) for shard in self._shards])

    def _verify_values(self) -> list[str]:
        found = []
        for gate in self.gates:
            found += verify_array(
                f"gate/{gate.name}",
                self._shards,
                self._piece,
                "float32",
                gate_shape(gate),
                (gate.lo, gate.hi),
                self._rounding(gate),
            )
        targets = targets_of_labels(self.label_kind)
        maps = [f"grad_cam/{n}/{target}" for n in self.grad_cam_layers for target in targets]
        wanted: list[tuple[str, str, tuple[int | None, ...] | None]] = [
            *((f"pooled/{n}", "float32", gate_shape(self.info(n))) for n in self.pooled_inputs),
            *((key, "float16", (None, None)) for key in maps),
            *([("logits", "float32", (len(self.classes),))] if self.has_scores else []),
            ("images", "uint8", (None, None, 3)),
        ]
        for key, dtype, shape in wanted:
            found += verify_array(key, self._shards, self._piece, dtype, shape)
        check = partial(verify_array, _TARGETS, self._shards, self._piece, "float32", (None,))
        if self.label_kind == MULTI_LABEL:
            found += check((0.0, 1.0))
        elif self.label_kind == VALUE:  # a data set may hold NaN for a missing value
            found += check(is_finite=False)
        if self.has_scores:
            found += verify_predictions(self.rows, self._shards, self._piece)
        return found + self._verify_attributions()

    def _verify_attributions(self) -> list[str]:
        found = []
        for wanted in self.attributions.methods:
            for target in targets_of_labels(self.label_kind):
                key = wanted.key(target)
                try:
                    maps = self.attribution(wanted.method, wanted.layer, target)
                except InputError as error:
                    found.append(problem(error.code, f"{key}: {first_line(error)}"))
                    continue
                expected = len(self.attributed_rows(wanted.method))
                if len(maps) != expected:
                    found.append(problem("AS689", f"{key} has {len(maps)} maps, not {expected}"))
                if not np.isfinite(maps).all():
                    found.append(problem("AS687", f"{key} has values that are not finite"))
        return found

    def _attributed(self, method: str, layer: str | None) -> Attributed:
        known = [found for found in self.attributions.methods if found.method == method]
        if not known:
            has = ", ".join(self.attribution_methods) or "none"
            raise InputError(
                "AS613",
                f"{self.folder} has no attributions by '{method}' (recorded: {has}); "
                f"{capture_again(self.folder, '--attribution-methods', method)}",
            )
        for found in known:
            if layer in (None, found.layer):
                return known[-1] if layer is None else found
        layers = ", ".join(found.layer or "the image" for found in known)
        options = ("--attribution-methods", method, "--grad-cam-layers", str(layer))
        raise InputError(
            "AS614",
            f"{self.folder} has no {method} of layer '{layer}' (recorded: {layers}); choose one of "
            f"these, or {capture_again(self.folder, *options)}",
        )
