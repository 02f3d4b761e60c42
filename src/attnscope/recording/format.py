"""The files of a recording: their names, what they hold, and how they are checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from attnscope import layout
from attnscope.errors import InputError
from attnscope.kinds import KINDS, Gate

FORMAT = 1
TARGETS = ("predicted", "true")
ROW_COLUMNS = {"path": "str", "label": "int64", "prediction": "int64", "loss": "float64"}
SHARD_FILES = (layout.ARRAYS, layout.ROWS)


@dataclass(frozen=True)
class Shard:
    """A stretch of images in index order."""

    name: str
    count: int
    sha256: dict[str, str]
    """File name -> SHA-256 in hexadecimal."""


def shard_name(index: int) -> str:
    """The folder name of a shard, by its index."""
    return f"{index:05d}"


def parse_items(value: Any, kind: type) -> list[Any]:
    """``value`` if it is a list of items of one type; else a TypeError."""
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise TypeError(f"{value!r:.40} is no list of {kind.__name__}")
    return value


def parse_gate(value: dict[str, Any]) -> Gate:
    """A gate from its JSON object.

    Raises:
        TypeError: a field is missing, unknown or of another type.
        InputError: its kind is not registered.
    """
    gate = Gate(**{**value, "grid": tuple(value["grid"]) if value["grid"] else None})
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
    for field in fields(Gate):  # their annotations are strings
        if not isinstance(getattr(gate, field.name), kinds.get(str(field.type), (object,))):
            raise TypeError(f"{field.name} of a gate is {getattr(gate, field.name)!r:.40}")
    KINDS.find(gate.kind)
    return gate


def parse_shard(value: dict[str, Any]) -> Shard:
    """A shard from its JSON object.

    Raises:
        TypeError, ValueError: a field is missing or not what the writer makes.
    """
    shard = Shard(**value)
    # The name becomes a path: only what the writer makes is one.
    if not isinstance(shard.name, str) or not re.fullmatch(r"\d{5,}", shard.name, re.ASCII):
        raise ValueError(f"{shard.name!r:.40} is no name of a shard")
    if not isinstance(shard.count, int) or shard.count < 1:
        raise ValueError(f"shard {shard.name} counts {shard.count!r:.40} images")
    if not isinstance(shard.sha256, dict) or sorted(shard.sha256) != sorted(SHARD_FILES):
        raise ValueError(f"shard {shard.name} has no hashes of {' and '.join(SHARD_FILES)}")
    return shard


def shard_file(folder: Path, shard: Shard, name: str) -> Path:
    """A file of a shard.

    Raises:
        InputError: it lies outside the folder of the recording, behind a link.
    """
    file = folder / layout.SHARDS / shard.name / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{file} leads outside the recording; replace the link by the file")
    return file
