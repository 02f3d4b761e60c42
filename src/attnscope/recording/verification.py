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
from attnscope.files import BROKEN_SEAL, is_there, read_json
from attnscope.hashes import problem, verify_hash
from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.format import Shard, expect_own_file, shard_file

_MEMBERS = frozenset(
    {
        *("format", "kind", "id", "count", "classes", "gates", "grad_cam_layers", "about"),
        *("pooled_inputs", "attributions", "label_kind", "output", "source", "images"),
        *("images_sha256", "shards"),
    }
)
"""The members of a manifest."""
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


def verify_files(
    folder: Path, plan_id: str | None, shards: Sequence[Shard], keys: Iterable[str] = ()
) -> list[str]:
    """Check the files of a recording or moments against their hashes.

    Args:
        folder: The recording or moments.
        plan_id: SHA-256 of the plan; None for recordings of versions that wrote no plan.
        shards: The shards of the manifest.
        keys: The names of the members of the manifest.

    Returns:
        The problems, one line each.
    """
    found = list(_verify_identity(folder, plan_id, keys))
    if plan_id is not None:
        found += _verify_plan(folder, plan_id)
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


def _verify_identity(folder: Path, plan_id: str | None, keys: Iterable[str]) -> Iterable[str]:
    """Yield what is wrong with the members of a manifest that has no seal, or lost its id."""
    file = folder / layout.MANIFEST
    for key in keys:
        if key not in _MEMBERS:
            yield problem("AS685", f"{file} has the member '{key:.40}', which no version writes")
    written_with_id = [folder / layout.PLAN, *folder.glob(f"{layout.SHARDS}/*/{layout.SHARD}")]
    if plan_id is None and any(map(is_there, written_with_id)):
        yield problem("AS685", f"{file} has no id, and the recording was written with one")


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


def verify_predictions(
    rows: pd.DataFrame, shards: Sequence[Shard], read: Callable[[Shard, str], NDArray[Any]]
) -> list[str]:
    """Check that each prediction is the class with the largest logit.

    Args:
        rows: One row per image.
        shards: All shards.
        read: Reads the array of one shard; raises an InputError if it cannot.

    Returns:
        The problems, one line each.
    """
    predictions = rows["prediction"].to_numpy()
    others, start = 0, 0
    for shard in shards:
        try:
            logits = read(shard, "logits")
        except InputError:
            return []  # said by the check of the array
        chosen = predictions[start : start + shard.count]
        start += shard.count
        if logits.ndim != 2 or len(logits) != len(chosen):
            return []
        if ((chosen < 0) | (chosen >= logits.shape[1])).any():
            return []  # said by `verify_rows`
        # Equal logits have several largest classes.
        others += int((logits[np.arange(len(chosen)), chosen] != logits.max(1)).sum())
    if not others:
        return []
    return [problem("AS645", f"{others} predictions are not the class with the largest logit")]


def gate_shape(gate: Gate) -> tuple[int | None, ...] | None:
    """Return the shape that the values of a gate must have, without the images.

    Returns:
        One size per axis, None where the description of the gate does not tell it. None if it
        tells nothing.
    """
    if gate.has(PER_CHANNEL) and gate.axes in ("", "NC"):
        return (gate.channels,)
    if gate.has(MAP) and gate.axes in ("", "NHW"):
        return gate.grid
    if gate.axes.startswith("N"):
        return (None,) * (len(gate.axes) - 1)
    return None


def verify_array(
    key: str,
    shards: Sequence[Shard],
    read: Callable[[Shard, str], NDArray[Any]],
    dtype: str,
    shape: tuple[int | None, ...] | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    margin: float = 0.0,
    is_finite: bool = True,
) -> list[str]:
    """Check an array that has one row per image.

    Args:
        key: Name of the array.
        shards: All shards.
        read: Reads the array of one shard; raises an InputError if it cannot.
        dtype: The type that the writer gives it.
        shape: The shape of its rows, with None for any size; None for any shape.
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
            if text := _other_form(values, dtype, shape):
                return [problem("AS646", f"{key} in shard {shard.name} {text}")]
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


def _other_form(values: NDArray[Any], dtype: str, shape: tuple[int | None, ...] | None) -> str:
    """Return how an array differs from the type and shape that it must have, or nothing."""
    if values.dtype != dtype:
        return f"has the type {values.dtype}, not {dtype}"
    found = values.shape[1:]
    if 0 in found or (
        shape is not None
        and (
            len(found) != len(shape)
            # One value may stand for all.
            or any(a not in (None, b) and b != 1 for a, b in zip(shape, found, strict=True))
        )
    ):
        wanted = ["N", *("?" if size is None else str(size) for size in shape or ("?",))]
        return f"has the shape {values.shape}, not ({', '.join(wanted)})"
    return ""


def _verify_plan(folder: Path, plan_id: str) -> list[str]:
    try:
        changed = verify_hash(expect_own_file(folder, folder / layout.PLAN), plan_id)
    except InputError as error:
        return [str(error)]
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
    try:
        file = shard_file(folder, shard, layout.SHARD)
    except InputError as error:
        return str(error)
    try:
        value = read_json(file)
    except InputError as error:
        if isinstance(error.__context__, OSError):
            return problem("AS692", f"{file} cannot be read ({error.__context__.strerror})")
        if error.code == BROKEN_SEAL:
            return str(error)
        value = None
    expected = {"of": plan_id, "index": index, "count": shard.count, "sha256": shard.sha256}
    if value == expected:
        return ""
    if isinstance(value, dict) and (value.get("of"), value.get("index")) == (plan_id, index):
        return problem("AS685", f"{file} differs from {layout.MANIFEST}")
    return problem("AS684", f"{file.parent} is a shard of another recording")
