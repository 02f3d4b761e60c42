"""Read the image files of a folder once, and count what was changed in them."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from attnscope.data.changes import Changes
from attnscope.data.decoding import MAX_12_BIT, MAX_16_BIT, highest_value, read_files
from attnscope.data.memory import image_workers
from attnscope.data.streamed import ImageFiles
from attnscope.data.tasks import DecodedTask, FileDecoder, Task, as_tensor, fact_type
from attnscope.data.workers import DecodingPool, run_in_threads

_SCANNED = 256  # files whose highest value is read at once
_MANY = 10_000  # images for which starting processes pays


@dataclass
class FilesRead:
    """What was read from some files."""

    names: list[str]
    """Their paths in the image folder."""
    facts: NDArray[Any]
    """``(N,)``, of `attnscope.data.tasks.fact_type`."""
    unreadable: list[str]
    """One line for each file that cannot be read, with the reason."""
    images: Tensor | None
    """uint8, ``(N, C, size, size)``; None if images are streamed. The rows of files that cannot be
    read have no meaning."""
    sha256: str | None = None
    """The hash of the images, if they are streamed and all are read as they are used."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows of the files that can be read."""
        return np.flatnonzero(self.facts["readable"])


class FolderImages:
    """Reads image files of one folder in one size: into memory, or to be streamed later.

    Images with 16 bits per channel are scaled alike in the whole folder: if none of their values is
    above 4095, they are images of 12 bits.
    """

    def __init__(self, root: Path, size: int, channels: int, pool: DecodingPool | None) -> None:
        """Read nothing yet.

        Args:
            root: The image folder.
            size: Height and width of the images, in pixels.
            channels: Number of channels: 1, 3 or 4.
            pool: The processes that decode images that are streamed. Default: images are decoded
                into memory.
        """
        self._decoder = FileDecoder(root, size, channels)
        self._pool = pool
        self._highest = -1

    def read(self, names: list[str], header: bytes = b"", *, summed: bool = False) -> FilesRead:
        """Read files, into memory or for what is known of them.

        Args:
            names: Their paths in the image folder.
            header: What the hash of the images covers before their pixels.
            summed: Whether the values of streamed images are summed, for the normalization.
        """
        images = None
        if self._pool is None:
            images = torch.empty((len(names), *self._decoder.shape), dtype=torch.uint8)
        facts = np.zeros(len(names), fact_type(self._decoder.shape[0] if summed else 0))
        read = FilesRead(names, facts, [], images)
        digest = hashlib.sha256(header)
        self._fill(read, np.arange(len(names)), digest)
        if self._pool is not None and read.facts["readable"].all():
            read.sha256 = digest.hexdigest()
        return read

    def scale(self, parts: list[FilesRead], others: Sequence[str]) -> None:
        """Choose the white of images with 16 bits per channel, and read their pixels.

        Args:
            parts: What `read` returned.
            others: More files of the folder, which are not read but have the same scale.
        """
        readable = [part.facts[part.rows]["highest"] for part in parts]
        self._highest = max((int(values.max()) for values in readable if len(values)), default=-1)
        if self._highest < 0:
            return
        known = {name for part in parts for name in part.names}
        left = [name for name in others if name not in known]
        for start in range(0, len(left), _SCANNED):
            if self._highest > MAX_12_BIT:
                break
            read = partial(highest_value, channels=self._decoder.channels)
            values = read_files(self._decoder.root, left[start : start + _SCANNED], read)
            self._highest = max([self._highest, *(v for v in values if isinstance(v, int))])
        white = MAX_16_BIT if self._highest > MAX_12_BIT else MAX_12_BIT
        self._decoder = replace(self._decoder, white=white)
        for part in parts:
            deep = part.facts["readable"] & (part.facts["highest"] >= 0)
            if deep.any():
                part.sha256 = None
                self._fill(part, np.flatnonzero(deep))

    @property
    def white(self) -> int | None:
        """The value of white in images with 16 bits per channel; None before `scale`."""
        return self._decoder.white

    def files(self, part: FilesRead) -> ImageFiles:
        """Return how the readable files of a part are decoded again, if images are streamed."""
        assert self._pool is not None
        return ImageFiles(self._decoder, self._pool, part.facts[part.rows], part.sha256)

    def changes(self, part: FilesRead) -> Changes:
        """Return what was changed in the readable files of a part."""
        facts = part.facts[part.rows]
        white = self._decoder.white
        bits = 12 if white == MAX_12_BIT else 16
        return Changes(
            {
                f"{{images}} have 16 bits per channel; values are scaled as {bits} bits ({white} "
                f"is white, and {self._highest} is the highest value)": facts["highest"] >= 0,
                "{images} have transparent pixels, composed on white": facts["transparent"],
                "{images} were turned upright by their EXIF orientation": facts["turned"],
                "of {images} that are not square, the central square is used": facts["cropped"],
            }
        )

    def _run(self, tasks: Iterable[Task], count: int) -> Iterator[DecodedTask]:
        """Yield what each task gives, decoded in parallel."""
        if self._pool is not None:
            return self._pool.run(tasks)
        # Threads wait for each other, for a large part of the time of small images. Processes that
        # are not forked would import the program of a user again.
        if count < _MANY or multiprocessing.get_all_start_methods()[0] != "fork":
            return run_in_threads(tasks)
        return DecodingPool(image_workers()).run(tasks)

    def _fill(self, read: FilesRead, rows: NDArray[np.int64], digest: Any = None) -> None:
        """Read the files of some rows, and fill in what is found."""
        names = [read.names[row] for row in rows]
        tasks = self._decoder.tasks(names, summed=read.facts["sums"].size > 0)
        found_in = self._run(tasks, len(rows))
        start = 0
        with tqdm(
            total=len(rows),
            unit="image",
            desc="reading images",
            # None: only in a terminal. Images that fit into memory are read soon.
            disable=True if self._pool is None else None,
            leave=False,
            dynamic_ncols=True,
        ) as bar:
            for found in found_in:
                own = rows[start : start + len(found.facts)]
                read.facts[own] = found.facts
                read.unreadable += found.problems
                if read.images is not None:
                    read.images[own] = as_tensor(found)
                elif digest is not None:
                    digest.update(found.pixels.data)
                start += len(own)
                bar.update(len(own))
