"""A recording's network that answers questions at once: what does it say with another gate?

>>> network = LiveNetwork.open(Recording("runs/digits-resnet18-cbam"))
>>> before = network.scores([17])
>>> after = network.scores([17], {"layer1.0.attention.channel": Channels({3: 0.0})})

The network and the images are found and checked as `attnscope.intervene` does it. Sessions of the
dashboard share a network: its methods can be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from attnscope.attribution import ATTRIBUTIONS, GRAD_CAM, last_map_layer
from attnscope.capturing.batching import batches
from attnscope.capturing.number_types import as_inputs, of_type
from attnscope.capturing.pictures import IN_UNIT_RANGE
from attnscope.data.images import LabeledImages, Normalization
from attnscope.errors import InputError
from attnscope.gates.axes import letters_of, parse_layout, split_axes
from attnscope.gates.hooks import edit_gates, watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import HAS_NEUTRAL, Gate
from attnscope.live.edits import EditMaker, GateEdit
from attnscope.networks.number_types import number_type
from attnscope.networks.outputs import OutputAdapter, adapted
from attnscope.recording.places import capture_again
from attnscope.recording.recording import Recording
from attnscope.recording.reopening import expect_fp32
from attnscope.shapes import Array
from attnscope.sources import Source

_BATCH = 32
"""Images of one forward: other sessions wait no longer than for these."""
_CHECKED = 4
"""Images whose logits are compared with the recorded ones when the images are opened."""
_TOLERANCE = 0.01
"""Largest accepted difference to the recorded logits, relative to the largest recorded logit. Other
devices and batch sizes sum in another order."""
_CPU = torch.device("cpu")
_FORWARDS = threading.RLock()
"""One forward at a time in the whole process: the hooks that follow gates are global in torch."""


Given = Tensor | Sequence[int] | NDArray[np.integer[Any]]
"""Images as the network gets them, ``(n, C, H, W)``, or rows of the recording."""


@dataclass(frozen=True)
class Preparation:
    """How the images of a recording were prepared for the network."""

    size: int
    """Height and width of the network's input, in pixels."""
    resized: int
    """Height and width to which images are resized before they are cropped at the center."""
    channels: int
    """1 for gray, 3 for RGB, 4 for four bands."""
    normalization: Normalization
    white: int | None = None
    """The value of white in recorded images with 16 bits per channel; None if it is not known."""


class LiveNetwork:
    """The network of a recording, in eval mode on the CPU. Create it with `open`.

    Attributes:
        recording: The recording.
    """

    def __init__(self, recording: Recording, model: nn.Module, source: Source) -> None:
        """Use a network that was opened already; `open` does both."""
        self.recording = recording
        self._model, self._source = model, source
        self._normalization = source.network.normalization or IN_UNIT_RANGE
        self._adapter = OutputAdapter.from_dict(recording.output)
        self._edits = EditMaker(recording)
        self._explained: str | None = None

    @classmethod
    def open(cls, recording: Recording) -> LiveNetwork:
        """Find the network of a recording again.

        A target ``package.module:callable`` runs the user's code, as it did for the capture. The
        images are opened when they are first needed.

        Raises:
            InputError: The network is not known (AS640), cannot be opened (AS641), or has other
                weights now (AS642), or the recording was not captured in fp32 (AS807).
        """
        expect_fp32(recording.folder, recording.about)
        with _FORWARDS:
            return cls(recording, recording.network(), recording.source())

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self.recording.classes

    @property
    def preparation(self) -> Preparation:
        """How another image must be prepared, so that the network sees it as it saw the recorded.

        Raises:
            InputError: AS647, it is not known, because a data set of the user prepares its items.
        """
        data, network = self._source.data, self._source.network
        size = network.image_size or data.image_size
        if data.is_data_set or network.normalization is None or size is None:
            raise InputError(
                "AS647",
                f"the images of {self.recording.folder} were prepared by the data set "
                f"{data.source}, so that another image cannot be prepared in the same way; capture "
                "images of a folder to be able to try others",
            )
        channels = data.channels or network.channels or 3
        resized, white = data.resize or size, self._source.white
        return Preparation(size, resized, channels, network.normalization, white)

    def images(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Tensor:
        """Return recorded images as the network gets them, ``(n, C, H, W)``.

        Raises:
            InputError: The images are gone (AS244), have changed (AS643, AS804, AS805), or the
                network does not give the recorded logits for them (AS809).
            IndexError: A row is out of range.
        """
        numbers = [int(row) for row in rows]
        for row in numbers:
            if not 0 <= row < len(self.recording):
                raise IndexError(f"image {row} is out of range; there are {len(self.recording)}")
        with _FORWARDS:
            return self._read(self._dataset, numbers)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return another image as the network gets it, ``(1, C, H, W)``.

        Args:
            pixels: uint8, ``(C, H, W)``, of the size and channels of `preparation`.

        Raises:
            InputError: AS647, it is not known how images are prepared.
        """
        x = self.preparation.normalization.apply(pixels[None])
        return of_type(x, number_type(self._model))

    def scores(
        self, given: Given, edits: Mapping[str, GateEdit] | None = None
    ) -> Float32[Array, "images classes"]:
        """Return the logits of some images, if some gates have other values.

        Args:
            given: Images or rows.
            edits: Name of a gate -> what replaces it. Default: nothing is replaced.

        Raises:
            InputError: The recording has no class scores (AS618), there is no gate of a name
                (AS608), an edit does not fit its gate (AS403, AS421, AS422), or as for `images`.
        """
        self._expect_scores()
        made = {
            name: self._edits.make(name, edit, len(given)) for name, edit in (edits or {}).items()
        }

        def run(x: Tensor, start: int) -> NDArray[np.float32]:
            here = {name: make(start, len(x)) for name, make in made.items()}
            with edit_gates(self._model, here, self.recording.gates):
                return _host(self._model(x))

        if made:
            return np.concatenate([run(x, start) for x, start in self._batches(given)])
        return np.concatenate([_host(self._model(x)) for x, _ in self._batches(given)])

    def gates(self, given: Given) -> dict[str, NDArray[np.float32]]:
        """Return the gates of some images by name, ``(n, ...)`` each, as a recording has them.

        Args:
            given: Images or rows.

        Raises:
            InputError: As for `images`, or a gate cannot be read.
        """
        names = [gate.name for gate in self.recording.gates]
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        for x, _ in self._batches(given):
            with watch_gates(self._model, self.recording.gates) as values:
                self._model(x)
            for name, of_batch in found.items():
                of_batch.append(_host(values[name]))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def features(
        self, given: Given, gate: str, channel: int
    ) -> tuple[Float32[Array, "images height width"], Float32[Array, "images height width"]]:
        """Return the map of one channel of the features before and after a gate multiplies them.

        Args:
            given: Images or rows.
            gate: Name of the gate.
            channel: The channel of the features, from 0.

        Returns:
            Two arrays ``(n, h, w)``. For a gate that acts as x + x * g, the second one is the sum.

        Raises:
            InputError: The features of the gate have no maps of single channels (AS420), or they
                have no such channel (AS422).
        """
        site = self.recording.info(gate)
        kept: list[tuple[Tensor, Tensor]] = []
        # x + x * g returns the features unchanged at 0, and x * g at 1.
        offset = 1 - site.neutral if site.has(HAS_NEUTRAL) else 0.0

        def keep(values: Tensor, features: Tensor) -> Tensor:
            if features is not values:
                before = _channel_map(features, site, channel)
                after = _channel_map(features * (values + offset), site, channel)
                kept.append((before, after))
            return values

        pairs = []
        for x, _ in self._batches(given):
            kept.clear()
            with edit_gates(self._model, {gate: keep}, self.recording.gates):
                self._model(x)
            if not kept:
                raise _no_maps(gate)
            pairs.append(tuple(_host(each) for each in kept[0]))
        before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return before, after

    def attributions(
        self, given: Given, targets: Sequence[int] | NDArray[np.integer[Any]]
    ) -> Float32[Array, "images height width"]:
        """Return signed Grad-CAM of the layer that the recording explains, before its ReLU.

        Args:
            given: Images or rows.
            targets: The class that is explained, for each image.

        Raises:
            InputError: The recording has no class scores (AS618), the network has no layer with a
                feature map (AS410), or as for `images`.
        """
        self._expect_scores()
        explain = ATTRIBUTIONS.find(GRAD_CAM).explain
        classes = torch.as_tensor([int(target) for target in targets])
        parts = []
        for x, start in self._batches(given):
            layer = self._layer(x)
            maps = explain(self._model, x, classes[start : start + len(x)], layer)
            parts.append(_host(maps))
        return np.concatenate(parts)

    def mean_gate(self, name: str) -> Float32[Array, "*gate"]:
        """Return the mean of a gate over all images of the recording, such as ``(C,)``.

        Raises:
            InputError: AS608, there is no gate of that name.
        """
        return self._edits.mean(name)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        with (
            _FORWARDS,
            eval_mode(self._model),
            torch.no_grad(),
            adapted(self._model, self._adapter),
        ):
            yield

    def _batches(self, given: Given) -> Iterator[tuple[Tensor, int]]:
        """Yield some images at a time, and the place of the first; the network is ready then."""
        for start in range(0, len(given), _BATCH):
            some = given[start : start + _BATCH]
            x = some if isinstance(some, Tensor) else self.images(some)
            with self._ready():
                yield x, start

    @cached_property
    def _dataset(self) -> LabeledImages | Dataset[Any]:
        """The recorded images, once they are shown to be those that the network was recorded on."""
        recording, found = self.recording, self.recording.images()
        count = len(found)  # type: ignore[arg-type]
        if count != len(recording):
            raise InputError(
                "AS804",
                f"the data has {count} images, but {recording.folder} has {len(recording)}; "
                f"restore the images, or {capture_again(recording.folder)}",
            )
        rows = np.unique(np.linspace(0, count - 1, _CHECKED).round().astype(np.int64))
        if isinstance(found, LabeledImages):
            paths = [found.paths[row] for row in rows]
            if paths != list(recording.rows["path"].iloc[rows]):
                raise InputError(
                    "AS805",
                    f"the images are not those of {recording.folder}, or in another order; restore "
                    f"them, or {capture_again(recording.folder)}",
                )
        if recording.has_scores:
            with self._ready():
                logits = _host(self._model(self._read(found, rows.tolist())))
            recorded = recording.logits_of(rows)
            limit = _TOLERANCE * max(float(np.abs(recorded).max()), 1.0)
            if logits.shape != recorded.shape or np.abs(logits - recorded).max() > limit:
                raise InputError(
                    "AS809",
                    f"the network does not give the logits recorded in {recording.folder}; restore "
                    f"the weights that were captured, or {capture_again(recording.folder)}",
                )
        return found

    def _read(self, dataset: LabeledImages | Dataset[Any], rows: list[int]) -> Tensor:
        found = batches(dataset, rows, max(len(rows), 1), self._normalization, _CPU)
        return next(as_inputs(found, self._model)).x

    def _layer(self, x: Tensor) -> str:
        """Return the layer that Grad-CAM explains, the recorded one if there is any."""
        if self._explained is None:
            layers = self.recording.grad_cam_layers
            found = layers[-1] if layers else last_map_layer(self._model, x, self.recording.gates)
            self._explained = found
        return self._explained

    def _expect_scores(self) -> None:
        if not self.recording.has_scores:
            raise InputError(
                "AS618",
                f"{self.recording.folder} has no class scores; if the output of the network has "
                f"some, {capture_again(self.recording.folder, '--output', 'OUTPUT')}",
            )


def _host(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return found


def _channel_map(features: Tensor, gate: Gate, channel: int) -> Tensor:
    """Return one channel of features as maps ``(n, h, w)``."""
    layout = parse_layout(gate.layout)
    letters = letters_of(layout)
    if sorted(letters) != sorted("NCHW") or features.ndim != len(layout):
        raise _no_maps(gate.name)
    split = split_axes(features, layout, 1, gate.grid or (0, 0))
    ordered = split.permute(*(letters.index(letter) for letter in "NCHW"))
    if not 0 <= channel < ordered.shape[1]:
        raise InputError(
            "AS422",
            f"the features of the gate {gate.name} have channels 0 to {ordered.shape[1] - 1}, not "
            f"{channel}; choose another one",
        )
    return ordered[:, channel].detach().clone()


def _no_maps(gate: str) -> InputError:
    return InputError(
        "AS420",
        f"the features that the gate {gate} multiplies are no maps with rows, columns and "
        "channels; choose another gate",
    )
