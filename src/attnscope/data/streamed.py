"""Labeled images that are decoded from files whenever they are needed, in constant memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from attnscope.data.images import LabeledImages, Rows, ValueSums
from attnscope.data.memory import as_gib, available_memory
from attnscope.data.tasks import FileDecoder, Task, as_tensor
from attnscope.data.workers import DecodingPool
from attnscope.errors import InputError


@dataclass(frozen=True)
class ImageFiles:
    """Image files that have been read once, and how they are decoded again."""

    decoder: FileDecoder
    pool: DecodingPool
    facts: NDArray[Any]
    """What was found in each file, ``(N,)`` of `attnscope.data.tasks.fact_type`."""
    sha256: str | None = None
    """The hash of paths, labels and pixels, if it is known."""


class StreamedImages(LabeledImages):
    """Images of one size in files, with the label and the path of each.

    It has the names of `LabeledImages`, and gives the same values. Selecting, cropping and
    converting images reads nothing; `read` decodes them, in worker processes, ahead of their use.
    ``images`` decodes all at once, which suits a few images. A file that is no longer as it was
    when the images were loaded is refused.
    """

    def __init__(
        self, files: ImageFiles, labels: Tensor, paths: list[str], classes: list[str]
    ) -> None:
        """Describe images; nothing is read.

        Args:
            files: How they are decoded, and what was found in them.
            labels: int64, ``(N,)``.
            paths: Their paths in the folder of the decoder.
            classes: The names of the classes.
        """
        values = {"files": files, "labels": labels, "paths": paths, "classes": classes}
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the base class is frozen

    files: ImageFiles

    @property
    def images(self) -> UInt8[Tensor, "images channels height width"]:
        """The pixels of all images, which are decoded now; uint8, ``(N, C, H, W)``.

        Raises:
            InputError: They do not fit into memory, or a file has changed or cannot be read.
        """
        size, limit = int(np.prod(self.shape, dtype=np.int64)), available_memory()
        if size > limit:
            raise InputError(
                "AS217",
                f"{len(self)} images need {as_gib(size)} of memory at once, and {as_gib(limit)} "
                "are available; select some of them, or go through them with read()",
            )
        return next(self.read([slice(0, len(self))]))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, C, H, W)``."""
        return len(self), *self.files.decoder.shape

    def read(
        self, batches: Iterable[Rows]
    ) -> Iterator[UInt8[Tensor, "batch channels height width"]]:
        """Yield the pixels of some images, batch by batch; see `LabeledImages.read`.

        Raises:
            InputError: A file cannot be read, or has changed since the images were loaded.
        """
        sizes: deque[int] = deque()
        asked: deque[NDArray[np.int64]] = deque()
        batch, filled = self._empty(0), 0
        for found in self.files.pool.run(self._tasks(batches, sizes, asked)):
            self._expect_unchanged(asked.popleft(), found.facts, found.problems)
            if not filled:
                batch = self._empty(sizes[0])
            batch[filled : filled + len(found.pixels)] = as_tensor(found)
            filled += len(found.pixels)
            if filled == sizes[0]:
                sizes.popleft()
                filled = 0
                yield batch

    def sum_values(self) -> ValueSums:
        """Return the sums over all pixels of each channel.

        Those of the whole images of a training split are known; others are decoded for it.
        """
        facts, decoder = self.files.facts, self.files.decoder
        if decoder.crop is not None or decoder.gray or not facts["sums"].shape[1]:
            return self._read_sums()
        _, height, width = decoder.shape
        sums, squares = (facts[name].sum(0).tolist() for name in ("sums", "squares"))
        return ValueSums(len(self) * height * width, tuple(sums), tuple(squares))

    def pixel_hashes(self) -> NDArray[np.uint64]:
        """Return a hash of the pixels of each image as it was read; see `LabeledImages`."""
        hashes: NDArray[np.uint64] = self.files.facts["hash"].copy()
        return hashes

    def sha256(self) -> str:
        """Return the SHA-256 hash of paths, labels and pixels."""
        if self.files.sha256 is not None:
            return self.files.sha256
        digest = hashlib.sha256(hashed_header(self.paths, self.labels))
        step = self.files.decoder.task_images
        starts = range(0, len(self), step)
        for pixels in self.read([slice(start, start + step) for start in starts]):
            digest.update(pixels.numpy().data)
        return digest.hexdigest()

    def center_crop(self, size: int) -> StreamedImages:
        """Return the central ``size`` × ``size`` pixels of each image."""
        if self.shape[-1] == size:
            return self
        return self._decoded_with(crop=size)

    def _selected(self, index: NDArray[np.int64]) -> Self:
        files = replace(self.files, facts=self.files.facts[index], sha256=None)
        paths = [self.paths[i] for i in index]
        return type(self)(files, self.labels[index], paths, self.classes)

    def _in_gray(self) -> StreamedImages:
        return self._decoded_with(gray=True)

    def _read_sums(self) -> ValueSums:
        step = self.files.decoder.task_images
        starts = range(0, len(self), step)
        parts = [
            LabeledImages(pixels, self.labels[:0], [], []).sum_values()
            for pixels in self.read([slice(start, start + step) for start in starts])
        ]
        return ValueSums(
            sum(part.pixels for part in parts),
            tuple(map(sum, zip(*(part.sums for part in parts), strict=True))),
            tuple(map(sum, zip(*(part.squares for part in parts), strict=True))),
        )

    def _labeled(self, labels: Tensor, classes: list[str]) -> StreamedImages:
        return StreamedImages(replace(self.files, sha256=None), labels, self.paths, classes)

    def _decoded_with(self, **changes: Any) -> StreamedImages:
        decoder = replace(self.files.decoder, **changes)
        files = replace(self.files, decoder=decoder, sha256=None)
        return StreamedImages(files, self.labels, self.paths, self.classes)

    def _empty(self, count: int) -> Tensor:
        return torch.empty((count, *self.files.decoder.shape), dtype=torch.uint8)

    def _tasks(
        self, batches: Iterable[Rows], sizes: deque[int], asked: deque[NDArray[np.int64]]
    ) -> Iterator[Task]:
        """Yield the tasks of each batch; note the size of each batch and the rows of each task."""
        decoder = self.files.decoder
        step = decoder.task_images
        for rows in batches:
            if isinstance(rows, slice):
                rows = range(len(self))[rows]
            index = np.asarray(rows, np.int64)
            sizes.append(len(index))
            for start in range(0, max(len(index), 1), step):  # one task of an empty batch
                part = index[start : start + step]
                asked.append(part)
                yield Task(decoder, tuple(self.paths[i] for i in part))

    def _expect_unchanged(
        self, rows: NDArray[np.int64], facts: NDArray[Any], problems: list[str]
    ) -> None:
        """Raise an `InputError` if files are not as they were when the images were loaded."""
        if problems:
            raise InputError(
                "AS243",
                f"the image {problems[0]} cannot be read any more; it could be read when the "
                "images were loaded: restore it and run the command again",
            )
        before = self.files.facts[rows]
        for row, old, new in zip(rows, before, facts, strict=True):
            if old["bytes"] != new["bytes"] or old["changed"] != new["changed"]:
                raise InputError(
                    "AS243",
                    f"the image {self.paths[row]} has changed since the images were loaded; leave "
                    "images alone while they are used, and run the command again",
                )


def hashed_header(paths: list[str], labels: Tensor) -> bytes:
    """Return what the hash of labeled images covers before their pixels."""
    return "\n".join(paths).encode() + labels.numpy().tobytes()
