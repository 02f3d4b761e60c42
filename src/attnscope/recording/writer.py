"""Write folders of immutable shards with one manifest.

An unfinished folder is hidden (`attnscope.recording.partial`). When it is complete, it gets
``manifest.json`` and its final name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pandas as pd
from numpy.typing import NDArray

from attnscope import layout
from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.files import write_bytes, write_sealed
from attnscope.integrity import json_bytes
from attnscope.kinds import Gate
from attnscope.recording.array_file import array_file
from attnscope.recording.attributed import Attributions
from attnscope.recording.format import (
    FORMAT,
    ROW_COLUMNS,
    SHARD_FILES,
    shard_name,
)
from attnscope.recording.partial import PartialFolder, wait_until

_NO_ATTRIBUTIONS = Attributions()


class ShardWriter(ABC):
    """Writes a folder shard by shard. It gets its name when ``with`` ends without an error.

    An unfinished folder with the same plan is resumed: complete shards are kept whatever happens,
    and `has` returns which they are. If no shard was completed, nothing is kept.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        folder: Path,
        *,
        gates: list[Gate],
        classes: list[str],
        grad_cam_layers: list[str],
        about: Mapping[str, Any],
        pooled_inputs: Sequence[str] = (),
        attributions: Attributions = _NO_ATTRIBUTIONS,
        identity: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
        fingerprints: bytes | None = None,
        label_kind: str = CLASS,
        output: Mapping[str, Any] | None = None,
        streamed: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Describe the folder; nothing is written before ``with``.

        Args:
            folder: The folder to create. It must not exist.
            gates: The gates, in the order in which they act.
            classes: Names of the classes, by label.
            grad_cam_layers: Paths of the modules whose Grad-CAM is written.
            about: Facts about the capture, as JSON values.
            pooled_inputs: Names of the gates whose pooled input is written.
            attributions: The attribution methods besides Grad-CAM.
            identity: What else must be equal to resume an unfinished folder, as JSON values:
                weights, data, batch size and so on.
            source: Where the network and the images come from, as JSON values. It is not part of
                the plan, which has their hashes instead, so that files may be moved.
            fingerprints: The content of the file of fingerprints of the images
                (`attnscope.data.fingerprints`); None if they are not those of a data source.
            label_kind: What the labels are, one of `attnscope.data.label_kinds.LABEL_KINDS`.
            output: How the class scores were taken from what the network returns
                (`attnscope.networks.outputs.OutputAdapter.to_dict`); None if it returns logits and
                nothing else.
            streamed: Whether images were decoded when they were needed. It is not part of the plan,
                because the results are the same.
            rank: Rank of this process among those that write the folder.
            processes: Number of these processes.
        """
        self._header = {
            "classes": classes,
            "gates": [gate.to_dict() for gate in gates],
            "grad_cam_layers": grad_cam_layers,
            "about": dict(about),
        }
        if pooled_inputs:  # else the plan is equal to that of a version without pooled inputs
            self._header["pooled_inputs"] = list(pooled_inputs)
        if label_kind != CLASS:  # else the plan is equal to that of a version without other kinds
            self._header["label_kind"] = label_kind
        if attributions.methods:
            self._header["attributions"] = attributions.to_dict()
        if output is not None:
            self._header["output"] = dict(output)
        plan = {"format": FORMAT, "kind": self.kind, **self._header, **(identity or {})}
        # Fail before the work if the plan cannot be written.
        plan_file = json_bytes(plan)
        self._id = hashlib.sha256(plan_file).hexdigest()
        self._gates, self._pooled_inputs = gates, pooled_inputs
        self._source = None if source is None else dict(source)
        self._fingerprints = fingerprints
        self._streamed = streamed
        self._rank, self._is_alone = rank, processes == 1
        self._folder = folder
        self._partial = PartialFolder(folder, plan_file, self._id, self._is_alone)
        self._next = 0

    def __enter__(self) -> Self:
        """Lock the folder, or join the main process in it.

        Raises:
            InputError: The folder exists or cannot be created, another capture writes to it, or an
                unfinished one was started with other settings.
        """
        try:
            if self._rank == 0:
                self._partial.open_as_main()
            else:
                self._partial.join()
        except BaseException as error:
            self._partial.close()
            if (advised := self._partial.with_advice(error)) is error:
                raise
            raise advised from error
        return self

    def has(self, index: int) -> bool:
        """Return whether a shard is complete, after checking its hashes.

        Raises:
            InputError: It belongs to another capture, or has changed.
        """
        if self._rank != 0 and os.path.lexists(self._folder):
            return True  # nothing is left to do: the main process has finished
        return self._partial.has_shard(index)

    def wait_for(self, count: int) -> None:
        """Wait in the main process until the shards 0 to ``count - 1`` are there.

        Report once a minute on stderr which of them are missing.
        """

        def missing() -> str:
            left = sorted(
                set(map(shard_name, range(count))) - set(os.listdir(self._partial.shards))
            )
            if not left:
                return ""
            return f"{len(left)} of {count} shards of other processes, first {left[0]}"

        if self._rank == 0:
            wait_until(missing)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._rank == 0:
                self._finish()
            elif error is None:
                wait_until(lambda: "" if os.path.lexists(self._folder) else "the main process")
        except BaseException as late:
            self._partial.close()
            if (advised := self._partial.with_advice(late)) is late:
                raise
            raise advised from late
        self._partial.close()
        if error is not None and (advised := self._partial.with_advice(error)) is not error:
            raise advised from error

    def add_shard(
        self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame, index: int | None = None
    ) -> None:
        """Write one shard.

        Args:
            arrays: The arrays of its images, as the subclass describes them.
            rows: One row per image with the columns path, label, prediction and loss.
            index: Its position in the order of the images; default after the last one added.

        Raises:
            ValueError: There is no image, or the arrays are not those of this kind of folder.
            OSError: It cannot be written; nothing of it is kept.
        """
        self._check(arrays, rows)
        index = self._next if index is None else index
        self._next = index + 1
        rows = rows[list(ROW_COLUMNS)].astype(ROW_COLUMNS)
        folder = self._partial.shards / shard_name(index)
        temporary = folder.with_name(
            f".{folder.name}.{secrets.token_hex(4)}{layout.PARTIAL_SUFFIX}"
        )
        try:
            temporary.mkdir()
            contents: dict[str, Sequence[bytes | memoryview]] = {
                layout.ARRAYS: array_file(arrays),
                layout.ROWS: [rows.to_parquet(index=False)],
            }
            for name, parts in contents.items():
                write_bytes(temporary / name, parts)
            hashes = {name: _sha256(contents[name]) for name in SHARD_FILES}
            write_sealed(
                temporary / layout.SHARD,
                {"of": self._id, "index": index, "count": len(rows), "sha256": hashes},
            )
            os.replace(temporary, folder)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            # A process that survived a kill of its parent may have written the same shard.
            exists = isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not (exists and self.has(index)):
                raise

    @abstractmethod
    def _check(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        """Raise a ValueError if the arrays are not those of this kind of folder."""

    def _finish(self) -> None:
        # Sorted by name, which is the order of the images, not the order of arrival.
        shards = [self._partial.read_shard(path) for path in self._partial.complete_shards()]
        if not shards:
            raise InputError(
                "AS658", "no image was recorded; add at least one shard with add_shard"
            )
        names = [shard.name for shard in shards]
        gaps = sorted(set(map(shard_name, range(len(names)))) - set(names))
        if gaps:
            raise InputError(
                "AS657", f"{self._partial.shards / gaps[0]} is missing; run the same command again"
            )
        hashes = {}
        if self._fingerprints is not None:
            write_bytes(self._partial.place / layout.IMAGES, self._fingerprints)
            hashes = {"images_sha256": hashlib.sha256(self._fingerprints).hexdigest()}
        write_sealed(
            self._partial.place / layout.MANIFEST,
            {
                "format": FORMAT,
                "kind": self.kind,
                "id": self._id,
                "count": sum(shard.count for shard in shards),
                **self._header,
                "source": self._source,
                **({"images": "streamed"} if self._streamed else {}),
                **hashes,
                "shards": [asdict(shard) for shard in shards],
            },
        )
        self._partial.publish()


def _sha256(parts: Sequence[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
