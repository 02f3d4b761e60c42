"""Whether the files of a recording are still what was written: hashes, counts, ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import read_json, sha256_of
from attnscope.recording.format import Shard, shard_file

_PLANNED = (
    "format",
    "kind",
    "classes",
    "gates",
    "grad_cam_layers",
    "about",
    "pooled_inputs",
    "attributions",
)


def verify_files(folder: Path, plan_id: str | None, shards: Sequence[Shard]) -> list[str]:
    """What is wrong with the files of a folder of shards, one line each.

    Args:
        folder: a recording or moments.
        plan_id: SHA-256 of its plan; None of a recording of attnscope before it had one.
        shards: those of its manifest.
    """
    found = [] if plan_id is None else _verify_plan(folder, plan_id)
    known = {shard.name for shard in shards}
    for path in sorted((folder / layout.SHARDS).iterdir()):
        # Hidden files are what systems leave behind.
        if path.name not in known and not path.name.startswith("."):
            found.append(f"{path} is no shard of this recording")
    for index, shard in enumerate(shards):
        if plan_id is not None and not _is_of(folder, plan_id, index, shard):
            found.append(f"{folder / layout.SHARDS / shard.name} is a shard of another recording")
            continue
        for name, expected in shard.sha256.items():
            file = shard_file(folder, shard, name)
            try:
                if sha256_of(file) != expected:
                    found.append(f"{file} has changed since it was written (SHA-256)")
            except OSError as error:
                found.append(f"{file} is missing ({error.strerror})")
    return found


def verify_rows(rows: pd.DataFrame, classes: int) -> list[str]:
    """What is wrong with the rows of the images, one line each."""
    found = []
    for column in ("label", "prediction"):
        foreign = int((~rows[column].between(0, classes - 1)).sum())
        if foreign:
            found.append(f"{foreign} values of the column {column} are no class")
    return found


def verify_array(
    key: str,
    shards: Sequence[Shard],
    read: Callable[[Shard, str], NDArray[Any]],
    bounds: tuple[float, float] = (-np.inf, np.inf),
    margin: float = 0.0,
) -> list[str]:
    """What is wrong with an array that has one row an image, one line each.

    Args:
        key: its name.
        shards: all of them.
        read: gives the array of one shard; raises an InputError where it cannot be read.
        bounds: the lowest and the highest value that it may have.
        margin: how far beyond these a value may lie.
    """
    low, high = bounds
    outside, shapes = 0, set()
    try:
        for shard in shards:  # one at a time: the whole may not fit into memory
            values = read(shard, key)
            shapes.add(values.shape[1:])
            if len(values) != shard.count:
                raise InputError(f"shard {shard.name} has {len(values)} of {shard.count}")
            inside = (values >= low - margin) & (values <= high + margin)
            inside &= np.isfinite(values)
            outside += int((~inside).sum())
    except InputError as error:
        return [f"{key}: {error}"]
    found = []
    if len(shapes) > 1:
        found.append(f"{key}: shards of different shapes")
    if outside:
        found.append(f"{key}: {outside} values not finite or not in {low} to {high}")
    return found


def _verify_plan(folder: Path, plan_id: str) -> list[str]:
    file = folder / layout.PLAN
    try:
        if sha256_of(file) != plan_id:
            return [f"{file} has changed since it was written (SHA-256)"]
    except OSError as error:
        return [f"{file} is missing ({error.strerror})"]
    return list(_differences_from_plan(folder))


def _differences_from_plan(folder: Path) -> Iterable[str]:
    """What the manifest, which is read, says otherwise than the plan, whose hash is kept."""
    plan, manifest = read_json(folder / layout.PLAN), read_json(folder / layout.MANIFEST)
    for key in _PLANNED:
        if plan.get(key) != manifest.get(key):
            yield f"{folder / layout.MANIFEST} has other {key} than were captured"


def _is_of(folder: Path, plan_id: str, index: int, shard: Shard) -> bool:
    try:
        value = read_json(shard_file(folder, shard, layout.SHARD))
    except InputError:
        return False
    return isinstance(value, dict) and (value.get("of"), value.get("index")) == (plan_id, index)
