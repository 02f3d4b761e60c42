"""Check whether the files of a recording are still what was written: hashes, counts and ranges.

Each problem is one line that ends with its code of `attnscope.errors.ERRORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import layout
from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError, first_line
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
    "label_kind",
    "output",
)


def problem(code: str, text: str) -> str:
    """Return one problem as a line with its code."""
    return str(InputError(code, text))


def without_code(problem: str) -> str:
    """Return a problem without its code, for a message that ends with a code of its own."""
    return problem.rpartition(" [")[0]


def verify_files(folder: Path, plan_id: str | None, shards: Sequence[Shard]) -> list[str]:
    """Check the files of a recording or moments against their hashes.

    Args:
        folder: The recording or moments.
        plan_id: SHA-256 of the plan; None for recordings of versions that wrote no plan.
        shards: The shards of the manifest.

    Returns:
        The problems, one line each.
    """
    found = [] if plan_id is None else _verify_plan(folder, plan_id)
    known = {shard.name for shard in shards}
    for path in sorted((folder / layout.SHARDS).iterdir()):
        # Operating systems leave hidden files behind.
        if path.name not in known and not path.name.startswith("."):
            found.append(problem("AS683", f"{path} is not a shard of this recording"))
    for index, shard in enumerate(shards):
        if plan_id is not None and (other := _verify_shard(folder, plan_id, index, shard)):
            found.append(other)
            continue
        for name, expected in shard.sha256.items():
            found += verify_hash(shard_file(folder, shard, name), expected)
    return found


def verify_hash(file: Path, expected: str) -> list[str]:
    """Check a file against its SHA-256; return its problem, or nothing."""
    try:
        if sha256_of(file) != expected:
            return [problem("AS681", f"{file} has changed since it was written (SHA-256)")]
    except FileNotFoundError:
        return [problem("AS682", f"{file} is missing")]
    except OSError as error:
        return [problem("AS692", f"{file} cannot be read ({error.strerror})")]
    return []


def verify_rows(
    rows: pd.DataFrame, classes: int, label_kind: str = CLASS, has_scores: bool = True
) -> list[str]:
    """Check labels and predictions.

    Args:
        rows: One row per image.
        classes: Number of classes.
        label_kind: What the labels are; labels of other kinds than classes have no rows here.
        has_scores: Whether the network gave class scores, and so predictions.

    Returns:
        The problems, one line each.
    """
    found = []
    checked = {"label": label_kind == CLASS, "prediction": has_scores}
    for column in (name for name, is_known in checked.items() if is_known):
        count = int((~rows[column].between(0, classes - 1)).sum())
        if count:
            found.append(problem("AS686", f"the column {column} has {count} values of no class"))
    return found


def verify_array(
    key: str,
    shards: Sequence[Shard],
    read: Callable[[Shard, str], NDArray[Any]],
    bounds: tuple[float, float] = (-np.inf, np.inf),
    margin: float = 0.0,
    is_finite: bool = True,
) -> list[str]:
    """Check an array that has one row per image.

    Args:
        key: Name of the array.
        shards: All shards.
        read: Reads the array of one shard; raises an InputError if it cannot.
        bounds: The lowest and the highest value that is allowed.
        margin: How far beyond the bounds a value may lie.
        is_finite: Whether all values must be finite and within the bounds.

    Returns:
        The problems, one line each.
    """
    low, high = bounds
    outside, shapes = 0, set()
    try:
        for shard in shards:  # one at a time: the whole array may not fit into memory
            values = read(shard, key)
            shapes.add(values.shape[1:])
            if len(values) != shard.count:
                text = f"{key} has {len(values)} rows in shard {shard.name}, not {shard.count}"
                return [problem("AS689", text)]
            if not is_finite:
                continue
            inside = (values >= low - margin) & (values <= high + margin)
            inside &= np.isfinite(values)
            outside += int((~inside).sum())
    except InputError as error:
        return [problem(error.code, f"{key}: {first_line(error)}")]
    found = []
    if len(shapes) > 1:
        found.append(problem("AS688", f"{key} has different shapes in different shards"))
    if outside:
        text = f"{key} has {outside} values that are not finite or not in {low} to {high}"
        found.append(problem("AS687", text))
    return found


def _verify_plan(folder: Path, plan_id: str) -> list[str]:
    changed = verify_hash(folder / layout.PLAN, plan_id)
    return changed or list(_differences_from_plan(folder))


def _differences_from_plan(folder: Path) -> Iterable[str]:
    """Yield where the manifest, which is read, differs from the plan, whose hash is known."""
    file = folder / layout.MANIFEST
    plan, manifest = read_json(folder / layout.PLAN), read_json(file)
    for key in _PLANNED:
        if plan.get(key) != manifest.get(key):
            yield problem("AS685", f"{file} differs from {layout.PLAN} in '{key}'")


def _verify_shard(folder: Path, plan_id: str, index: int, shard: Shard) -> str:
    """Return the problem of a shard that is not this one of the recording with this plan."""
    file = shard_file(folder, shard, layout.SHARD)
    try:
        value = read_json(file)
    except InputError as error:
        if isinstance(error.__context__, OSError):
            return problem("AS692", f"{file} cannot be read ({error.__context__.strerror})")
        value = None
    if isinstance(value, dict) and (value.get("of"), value.get("index")) == (plan_id, index):
        return ""
    return problem("AS684", f"{file.parent} is a shard of another recording")
