"""The Recording: what one network did on one data set, in files that need no torch to be read.

A recording is a folder with ``manifest.json`` and immutable shards ``shards/00000`` and so on. Each
shard holds ``arrays.safetensors`` and ``rows.parquet``; the manifest holds their SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import layout
from attnscope.errors import InputError
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.recording.attributed import GRAD_CAM, Attributed
from attnscope.recording.format import TARGETS
from attnscope.recording.places import find_recordings as find_recordings
from attnscope.recording.reader import ShardReader
from attnscope.recording.verification import verify_array
from attnscope.recording.writer import ShardWriter


class RecordingWriter(ShardWriter):
    """Writes a recording.

    The arrays of a shard are ``gate/NAME`` (float32, ``(n, C)`` or ``(n, H, W)``),
    ``grad_cam/LAYER/predicted`` and ``.../true`` (float16, signed, ``(n, h, w)``), ``logits``
    (float32, ``(n, K)``), and ``images`` (uint8, ``(n, H, W, 3)``); where it was asked for also
    ``pooled/NAME`` (float32, of the shape of ``gate/NAME``) and, of the images that have any,
    ``attribution/METHOD/LAYER/TARGET`` (float16, signed, ``(m, h, w)``).
    """

    kind = "recording"

    def _check(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        counts = {
            key: len(value)
            for key, value in arrays.items()
            if len(value) != len(rows) and not key.startswith("attribution/")
        }
        if len(rows) == 0 or counts:
            raise ValueError(f"a shard of {len(rows)} rows cannot hold arrays of {counts}")
        needed = [f"gate/{gate.name}" for gate in self._gates]
        for key in [*needed, *(f"pooled/{name}" for name in self._pooled_inputs)]:
            values = arrays.get(key)
            if values is None or values.dtype != np.float32:
                raise ValueError(f"a shard needs {key} in float32")


class Recording(ShardReader):
    """What one network did on one data set.

    Arrays come from memory-mapped files; each call reads what it returns and nothing else.
    """

    kind = "recording"
    _place = layout.RECORDINGS

    def gate(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """A gate of any kind: ``(N, C)`` for a channel gate, ``(N, H, W)`` for a spatial one."""
        self.info(name)
        return self._array(f"gate/{name}", rows)

    def channel(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """A channel gate, ``(N, C)``.

        Raises:
            InputError: there is no such gate, or it is of another kind.
        """
        self._expect_trait(name, PER_CHANNEL)
        return self.gate(name, rows)

    def spatial(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """A spatial gate, ``(N, H, W)``.

        Raises:
            InputError: there is no such gate, or it is of another kind.
        """
        self._expect_trait(name, MAP)
        return self.gate(name, rows)

    def pooled_input(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """What a gate multiplies, its mean over the axes that the gate has not; shaped as `gate`.

        Of a channel gate the mean of each channel over the pixels, ``(N, C)``, which is all that an
        SE or ECA gate is told of the image; of a spatial gate the mean over the channels, ``(N, H,
        W)``. In units of the features.

        Raises:
            InputError: there is no such gate, or its pooled input was not recorded.
        """
        self.info(name)
        if name not in self.pooled_inputs:
            raise InputError(
                f"{self.folder} has no pooled input of '{name}'; capture with --pooled-inputs, "
                "which records it of each gate but those that multiply another gate"
            )
        return self._array(f"pooled/{name}", rows)

    def grad_cam(
        self, layer: str | None = None, target: str = "predicted", rows: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Signed Grad-CAM before its ReLU, ``(N, h, w)``, of the layer (default: the last one).

        Raises:
            InputError: the layer or the target was not recorded.
        """
        layer = self._expect_grad_cam(layer, target)
        return self._array(f"grad_cam/{layer}/{target}", rows).astype(np.float32)

    @property
    def attribution_methods(self) -> list[str]:
        """Names of the attribution methods that were recorded, Grad-CAM first."""
        other = dict.fromkeys(found.method for found in self.attributions.methods)
        return [*([GRAD_CAM] if self.grad_cam_layers else []), *other]

    def attributed_rows(self, method: str = GRAD_CAM) -> NDArray[np.int64]:
        """The images of which a method has maps, ``(n,)``, sorted; of Grad-CAM all.

        Raises:
            InputError: the method was not recorded.
        """
        if method == GRAD_CAM:
            self._expect_grad_cam(None, TARGETS[0])
            return np.arange(len(self))
        self._attributed(method, None)
        return self.attributions.rows(len(self))

    def attribution(
        self, method: str = GRAD_CAM, layer: str | None = None, target: str = TARGETS[0]
    ) -> NDArray[np.float32]:
        """Signed maps of a method, ``(n, h, w)``, one for each of `attributed_rows`.

        Args:
            method: one of `attribution_methods`.
            layer: of a method that explains layers; default the last one that was recorded.
            target: ``predicted`` or ``true``, the class that is explained.

        Raises:
            InputError: the method, the layer or the target was not recorded.
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

    def image(self, i: int) -> NDArray[np.uint8]:
        """The picture of image ``i``, ``(H, W, 3)``."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        picture: NDArray[np.uint8] = self._array("images", slice(i, i + 1))[0]
        return picture

    def _verify_values(self) -> list[str]:
        found = []
        for gate in self.gates:
            found += verify_array(
                f"gate/{gate.name}",
                self._shards,
                self._piece,
                (gate.lo, gate.hi),
                self._rounding(gate),
            )
        keys = [f"pooled/{name}" for name in self.pooled_inputs]
        keys += [f"grad_cam/{n}/{target}" for n in self.grad_cam_layers for target in TARGETS]
        for key in [*keys, "logits", "images"]:
            found += verify_array(key, self._shards, self._piece)
        return found + self._verify_attributions()

    def _verify_attributions(self) -> list[str]:
        found = []
        for wanted in self.attributions.methods:
            for target in TARGETS:
                key = wanted.key(target)
                try:
                    maps = self.attribution(wanted.method, wanted.layer, target)
                except InputError as error:
                    found.append(f"{key}: {error}")
                    continue
                if len(maps) != len(self.attributed_rows(wanted.method)):
                    found.append(f"{key}: {len(maps)} maps, not one for each stated image")
                if not np.isfinite(maps).all():
                    found.append(f"{key}: values that are not finite")
        return found

    def _attributed(self, method: str, layer: str | None) -> Attributed:
        known = [found for found in self.attributions.methods if found.method == method]
        if not known:
            has = ", ".join(self.attribution_methods) or "none"
            raise InputError(
                f"{self.folder} has no attributions by '{method}'; it has {has}: capture with "
                f"--attribution {method}"
            )
        for found in known:
            if layer in (None, found.layer):
                return known[-1] if layer is None else found
        layers = ", ".join(found.layer or "the input" for found in known)
        raise InputError(f"{self.folder} has no {method} of '{layer}'; it has {layers}")
