"""What can replace a gate of a recording's network while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from attnscope.errors import InputError
from attnscope.gates.hooks import Edit, as_factor
from attnscope.gates.values import read_values
from attnscope.kinds import HAS_NEUTRAL, Gate
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.reading import gate_chunks

_UNITS = "BGC"
"""Letters of the axes that count as channels: branches, groups, channels."""


@dataclass(frozen=True)
class Neutral:
    """The value that leaves the features unchanged: 1, or 0 for a gate that acts as x + x * g."""


@dataclass(frozen=True)
class Mean:
    """The mean gate over all images of the recording."""


@dataclass(frozen=True)
class OfImage:
    """The recorded gate of another image."""

    row: int


@dataclass(frozen=True)
class Channels:
    """The image's own gate with some channels at other values.

    Channels are numbered as by `attnscope.Recording.channel`: branches and groups count as
    channels.
    """

    values: Mapping[int, float]


@dataclass(frozen=True)
class Values:
    """Given values: those of one image, or one set for each image of the call."""

    array: NDArray[Any]
    """``(*gate)`` or ``(n, *gate)``, such as ``(C,)`` or ``(n, C)``."""


GateEdit = Neutral | Mean | OfImage | Channels | Values


class EditMaker:
    """Makes what `attnscope.edit_gates` takes."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._means: dict[str, NDArray[np.float32]] = {}

    def mean(self, name: str) -> Float32[Array, "*gate"]:
        """Return the mean of a gate over all images of the recording, such as ``(C,)``.

        Raises:
            InputError: AS608, there is no gate of that name.
        """
        if name not in self._means:
            total, count = np.zeros(()), len(self._recording)
            for rows in gate_chunks(self._recording, name):
                total = total + self._recording.gate(name, rows).sum(0, dtype=np.float64)
            self._means[name] = np.asarray(total / count, np.float32)
        return self._means[name]

    def make(self, name: str, edit: GateEdit, images: int) -> Callable[[int, int], Edit]:
        """Return what makes the edit of a batch, from the place of its first image and its size.

        Args:
            name: Name of the gate.
            edit: What replaces it.
            images: Number of images of all batches.

        Raises:
            InputError: There is no such gate (AS608), or the edit does not fit it (AS403, AS421,
                AS422, AS423).
            IndexError: There is no image of that row.
        """
        gate = self._recording.info(name)
        if isinstance(edit, Channels):
            wanted = self._checked_channels(gate, edit)
            return lambda start, count: _set_channels(gate, wanted, count)
        if isinstance(edit, Neutral):
            if not gate.has(HAS_NEUTRAL):
                raise InputError(
                    "AS421",
                    f"the gate {name} of kind {gate.kind} has no value at which it changes "
                    "nothing; set it to its mean, or to that of another image",
                )
            return lambda start, count: (
                lambda values, features: torch.full_like(values, gate.neutral)
            )
        values = self._values(name, edit)
        if len(values) not in (1, images):
            raise InputError(
                "AS403",
                f"the values for the gate {name} are of {len(values)} images, and there are "
                f"{images}; give those of one image, or of each",
            )

        def make(start: int, count: int) -> Edit:
            some = values if len(values) == 1 else values[start : start + count]
            factor = as_factor(torch.from_numpy(some), gate)
            return lambda known, features: factor.to(known.dtype)

        return make

    def _values(self, name: str, edit: Mean | OfImage | Values) -> NDArray[np.float32]:
        """Return values ``(1, *gate)`` or ``(n, *gate)``."""
        if isinstance(edit, Mean):
            return self.mean(name)[None]
        if isinstance(edit, OfImage):
            if not 0 <= edit.row < len(self._recording):
                raise IndexError(f"image {edit.row} is out of range of {len(self._recording)}")
            return np.array(self._recording.gate(name, slice(edit.row, edit.row + 1)))
        given = np.asarray(edit.array, np.float32)
        shape = self._recording.gate(name, slice(0, 0)).shape[1:]
        if given.shape == shape:
            given = given[None]
        if given.shape[1:] != shape:
            raise InputError(
                "AS403",
                f"the values for the gate {name} have shape {given.shape}; give {shape}, or one "
                "such array for each image",
            )
        if not np.isfinite(given).all():
            raise InputError(
                "AS423", f"the values for the gate {name} are not all finite; give finite numbers"
            )
        return given

    def _checked_channels(self, gate: Gate, edit: Channels) -> Mapping[int, float]:
        shape = self._recording.gate(gate.name, slice(0, 0)).shape
        sizes = [size for letter, size in zip(gate.axes, shape, strict=False) if letter in _UNITS]
        count = int(np.prod(sizes)) if sizes else 0
        for channel, value in edit.values.items():
            if not 0 <= channel < count:
                has = f"channels 0 to {count - 1}" if count else "no channels"
                raise InputError(
                    "AS422", f"the gate {gate.name} has {has}, not {channel}; choose another one"
                )
            if not np.isfinite(value):
                raise InputError(
                    "AS423",
                    f"the value of channel {channel} of the gate {gate.name} is {value}; give a "
                    "finite number",
                )
        return edit.values


def _set_channels(gate: Gate, wanted: Mapping[int, float], images: int) -> Edit:
    units = sum(letter in _UNITS for letter in gate.axes)

    def edit(values: Tensor, features: Tensor) -> Tensor:
        own = read_values(values, gate, images).clone()
        # Branches, groups and channels follow each other directly behind the images (AXES).
        flat = own.flatten(1, units)
        for channel, value in wanted.items():
            flat[:, channel] = value
        return as_factor(flat.reshape(own.shape), gate)

    return edit
