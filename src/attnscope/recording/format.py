"""The files of a recording: their names, their content, and how they are checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from attnscope import layout
from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.kinds import KINDS, Gate
from attnscope.recording.places import capture_again

FORMAT = 1
TARGETS = ("predicted", "true")
"""The classes that Grad-CAM and other attributions explain."""
ROW_COLUMNS = {"path": "str", "label": "int64", "prediction": "int64", "loss": "float64"}
WITHOUT_CLASSES = frozenset({"AS618", "AS648"})
"""Codes of errors about something that a recording lacks since nothing is known of classes."""
SHARD_FILES = (layout.ARRAYS, layout.ROWS)


@dataclass(frozen=True)
class Shard:
    """A contiguous range of images, in the order of the data set."""

    name: str
    count: int
    """Number of images."""
    sha256: dict[str, str]
    """File name -> SHA-256 in hexadecimal."""


def targets_of_labels(label_kind: str) -> tuple[str, ...]:
    """Return the targets that are explained: without class labels, there is no true class."""
    return TARGETS if label_kind == CLASS else TARGETS[:1]


def with_current_keys(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about a recording under the keys of this version.

    Version 0.1 stored the split as "part".
    """
    current = dict(about)
    if "part" in current and "split" not in current:
        current = {"split" if key == "part" else key: value for key, value in current.items()}
    return current


def distinct_classes(names: Sequence[str]) -> list[str]:
    """Return names of classes that differ: ``crane (0)`` and ``crane (2)`` for equal ones."""
    found = [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names)]
    # Such a name may be taken already.
    return found if len(set(found)) == len(found) else [f"{n} ({k})" for k, n in enumerate(names)]


def shard_name(index: int) -> str:
    """Return the folder name of a shard."""
    return f"{index:05d}"


def parse_items(value: Any, kind: type) -> list[Any]:
    """Return ``value`` if it is a list of items of one type.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise TypeError(f"{value!r:.40} is not a list of {kind.__name__}")
    return value


def parse_gate(value: dict[str, Any]) -> Gate:
    """Return a gate from its JSON object.

    Raises:
        TypeError: A field is missing, unknown or of another type.
        InputError: The kind of the gate is not registered.
    """
    value = {**value, "grid": tuple(value["grid"]) if value["grid"] else None}
    for name, infinite in (("lo", -math.inf), ("hi", math.inf)):
        if value.get(name, 0.0) is None:
            value[name] = infinite
    gate = Gate(**value)
    types: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "str | None": (str, type(None)),
        "int": (int,),
        "float": (int, float),
    }
    for field in fields(Gate):  # the annotations of its fields are strings
        if not isinstance(getattr(gate, field.name), types.get(str(field.type), (object,))):
            raise TypeError(
                f"the field {field.name} of a gate is {getattr(gate, field.name)!r:.40}"
            )
    KINDS.find(gate.kind)
    return gate


def parse_shard(value: dict[str, Any]) -> Shard:
    """Return a shard from its JSON object.

    Raises:
        TypeError, ValueError: A field is missing, or is not what the writer makes.
    """
    shard = Shard(**value)
    # The name becomes part of a path: accept only names that the writer makes.
    if not isinstance(shard.name, str) or not re.fullmatch(r"\d{5,}", shard.name, re.ASCII):
        raise ValueError(f"{shard.name!r:.40} is not the name of a shard")
    if not isinstance(shard.count, int) or shard.count < 1:
        raise ValueError(f"the count of shard {shard.name} is {shard.count!r:.40}")
    if not isinstance(shard.sha256, dict) or sorted(shard.sha256) != sorted(SHARD_FILES):
        raise ValueError(f"shard {shard.name} has no hashes of {' and '.join(SHARD_FILES)}")
    return shard


def shard_file(folder: Path, shard: Shard, name: str) -> Path:
    """Return the path of a file of a shard.

    Raises:
        InputError: See `expect_own_file`.
    """
    return expect_own_file(folder, folder / layout.SHARDS / shard.name / name)


def expect_own_file(folder: Path, file: Path) -> Path:
    """Return a file of a recording after checking that reading it stays in the recording and ends.

    Raises:
        InputError: AS607, the file lies behind a link that leads outside the recording; AS606, it
            is a folder, a pipe or a device.
    """
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            "AS607", f"{file} links to a file outside the recording; replace the link by the file"
        )
    if file.exists() and not file.is_file():
        raise InputError(
            "AS606",
            f"{file} cannot be read (it is a folder, a pipe or a device); restore it, or "
            f"{capture_again(folder)}",
        )
    return file
