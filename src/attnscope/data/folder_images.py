"""Decode the image files of a folder into memory, and count what was changed in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from attnscope.data.decoding import (
    MAX_12_BIT,
    MAX_16_BIT,
    Decoded,
    decode,
    highest_value,
    read_files,
)

_SCANNED = 256  # files whose highest value is read at once


@dataclass
class DecodedFiles:
    """The images of some files."""

    files: list[Path]
    images: Tensor
    """uint8, ``(N, C, size, size)``. The rows of files that cannot be read have no meaning."""
    unreadable: list[str]
    """One line for each file that cannot be read, with the reason."""
    facts: dict[Path, Decoded] = field(default_factory=dict)
    """What was found in each file that can be read, without its pixels."""

    @property
    def rows(self) -> list[int]:
        """The rows of the files that can be read."""
        return [row for row, file in enumerate(self.files) if file in self.facts]


class FolderImages:
    """Reads image files of one folder in one size.

    Images with 16 bits per channel are scaled alike in the whole folder: if none of their values is
    above 4095, they are images of 12 bits.
    """

    def __init__(self, root: Path, size: int, channels: int) -> None:
        self._root, self._size, self._channels = root, size, channels
        self._white: int | None = None
        self._highest = -1

    def read(self, files: list[Path]) -> DecodedFiles:
        """Read files in parallel, each into its place: images are never in memory twice."""
        images = torch.empty(
            (len(files), self._channels, self._size, self._size), dtype=torch.uint8
        )
        row_of = {file: row for row, file in enumerate(files)}

        def store(file: Path) -> Decoded:
            found = decode(file, self._size, channels=self._channels, white=self._white)
            if found.pixels is not None:
                images[row_of[file]] = found.pixels
            return Decoded(None, found.transparent, found.turned, found.highest)

        facts, unreadable = read_files(self._root, files, store)
        return DecodedFiles(files, images, unreadable, facts)

    def scale(self, parts: list[DecodedFiles], others: list[Path]) -> None:
        """Choose the white of images with 16 bits per channel, and read their pixels.

        Args:
            parts: What `read` returned.
            others: More files of the folder, which are not read but have the same scale.
        """
        deep = [found.highest for part in parts for found in part.facts.values()]
        self._highest = max((value for value in deep if value is not None), default=-1)
        if self._highest < 0:
            return
        known = {file for part in parts for file in part.files}
        left = [file for file in others if file not in known]
        for start in range(0, len(left), _SCANNED):
            if self._highest > MAX_12_BIT:
                break
            read = partial(highest_value, channels=self._channels)
            values, _ = read_files(self._root, left[start : start + _SCANNED], read)
            self._highest = max([self._highest, *values.values()])
        self._white = MAX_16_BIT if self._highest > MAX_12_BIT else MAX_12_BIT
        for part in parts:
            again = [file for file, found in part.facts.items() if found.highest is not None]
            row_of = {file: row for row, file in enumerate(part.files)}
            for start in range(0, len(again), _SCANNED):
                some = again[start : start + _SCANNED]
                part.images[[row_of[file] for file in some]] = self.read(some).images

    def notes(self, parts: list[DecodedFiles]) -> list[str]:
        """Return one line for each kind of change, with the number of images."""
        facts = [found for part in parts for found in part.facts.values()]
        deep = sum(found.highest is not None for found in facts)
        transparent = sum(found.transparent for found in facts)
        turned = sum(found.turned for found in facts)
        notes = []
        if deep:
            bits = 12 if self._white == MAX_12_BIT else 16
            notes.append(
                f"{_images(deep)} have 16 bits per channel; values are scaled as {bits} bits "
                f"({self._white} is white, and {self._highest} is the highest value)"
            )
        if transparent:
            notes.append(f"{_images(transparent)} have transparent pixels, composed on white")
        if turned:
            notes.append(f"{_images(turned)} were turned upright by their EXIF orientation")
        return notes


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
