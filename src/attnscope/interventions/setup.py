"""A network, its recording, and which images are scored and which only lend their gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from attnscope.capturing.batching import IN_UNIT_RANGE, Batch, batches
from attnscope.data.images import LabeledImages, Normalization
from attnscope.errors import InputError
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate
from attnscope.lazy import renamed_names
from attnscope.recording.recording import Recording
from attnscope.statistics.reading import gate_rows, row_chunks
from attnscope.statistics.resampling import stratified_sample

_SAME_LOGITS = 0.01
"""How far logits may lie from the recorded ones, relative to the largest: another batch size or
another device adds up in another order."""


@dataclass(frozen=True)
class Target:
    """Gates that are edited together."""

    name: str
    """A gate's name, ``block PATH``, or ``all``."""
    gates: tuple[str, ...]
    kind: str
    """That of the gate; ``block`` or ``all`` for several."""


class InterventionSetup:
    """What interventions need: a network, images, and a recording of what it did on them.

    Args:
        model: the network, on the device where it is to run; it is left as it was.
        dataset: the images of the recording, in its order: of `attnscope.data`, or any data set
            whose items are an image ``(3, H, W)`` and a label.
        recording: of this network on these images, in fp32.
        normalization: as for `attnscope.capture`.
        images: about how many are scored; of each class its share, and at most half of it.
        seed: of all that is drawn.
        batch_size: images per forward. What the modules of one batch return is held in memory.

    Raises:
        InputError: the recording is of other images, of another network or precision, or has too
            few images.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: LabeledImages | Dataset[tuple[Tensor, int]],
        recording: Recording,
        *,
        normalization: Normalization | None = None,
        images: int = 1000,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        if images < 1:
            raise InputError(f"{images} images cannot be scored; take 1 or more, usually 1000")
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}; it must be 1 or more")
        if seed < 0:
            raise InputError(f"seed is {seed}; it must be 0 or more")
        if len(dataset) != len(recording):  # type: ignore[arg-type]
            raise InputError(
                f"{recording.folder} is of {len(recording)} images, and the data has "
                f"{len(dataset)}; take the data that was captured"  # type: ignore[arg-type]
            )
        if not recording.gates:
            raise InputError(f"{recording.folder} holds no gate; there is nothing to intervene on")
        precision = recording.about.get("precision", "fp32")
        if precision != "fp32":
            raise InputError(
                f"{recording.folder} was captured in {precision}; capture with --precision fp32"
            )
        self.model, self.recording, self.seed = model, recording, seed
        self.gates: list[Gate] = recording.gates
        self.batch_size = batch_size
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._dataset = dataset
        self._normalization = normalization or IN_UNIT_RANGE
        self.scored = stratified_sample(recording.labels, images, self.rng("images"))
        """``(n,)``, rows of the recording, sorted."""
        if not len(self.scored):
            raise InputError(
                f"{recording.folder} has one image a class; means must come from other images"
            )
        self.others = np.ones(len(recording), bool)
        """``(N,)``, whether a row lends its gates and is not scored."""
        self.others[self.scored] = False
        self._expect_same()

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator for one purpose: what is drawn for one thing does not move another."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def batches(
        self, rows: Sequence[int] | NDArray[np.int64], at_least: int = 1
    ) -> Iterator[Batch]:
        """The images of some rows of the recording, as the network gets them.

        Batches but the last one are not smaller than ``at_least``, whatever the batch size is.
        """
        wanted = rows if isinstance(rows, range) else [int(row) for row in rows]
        size = max(self.batch_size, at_least)
        yield from batches(self._dataset, wanted, size, self._normalization, self.device)

    def sample(self, images: int) -> NDArray[np.int64]:
        """About so many of the scored rows, of each class its share, sorted."""
        if images >= len(self.scored):
            return self.scored
        labels = self.recording.labels[self.scored]
        order = self.rng("fewer images").permutation(len(labels))
        # Each class spread evenly over one row: of any beginning of it each class has its share.
        place = np.empty(len(labels))
        starts = self.rng("starts")
        for k in np.unique(labels):
            mine = order[labels[order] == k]
            place[mine] = (np.arange(len(mine)) + starts.random()) / len(mine)
        chosen = np.argsort(place, kind="stable")[:images]
        found: NDArray[np.int64] = self.scored[np.sort(chosen)]
        return found

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """The network in eval mode and without gradients, for a block."""
        with eval_mode(self.model), torch.no_grad():
            yield

    def targets(self) -> list[Target]:
        """Each gate, each block with several of them, and all together.

        A block is what multiplies in the forward of one module.
        """
        found = [Target(gate.name, (gate.name,), gate.kind) for gate in self.gates]
        for place in dict.fromkeys(gate.applied_in for gate in self.gates):
            names = tuple(gate.name for gate in self.gates if gate.applied_in == place)
            if 1 < len(names) < len(self.gates):
                found.append(Target(f"block {place}", names, "block"))
        if len(self.gates) > 1:
            found.append(Target("all", tuple(gate.name for gate in self.gates), "all"))
        return found

    def mean_gate(self, name: str) -> NDArray[np.float32]:
        """The mean of a gate over the images that are not scored: ``(C,)``, ``(H, W)`` ..."""
        total, count = np.zeros(()), 0
        for rows in row_chunks(len(self.recording)):
            values = self.recording.gate(name, rows)[self.others[rows]]
            total = total + values.sum(0, dtype=np.float64)
            count += len(values)
        return np.asarray(total / count, np.float32)

    def class_mean_gates(self, name: str) -> NDArray[np.float32]:
        """That of each class: ``(K, C)``, ``(K, H, W)`` ...; NaN for a class without such images.

        The classes are the true ones.
        """
        labels = self.recording.labels
        shape = self.recording.gate(name, slice(0, 1)).shape[1:]
        total = np.zeros((len(self.recording.classes), *shape))
        for rows in row_chunks(len(self.recording)):
            kept = self.others[rows]
            np.add.at(total, labels[rows][kept], self.recording.gate(name, rows)[kept])
        count = np.bincount(labels[self.others], minlength=len(total)).astype(np.float64)
        count[count == 0] = np.nan
        return (total / count.reshape(-1, *[1] * len(shape))).astype(np.float32)

    def gates_of(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """A gate of some images, in any order: ``(n, C)``, ``(n, H, W)`` ..."""
        return gate_rows(self.recording, name, rows)

    def _expect_same(self) -> None:
        """Refuses a recording of other images or of another network."""
        batch = next(self.batches(self.scored[: self.batch_size]))
        rows = self.scored[: len(batch.labels)]
        known = self.recording.rows["path"].to_numpy()[rows]
        if (batch.labels.numpy() != self.recording.labels[rows]).any() or (
            isinstance(self._dataset, LabeledImages) and list(known) != batch.paths
        ):
            raise InputError(
                f"{self.recording.folder} is of other images; take the data that was captured"
            )
        with self.quiet():
            logits = self.model(batch.x).float().cpu().numpy()
        recorded = self.recording.logits[rows]
        if logits.shape != recorded.shape or (
            np.abs(logits - recorded).max() > _SAME_LOGITS * max(np.abs(recorded).max(), 1.0)
        ):
            raise InputError(
                f"{self.recording.folder} is of another network or other weights; capture again"
            )


__getattr__ = renamed_names(__name__, {"Bench": "InterventionSetup"})
