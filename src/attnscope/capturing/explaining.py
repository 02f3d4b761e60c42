"""Attribution methods that need many passes, for some images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from attnscope.attribution import ATTRIBUTIONS
from attnscope.capturing.batching import batches, to_numpy
from attnscope.capturing.number_types import as_inputs
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.label_kinds import CLASS
from attnscope.progress import progress_bar
from attnscope.recording.attributed import Attributions
from attnscope.recording.format import targets_of_labels

_LARGEST_VALUE = torch.finfo(torch.float16).max
_BATCH_SIZE = 32


def stored_map(cam: Tensor) -> Tensor:
    """Return a batch of maps ``(n, h, w)`` as it is stored, in float16, on its device.

    Values are clamped to the range of float16, beyond which they would become infinite.
    """
    return cam.clamp(-_LARGEST_VALUE, _LARGEST_VALUE).half()


class Explanations:
    """The maps of some images, computed before the main pass and returned shard by shard."""

    def __init__(self, attributions: Attributions, count: int) -> None:
        self._attributions = attributions
        self._rows = attributions.rows(count)
        self._maps: dict[str, dict[int, NDArray[np.float16]]] = {}

    def compute(
        self,
        model: nn.Module,
        dataset: LabeledImages | Dataset[tuple[Tensor, int]],
        shards: Sequence[range],
        normalization: Normalization,
        device: torch.device,
        progress: bool,
        label_kind: str = CLASS,
    ) -> None:
        """Compute the maps of the images of some shards, in float32.

        Args:
            model: The network, in eval mode and without the hooks of the tracer. It returns logits.
            dataset: As for `attnscope.capture`.
            shards: The rows of each shard.
            normalization: As for `attnscope.capture`.
            device: Device of the network.
            progress: Whether to show a progress bar.
            label_kind: What the labels are; only images with class labels have a true class.
        """
        wanted = [int(row) for row in self._rows if any(row in shard for shard in shards)]
        done = 0
        shown = progress and bool(wanted)
        with progress_bar(len(wanted), "image", description="attributions", enabled=shown) as bar:
            found = batches(dataset, wanted, _BATCH_SIZE, normalization, device, label_kind)
            for batch in as_inputs(found, model):
                rows = wanted[done : done + len(batch.labels)]
                done += len(rows)
                with torch.no_grad():
                    predicted = model(batch.x).argmax(1)
                classes = {"predicted": predicted, "true": batch.labels.to(device)}
                for method in self._attributions.methods:
                    explain = ATTRIBUTIONS.find(method.method).explain
                    for target in targets_of_labels(label_kind):
                        found_maps = explain(model, batch.x, classes[target], method.layer)
                        maps = to_numpy(stored_map(found_maps))
                        kept = self._maps.setdefault(method.key(target), {})
                        kept |= dict(zip(rows, maps, strict=True))
                bar.update(len(rows))

    def arrays(self, rows: range) -> dict[str, NDArray[Any]]:
        """Return the maps of a shard, ``(n, h, w)`` per method; empty if no image of it has any."""
        inside = [int(row) for row in self._rows if row in rows]
        if not inside:
            return {}
        return {key: np.stack([maps[row] for row in inside]) for key, maps in self._maps.items()}
