"""The host's part of a capture: what arrives from the device is checked and becomes shards.

On a GPU this happens in threads, while the network runs on the next batches. On a CPU, where both
would need the same cores, it happens in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from attnscope.capturing.arrays import FINITE, FORM, LOSS, PREDICTION, ShardArrays, image_rows
from attnscope.capturing.background import Background
from attnscope.capturing.batching import Batch, thumbnails, to_numpy
from attnscope.capturing.transfer import Parcel
from attnscope.errors import InputError
from attnscope.gates.values import Constancy
from attnscope.kinds import Gate
from attnscope.networks.outputs import OutputAdapter
from attnscope.recording.moments import ClassSums

Arrays = dict[str, NDArray[Any]]
Write = Callable[[Arrays, pd.DataFrame, int], None]
_BATCHES_AHEAD = 4  # batches whose values are on their way
_BYTES_AHEAD = 1 << 29  # of these values
_WRITING = 2  # shards that are written while the next one is filled
_BYTES_WRITING = 1 << 29


@dataclass(frozen=True)
class Arrival:
    """The values of a batch, on their way."""

    batch: Batch
    parcel: Parcel
    adapter: OutputAdapter
    constant: Sequence[Constancy] = ()
    """What must hold of the gates. The answers are in the parcel, as `gate_check` calls them."""

    def arrays(self) -> Arrays:
        """Wait for the values, check them and return them.

        Raises:
            InputError: Logits are not finite, the output is not of its form, or a gate varies along
                an axis along which it was constant on the sample.
        """
        arrays = self.parcel.arrays()
        for number, check in enumerate(self.constant):
            if not arrays.pop(gate_check(number)).all():
                raise check.refusal()
        form, finite = arrays.pop(FORM, None), arrays.pop(FINITE, None)
        if form is not None and not form.all():
            raise self.adapter.refusal()
        if finite is not None and not finite.all():
            first = self.batch.paths[int(np.argmin(finite))]
            raise InputError(
                "AS664",
                f"the network's logits are not finite, first for image {first}; capture in fp32, "
                "or use weights of a run that did not diverge",
            )
        return arrays


def gate_check(number: int) -> str:
    """Return the name of the answer to a check of a gate."""
    return f"check/gate/{number}"


class Shard:
    """One shard, filled batch by batch in the order of the images."""

    def __init__(self, index: int, count: int, gates: Sequence[Gate], moments: bool) -> None:
        """Prepare an empty shard.

        Args:
            index: Its position in the order of the images.
            count: Its number of images.
            gates: The gates that are recorded.
            moments: Whether it holds sums over the images of each class.
        """
        self.index, self._moments = index, moments
        self._filled = ClassSums(gates) if moments else ShardArrays(count)
        self._tables: list[pd.DataFrame] = []

    def add(self, arrival: Arrival) -> None:
        """Wait for the next batch, and add it.

        Raises:
            InputError: As `Arrival.arrays`, or an array has another shape than before.
        """
        batch, arrays = arrival.batch, arrival.arrays()
        self._tables.append(image_rows(batch, arrays))
        for name in (PREDICTION, LOSS):
            arrays.pop(name, None)
        if not self._moments:
            arrays["images"] = thumbnails(batch.pictures)
        if batch.targets is not None:
            arrays["targets"] = to_numpy(batch.targets)
        self._filled.add(arrays, batch.labels.numpy())

    def content(self) -> tuple[Arrays, pd.DataFrame]:
        """Return the arrays, and one row per image."""
        return self._filled.arrays(), pd.concat(self._tables, ignore_index=True)


def has_threads(device: torch.device) -> bool:
    """Return whether the host's part happens in threads: where the network needs no CPU core."""
    return device.type == "cuda"


class ShardLine:
    """Fills shards with what arrives, and writes them."""

    def __init__(
        self,
        write: Write,
        progress: Callable[[int], object],
        fillers: Background,
        writers: Background,
    ) -> None:
        """Describe what happens; `shard_line` prepares the threads."""
        self._write, self._progress = write, progress
        self._fillers, self._writers = fillers, writers

    def add(self, shard: Shard, arrival: Arrival) -> None:
        """Add a batch to a shard, as soon as it has arrived."""

        def fill() -> None:
            shard.add(arrival)
            self._progress(len(arrival.batch.labels))

        self._fillers.submit(fill, arrival.parcel.size)

    def close(self, shard: Shard) -> None:
        """Write a shard to which all batches were added."""

        def hand_over() -> None:
            arrays, rows = shard.content()
            size = sum(array.nbytes for array in arrays.values())
            self._writers.submit(lambda: self._write(arrays, rows, shard.index), size)

        self._fillers.submit(hand_over)


@contextmanager
def shard_line(
    device: torch.device, write: Write, progress: Callable[[int], object]
) -> Iterator[ShardLine]:
    """Yield the host's part of a capture. At the end of the block all shards are written.

    An error of a batch or a shard is raised in the block when a later one is added, or at its end.
    If the block raises, shards that are complete are written before.

    Args:
        device: The device of the network.
        write: Called with the arrays, the rows and the index of each shard. Shards may be written
            at the same time, and are begun in their order.
        progress: Called with the number of images after each batch.
    """
    threads = has_threads(device)
    with (
        Background(_WRITING if threads else 0, _WRITING, _BYTES_WRITING) as writers,
        Background(1 if threads else 0, _BATCHES_AHEAD, _BYTES_AHEAD) as fillers,
    ):
        yield ShardLine(write, progress, fillers, writers)
