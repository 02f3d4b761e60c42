"""The setup of an experiment: a network, its recording, scored images and donor images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from attnscope.capturing.batching import Batch, batches
from attnscope.capturing.number_types import as_inputs
from attnscope.capturing.pictures import IN_UNIT_RANGE
from attnscope.data.images import LabeledImages, Normalization
from attnscope.errors import InputError
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate
from attnscope.lazy import renamed_names
from attnscope.networks.outputs import OutputAdapter, adapted
from attnscope.recording.places import capture_again
from attnscope.recording.recording import Recording
from attnscope.recording.reopening import expect_fp32
from attnscope.shapes import Array
from attnscope.statistics.copies import copy_groups
from attnscope.statistics.reading import gate_rows, row_chunks
from attnscope.statistics.splits import stratified_sample

_LOGIT_TOLERANCE = 0.01
"""Largest accepted difference to the recorded logits, relative to the largest recorded logit.

Another batch size or device sums in another order, so equal weights do not give equal bits.
"""

_MEDIAN_BYTES = 2**27
"""Most values of a gate of which a median is taken, in bytes."""


@dataclass(frozen=True)
class Target:
    """Gates that are edited together."""

    name: str
    """The name of a gate, ``block PATH``, or ``all``."""
    gates: tuple[str, ...]
    """Names of the gates."""
    kind: str
    """The kind of a single gate; ``block`` or ``all`` for several gates."""


class InterventionSetup:
    """A network, its recording, and the images on which interventions are measured.

    The recorded images are divided in two. Scored images are those on which the effect of an edit
    is measured. All other images are donors: they supply mean gates and the gates of other images.
    No image influences its own measurement. Of copies (`attnscope.statistics.image_copies`), only
    the first may be scored, and then the others are no donors.

    Args:
        model: The network, on the device where it is to run. It is left unchanged.
        dataset: The recorded images in their recorded order: `LabeledImages`, or any data set
            whose items are an image ``(3, H, W)`` and a label.
        recording: The recording of this network on these images, captured in fp32.
        normalization: The normalization with which the recording was captured. Default: none.
        images: Approximate number of images to score: a stratified sample that takes at most half
            of each class.
        seed: Random seed.
        batch_size: Batch size. The outputs of the modules for one batch are held in memory.

    Attributes:
        model: The network.
        recording: The recording.
        gates: The gates of the recording, in the order in which they are applied.
        images: The number of images that was asked for.
        scored: ``(n,)``, sorted rows of the recording: the scored images.
        donors: ``(N,)``, a mask over the rows of the recording: the images that are not scored, and
            of which no copy is scored.
        copies: ``(N,)``, the group of each image, the same for copies; None if there are no copies.
        device: The device of the network.
        batch_size: Batch size.
        seed: Random seed.

    Raises:
        InputError: A number is out of range (AS801 to AS803), the recording does not belong to
            the images or the network (AS804, AS805, AS809), it has no gates (AS806), it was not
            captured in fp32 (AS807), no class has two images (AS808), or the recording has no class
            scores (AS825).
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
        expect_images(images)
        expect_batch_size(batch_size)
        if seed < 0:
            raise InputError("AS803", f"the seed is {seed}; it must be at least 0")
        count = len(dataset)  # type: ignore[arg-type]
        if count != len(recording):
            raise InputError(
                "AS804",
                f"the data has {count} images, but {recording.folder} has {len(recording)}; pass "
                "the images that were captured",
            )
        if not recording.gates:
            raise InputError(
                "AS806",
                f"{recording.folder} has no gates; capture a network that has attention gates",
            )
        expect_fp32(recording.folder, recording.about)
        if not recording.has_scores:
            raise InputError(
                "AS825",
                f"{recording.folder} has no class scores, by which interventions are measured; if "
                "the output of the network has some, "
                f"{capture_again(recording.folder, '--output', 'OUTPUT')}",
            )
        self.model, self.recording, self.seed = model, recording, seed
        self._adapter = OutputAdapter.from_dict(recording.output)
        self.gates: list[Gate] = recording.gates
        self.batch_size = batch_size
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.images = images
        self._dataset = dataset
        self._normalization = normalization or IN_UNIT_RANGE
        self.copies = copy_groups(recording)
        self.scored = scored_rows(recording, images, seed, self.copies)
        self.donors = donor_rows(len(recording), self.scored, self.copies)
        if not len(self.scored):
            raise InputError(
                "AS808",
                f"{recording.folder} has no class with two images that are no copies of each "
                "other, so that no image can serve as a donor; capture more images",
            )
        self._check_recording()

    def __repr__(self) -> str:
        gates = "1 gate" if len(self.gates) == 1 else f"{len(self.gates)} gates"
        return (
            f"<InterventionSetup of {str(self.recording.folder)!r}: {len(self.scored)} scored "
            f"images, {int(self.donors.sum())} donors, {gates}, {self.device}, seed {self.seed}>"
        )

    if not TYPE_CHECKING:  # a type checker shall find misspelled names

        def __getattr__(self, name: str) -> Any:
            """Return an attribute by its name of version 0.1, with a warning."""
            if name not in _RENAMED_ATTRIBUTES:
                raise AttributeError(f"'InterventionSetup' object has no attribute '{name}'")
            new = _RENAMED_ATTRIBUTES[name]
            warnings.warn(
                f"InterventionSetup.{name} is now {new}; the old name will be removed in the next "
                "version",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(self, new)

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a random generator for one purpose.

        Each purpose has its own stream, so that a change in one does not change another.
        """
        return _rng(self.seed, purpose)

    def batches(
        self, rows: Sequence[int] | NDArray[np.int64], at_least: int = 1
    ) -> Iterator[Batch]:
        """Yield images as the network sees them, in batches.

        Args:
            rows: Rows of the recording.
            at_least: Smallest size of all batches but the last, even if the batch size is smaller.
        """
        wanted = rows if isinstance(rows, range) else [int(row) for row in rows]
        size = max(self.batch_size, at_least)
        found = batches(self._dataset, wanted, size, self._normalization, self.device)
        yield from as_inputs(found, self.model)

    def sample(self, images: int) -> Int64[Array, " rows"]:
        """Return a stratified sample of the scored rows, sorted.

        Args:
            images: Size of the sample. All scored rows are returned if there are no more.
        """
        if images >= len(self.scored):
            return self.scored
        labels = self.recording.labels[self.scored]
        order = self.rng("fewer images").permutation(len(labels))
        # Each class is spread evenly over [0, 1), so that any prefix of the sorted places has
        # about the same share of each class.
        place = np.empty(len(labels))
        starts = self.rng("starts")
        for k in np.unique(labels):
            of_class = order[labels[order] == k]
            place[of_class] = (np.arange(len(of_class)) + starts.random()) / len(of_class)
        chosen = np.argsort(place, kind="stable")[:images]
        sample: NDArray[np.int64] = self.scored[np.sort(chosen)]
        return sample

    @contextmanager
    def eval_without_gradients(self) -> Iterator[None]:
        """Put the network in eval mode and disable gradients within the block.

        There, the network returns the logits that were recorded, whatever it returns outside.
        """
        with eval_mode(self.model), torch.no_grad(), adapted(self.model, self._adapter):
            yield

    def targets(self) -> list[Target]:
        """Return the targets of edits: each gate, each block with several gates, and all gates.

        The gates of a block are those that are applied in the forward of the same module.
        """
        targets = [Target(gate.name, (gate.name,), gate.kind) for gate in self.gates]
        for module in dict.fromkeys(gate.applied_in for gate in self.gates):
            names = tuple(gate.name for gate in self.gates if gate.applied_in == module)
            if 1 < len(names) < len(self.gates):
                targets.append(Target(f"block {module}", names, "block"))
        if len(self.gates) > 1:
            targets.append(Target("all", tuple(gate.name for gate in self.gates), "all"))
        return targets

    def mean_gate(self, name: str) -> Float32[Array, "*gate"]:
        """Return the mean of a gate over the donors, such as ``(C,)`` or ``(H, W)``."""
        total, count = np.zeros(()), 0
        for rows in row_chunks(len(self.recording)):
            values = self.recording.gate(name, rows)[self.donors[rows]]
            total = total + values.sum(0, dtype=np.float64)
            count += len(values)
        return np.asarray(total / count, np.float32)

    def median_gate(self, name: str) -> Float32[Array, "*gate"]:
        """Return the median of a gate over the donors, such as ``(C,)`` or ``(H, W)``.

        Of a gate with more than 128 MiB of values, it is the median over a random sample of them.
        """
        donors = np.flatnonzero(self.donors)
        most = max(_MEDIAN_BYTES // self.recording.gate(name, slice(0, 1)).nbytes, 1)
        if len(donors) > most:
            donors = np.sort(self.rng("median").permutation(donors)[:most])
        return np.asarray(np.median(self.gates_of(name, donors), axis=0), np.float32)

    def class_mean_gates(self, name: str) -> Float32[Array, " classes *gate"]:
        """Return the mean of a gate over the donors of each class, such as ``(K, C)``.

        Classes are the true ones. The mean of a class without donors is NaN.
        """
        labels = self.recording.labels
        shape = self.recording.gate(name, slice(0, 1)).shape[1:]
        total = np.zeros((len(self.recording.classes), *shape))
        for rows in row_chunks(len(self.recording)):
            kept = self.donors[rows]
            np.add.at(total, labels[rows][kept], self.recording.gate(name, rows)[kept])
        count = np.bincount(labels[self.donors], minlength=len(total)).astype(np.float64)
        count[count == 0] = np.nan
        return (total / count.reshape(-1, *[1] * len(shape))).astype(np.float32)

    def gates_of(self, name: str, rows: Int64[Array, " rows"]) -> Float32[Array, " rows *gate"]:
        """Return a gate of some images, in the order of ``rows``, such as ``(n, C)``."""
        return gate_rows(self.recording, name, rows)

    def _check_recording(self) -> None:
        """Raise an `InputError` if the recording is of other images or of another network."""
        batch = next(self.batches(self.scored[: self.batch_size]))
        rows = self.scored[: len(batch.labels)]
        known = self.recording.rows["path"].to_numpy()[rows]
        if (batch.labels.numpy() != self.recording.labels[rows]).any() or (
            isinstance(self._dataset, LabeledImages) and list(known) != batch.paths
        ):
            raise InputError(
                "AS805",
                f"the images or labels are not those of {self.recording.folder}; pass the images "
                "that were captured, in the same order",
            )
        with self.eval_without_gradients():
            logits = self.model(batch.x).float().cpu().numpy()
        recorded = self.recording.logits[rows]
        if logits.shape != recorded.shape or (
            np.abs(logits - recorded).max() > _LOGIT_TOLERANCE * max(np.abs(recorded).max(), 1.0)
        ):
            raise InputError(
                "AS809",
                f"the network does not give the logits recorded in {self.recording.folder}; pass "
                "the network and weights that were captured, or "
                f"{capture_again(self.recording.folder)}",
            )


def scored_rows(
    recording: Recording,
    images: int,
    seed: int,
    copies: Int64[Array, " images"] | None = None,
) -> Int64[Array, " rows"]:
    """Return the rows of a recording that are scored: a stratified sample, sorted.

    Args:
        recording: The recording.
        images: Approximate number of images.
        seed: Random seed.
        copies: Group of each image, ``(N,)``; only the first image of a group can be scored.
    """
    rng = _rng(seed, "images")
    if copies is None:
        return stratified_sample(recording.labels, images, rng)
    first: NDArray[np.int64] = np.sort(np.unique(copies, return_index=True)[1])
    return first[stratified_sample(recording.labels[first], images, rng)]


def donor_rows(
    count: int,
    scored: Int64[Array, " rows"],
    copies: Int64[Array, " images"] | None = None,
) -> Bool[Array, " images"]:
    """Return which images are donors: those that are not scored, nor copies of scored ones.

    Args:
        count: Number of images.
        scored: Rows of the scored images.
        copies: Group of each image, ``(N,)``.

    Returns:
        A mask, ``(N,)``.
    """
    donors: NDArray[np.bool_] = np.ones(count, bool)
    donors[scored] = False
    if copies is not None:
        donors &= ~np.isin(copies, copies[scored])
    return donors


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose.encode()])


def expect_images(images: int) -> None:
    """Raise an `InputError` unless an experiment uses at least one image."""
    if images < 1:
        raise InputError(
            "AS801", f"the number of images is {images}; it must be at least 1, usually 1000"
        )


def expect_batch_size(batch_size: int) -> None:
    """Raise an `InputError` unless a batch has at least one image."""
    if batch_size < 1:
        raise InputError("AS802", f"the batch size is {batch_size}; it must be at least 1")


def expect_draws(draws: int) -> None:
    """Raise an `InputError` unless there is at least one random draw."""
    if draws < 1:
        raise InputError("AS817", f"the number of random draws is {draws}; it must be at least 1")


_RENAMED_ATTRIBUTES = {"others": "donors", "quiet": "eval_without_gradients"}
__getattr__ = renamed_names(__name__, {"Bench": "InterventionSetup"})
