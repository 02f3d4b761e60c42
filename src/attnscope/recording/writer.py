"""Folders of immutable shards under one manifest: how they are written.

The folder grows hidden (`attnscope.recording.partial`). The finished folder is the same one, with
``manifest.json`` and under its own name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import sha256_of, write_bytes, write_json
from attnscope.kinds import Gate
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
    """Fills a folder shard by shard; it appears under its name when ``with`` ends well.

    What was begun under the same plan goes on: shards that are whole stay whatever happens, and
    `has` tells which they are. Where no shard became whole, nothing stays.
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
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Says what is to be written; nothing is touched before ``with``.

        Args:
            folder: what is made, which must not exist.
            gates: in the order in which they act.
            classes: their names.
            grad_cam_layers: paths of modules.
            about: what the folder tells of itself, of JSON values.
            pooled_inputs: names of the gates of which what they multiply is written as well.
            attributions: the attribution methods of which some images have maps.
            identity: what else must be the same for a half-done folder to be gone on with, of JSON
                values: weights, data, batch size ...
            source: where the network and the images come from, of JSON values: no part of the
                plan, in which they are told by their hashes, so that files may be moved.
            rank: which of the processes that fill the folder this is.
            processes: their number.
        """
        self._header = {
            "classes": classes,
            "gates": [asdict(gate) for gate in gates],
            "grad_cam_layers": grad_cam_layers,
            "about": dict(about),
        }
        if pooled_inputs:  # without any, the plan stays that of a capture before there were any
            self._header["pooled_inputs"] = list(pooled_inputs)
        if attributions.methods:
            self._header["attributions"] = attributions.to_dict()
        plan = {"format": FORMAT, "kind": self.kind, **self._header, **(identity or {})}
        # What cannot be written is said before the work.
        plan_file = (json.dumps(plan, indent=2, allow_nan=False) + "\n").encode()
        self._id = hashlib.sha256(plan_file).hexdigest()
        self._gates, self._pooled_inputs = gates, pooled_inputs
        self._source = None if source is None else dict(source)
        self._rank, self._alone = rank, processes == 1
        self._folder = folder
        self._partial = PartialFolder(folder, plan_file, self._id, self._alone)
        self._next = 0

    def __enter__(self) -> Self:
        """Takes the folder, or joins the first process in it.

        Raises:
            InputError: the folder exists already or cannot be made, another process writes it, or
                what is half-done there is of another plan.
        """
        try:
            if self._rank == 0:
                self._partial.take()
            else:
                self._partial.join()
        except BaseException as error:
            self._partial.leave()
            if (explained := self._partial.explained(error)) is error:
                raise
            raise explained from error
        return self

    def has(self, index: int) -> bool:
        """Whether a shard is there and whole; its hashes are checked.

        Raises:
            InputError: what lies there is of another capture, or has changed.
        """
        if self._rank != 0 and os.path.lexists(self._folder):
            return True  # nothing was left to do, and the first process has finished
        return self._partial.holds(index)

    def wait_for(self, count: int) -> None:
        """Until the shards 0 to ``count - 1`` are there, by whichever process.

        Says once a minute on stderr what it waits for.
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
                wait_until(lambda: "" if os.path.lexists(self._folder) else "the first process")
        except BaseException as late:
            self._partial.leave()
            if (explained := self._partial.explained(late)) is late:
                raise
            raise explained from late
        self._partial.leave()
        if error is not None and (explained := self._partial.explained(error)) is not error:
            raise explained from error

    def add_shard(
        self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame, index: int | None = None
    ) -> None:
        """Writes one shard.

        Args:
            arrays: of its images, as the kind of the folder has them.
            rows: columns path, label, prediction and loss, one row an image.
            index: its place in the order of the images; default after the last one that was added.

        Raises:
            ValueError: there is no image, or the arrays are not those of this kind.
            OSError: it could not be written; nothing of it stays.
        """
        self._check(arrays, rows)
        index = self._next if index is None else index
        self._next = index + 1
        ordered = {key: np.ascontiguousarray(value) for key, value in sorted(arrays.items())}
        rows = rows[list(ROW_COLUMNS)].astype(ROW_COLUMNS)
        folder = self._partial.shards / shard_name(index)
        part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{layout.PARTIAL_SUFFIX}")
        try:
            part.mkdir()
            write_bytes(part / layout.ARRAYS, save_arrays(ordered))
            write_bytes(part / layout.ROWS, rows.to_parquet(index=False))
            hashes = {name: sha256_of(part / name) for name in SHARD_FILES}
            write_json(
                part / layout.SHARD,
                {"of": self._id, "index": index, "count": len(rows), "sha256": hashes},
            )
            os.replace(part, folder)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            # A process that a kill orphaned may have been quicker: the same command, so the same.
            there = isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not (there and self.has(index)):
                raise

    @abstractmethod
    def _check(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        """Raises a ValueError where the arrays are not those of this kind."""

    def _finish(self) -> None:
        # In the order of their names, which is that of the images, whoever came first.
        shards = [self._partial.read(path) for path in self._partial.whole()]
        if not shards:
            raise InputError("no image was recorded; a recording needs one at least")
        names = [shard.name for shard in shards]
        gaps = sorted(set(map(shard_name, range(len(names)))) - set(names))
        if gaps:
            raise InputError(
                f"{self._partial.shards / gaps[0]} is missing; start the same command again"
            )
        write_json(
            self._partial.place / layout.MANIFEST,
            {
                "format": FORMAT,
                "kind": self.kind,
                "id": self._id,
                "count": sum(shard.count for shard in shards),
                **self._header,
                "source": self._source,
                "shards": [asdict(shard) for shard in shards],
            },
        )
        self._partial.become()
