"""The values of a batch on their way from the device of the network to the host.

On a GPU they leave as the bytes of one tensor, into pinned memory and on a stream of their own. The
host waits for them only where it needs them, which is in another thread than that of the network.
On a CPU they are where they must be, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from attnscope.capturing.batching import to_numpy


@dataclass(frozen=True)
class Place:
    """Where a tensor is among packed bytes."""

    key: str
    dtype: torch.dtype
    shape: torch.Size
    start: int
    """The first byte, a multiple of the size of a value."""

    @property
    def stop(self) -> int:
        """The byte after the last one."""
        return self.start + self.shape.numel() * self.dtype.itemsize


def pack(tensors: Mapping[str, Tensor]) -> tuple[Tensor, list[Place]]:
    """Return the bytes of tensors of one device as one tensor, uint8, and the place of each."""
    places: list[Place] = []
    parts = []
    start = 0
    # The largest values first, so that all are aligned.
    for key, tensor in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        places.append(Place(key, tensor.dtype, tensor.shape, start))
        parts.append(tensor.detach().contiguous().flatten().view(torch.uint8))
        start = places[-1].stop
    return torch.cat(parts), places


def unpack(packed: Tensor, places: Sequence[Place]) -> dict[str, NDArray[Any]]:
    """Return the arrays of `pack`, which share the memory of the bytes on the CPU."""
    return {
        place.key: packed[place.start : place.stop].view(place.dtype).reshape(place.shape).numpy()
        for place in places
    }


class Parcel:
    """Values that are on their way."""

    def __init__(
        self,
        here: Mapping[str, Tensor],
        packed: Tensor | None = None,
        places: Sequence[Place] = (),
        copy: tuple[Tensor, torch.cuda.Event] | None = None,
    ) -> None:
        """Hold what was sent.

        Args:
            here: Tensors that are on the CPU.
            packed: The bytes of the others, on the device.
            places: Their places.
            copy: Pinned memory into which the bytes are copied, and what happens at the end.
        """
        self._here, self._packed, self._places, self._copy = here, packed, places, copy
        self.size = sum(t.nbytes for t in here.values())
        """Bytes that the values take, on the device and on the host together."""
        if packed is not None:
            self.size += 2 * packed.nbytes

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Wait for the values, and return them. Call it once."""
        arrays = {key: to_numpy(tensor) for key, tensor in self._here.items()}
        if self._packed is not None:
            if self._copy is None:
                arrived = self._packed.cpu()
            else:
                arrived, event = self._copy
                event.synchronize()
            arrays |= unpack(arrived, self._places)
            self._packed = None  # free the memory of the device
        return arrays


class Sender:
    """Sends values from a device to the host, and does not wait for them."""

    def __init__(self, device: torch.device) -> None:
        """Prepare a stream, if the device is a GPU."""
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, tensors: Mapping[str, Tensor]) -> Parcel:
        """Send tensors; those of a batch at once."""
        # A tensor of another GPU is copied by itself; a network may be spread over several.
        there = {key: t for key, t in tensors.items() if t.device == self._device}
        here = {key: t.detach().cpu() for key, t in tensors.items() if t.device != self._device}
        if self._device.type == "cpu":
            return Parcel(there | here)
        if not there:
            return Parcel(here)
        packed, places = pack(there)
        if self._stream is None:
            return Parcel(here, packed, places)
        buffer = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            buffer.copy_(packed, non_blocking=True)
            # The thread that waits sleeps, so that it takes no core of the CPU.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return Parcel(here, packed, places, (buffer, event))
