"""Fingerprints of images: path, label and a hash of the pixels of each. Does not import torch.

A run and a recording store them, so that images that were removed, replaced, added or exchanged
since then are noticed and named. They protect from mistakes, not from an attacker who makes two
images with one hash.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attnscope.errors import InputError, first_line
from attnscope.files import write_bytes

_HASH_BYTES = 8
_SHOWN = 3  # names in one line


class _Images(Protocol):
    """What is needed of `attnscope.data.images.LabeledImages`, which imports torch."""

    @property
    def paths(self) -> list[str]: ...
    @property
    def labels(self) -> Any: ...
    @property
    def classes(self) -> list[str]: ...
    def pixel_hashes(self) -> NDArray[np.uint64]: ...


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of the images of one split, in their order."""

    paths: Sequence[str]
    """The origin of each image, relative to its source; unique."""
    classes: Sequence[str]
    """The name of the class of each image."""
    pixels: NDArray[np.uint64]
    """``(N,)``: a hash of the pixels of each image."""

    @classmethod
    def of(cls, images: _Images) -> Fingerprints:
        """Return the fingerprints of labeled images."""
        names = [images.classes[label] for label in images.labels.tolist()]
        return cls(images.paths, names, images.pixel_hashes())

    def differences(self, now: Fingerprints) -> list[str]:
        """Return what has changed since these fingerprints were taken.

        Args:
            now: The fingerprints of the images as they are now.

        Returns:
            One phrase for each kind of change, with the number of images and the names of the
            first ones, such as ``1 image is missing (test/cat/1.png)``; empty if nothing changed.
        """
        same_paths = list(self.paths) == list(now.paths)
        same_classes = list(self.classes) == list(now.classes)
        if same_paths and same_classes and np.array_equal(self.pixels, now.pixels):
            return []
        before = {path: (c, int(p)) for path, c, p in self._rows()}
        after = {path: (c, int(p)) for path, c, p in now._rows()}
        missing = [path for path in before if path not in after]
        added = [path for path in after if path not in before]
        both = [path for path in before if path in after]
        replaced = [path for path in both if before[path][1] != after[path][1]]
        relabeled = [path for path in both if before[path][0] != after[path][0]]
        found = [
            _count(missing, "is missing", "are missing"),
            _count(added, "was added", "were added"),
            _count(replaced, "has other pixels", "have other pixels"),
            _count(relabeled, "has another class", "have another class"),
        ]
        if not any(found) and not same_paths:
            found.append("the order of the images is another one")
        return [phrase for phrase in found if phrase]

    def _rows(self) -> Iterable[tuple[str, str, np.uint64]]:
        return zip(self.paths, self.classes, self.pixels, strict=True)


def pixel_hash(pixels: NDArray[np.uint8]) -> int:
    """Return a hash of the pixels of one image, which are contiguous in memory, and their shape."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=_HASH_BYTES)
    digest.update(pixels.data)
    return int.from_bytes(digest.digest(), "little")


def differences_between(
    before: Mapping[str, Fingerprints], now: Mapping[str, Fingerprints]
) -> list[str]:
    """Return what has changed in some splits, as `Fingerprints.differences` does.

    An image that was removed changes how the others are split into training and validation. So
    splits that come from one another are first compared as a whole, which names that image alone.

    Args:
        before: Split -> its fingerprints.
        now: The same for some of these splits.
    """
    known = {name: found for name, found in before.items() if name in now}
    changed = _joined(known.values()).differences(_joined(now[name] for name in known))
    if len(known) == 1 or (changed and not changed[0].startswith("the order")):
        return [f"of the {_listed(list(known))} images, {', '.join(changed)}"] if changed else []
    return [
        f"of the {name} images, {', '.join(found)}"
        for name, split in known.items()
        if (found := split.differences(now[name]))
    ]


def write_fingerprints(file: Path, splits: Mapping[str, Fingerprints]) -> None:
    """Write the fingerprints of some splits as a Parquet file, atomically."""
    write_bytes(file, fingerprint_file(splits))


def fingerprint_file(splits: Mapping[str, Fingerprints]) -> bytes:
    """Return the content of a file of fingerprints: columns split, path, class, pixels."""
    import pyarrow as pa
    from pyarrow import parquet

    joined = _joined(splits.values())
    counts = [len(split.paths) for split in splits.values()]
    table = pa.table(
        {
            "split": pa.array(np.repeat(np.array(list(splits), object), counts), pa.string()),
            "path": pa.array(list(joined.paths), pa.string()),
            "class": pa.array(list(joined.classes), pa.string()),
            "pixels": pa.array(joined.pixels, pa.uint64()),
        }
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def read_fingerprints(file: Path) -> dict[str, Fingerprints]:
    """Read the file of `write_fingerprints`.

    Returns:
        Split -> its fingerprints, in the order of the file.

    Raises:
        InputError: AS245, the file cannot be read, or is no such file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # A file object: pyarrow would take a path like an address, and follow what is no file.
        with file.open("rb") as stream:
            table = parquet.read_table(stream, columns=["split", "path", "class", "pixels"])
        columns = {name: table.column(name).to_pylist() for name in ("split", "path", "class")}
        pixels = table.column("pixels").to_numpy().astype(np.uint64, casting="equiv")
        splits = np.array(columns["split"], object)
        found = {}
        for name in dict.fromkeys(columns["split"]):
            rows = np.flatnonzero(splits == name)
            paths, classes = ([str(columns[key][row]) for row in rows] for key in ("path", "class"))
            found[str(name)] = Fingerprints(paths, classes, pixels[rows])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "AS245",
            f"{file} is not a readable file of fingerprints ({first_line(error):.200}); restore "
            "it, or remove it to go on without a comparison of the images",
        ) from None
    return found


def _joined(splits: Iterable[Fingerprints]) -> Fingerprints:
    parts = list(splits)
    return Fingerprints(
        [path for part in parts for path in part.paths],
        [name for part in parts for name in part.classes],
        np.concatenate([np.zeros(0, np.uint64), *(part.pixels for part in parts)]),
    )


def _count(names: Sequence[str], one: str, many: str) -> str:
    """Return a phrase with the number of images and the first names, or nothing for no image."""
    if not names:
        return ""
    # Names can contain control codes, and a message is one line.
    shown = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in n) for n in names[:_SHOWN]]
    more = ", ..." if len(names) > _SHOWN else ""
    what = f"1 image {one}" if len(names) == 1 else f"{len(names)} images {many}"
    return f"{what} ({', '.join(shown)}{more})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
