"""The parts of what a network returns: tensors in lists, tuples, dicts and objects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from attnscope.errors import InputError

_DEEPEST = 3  # containers in containers that are looked into


def parts_of(output: Any) -> dict[str | int, Any] | None:
    """Return the parts of a container by key, index or attribute; None if it is none."""
    if isinstance(output, Tensor):
        return None
    if isinstance(output, Mapping):
        return {key: value for key, value in output.items() if isinstance(key, (str, int))}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    if isinstance(output, (list, tuple)):
        return dict(enumerate(output))
    if is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    if hasattr(output, "__dict__") and not callable(output):
        return {key: value for key, value in vars(output).items() if not key.startswith("_")}
    return None


def part_at(output: Any, key: str | int) -> Any:
    """Return one part of a container.

    Raises:
        InputError: It has no such part (AS360).
    """
    parts = parts_of(output) or {}
    if key in parts:
        return parts[key]
    if isinstance(key, int) and isinstance(output, (list, tuple)) and -len(output) <= key < 0:
        return output[key]
    if isinstance(key, int) and isinstance(output, tuple) and 0 <= key < len(output):
        return output[key]  # a named tuple
    raise InputError(
        "AS360",
        f"the network returned {describe(output)}, which has no output {key!r}; choose another one "
        "with --output",
    )


def find_path(output: Any, chosen: str | int) -> tuple[str | int, ...] | None:
    """Return the path to an output that was chosen by hand; None if there is none."""
    words: list[list[str | int]] = [[chosen]]
    if isinstance(chosen, str):
        words.append([*chosen.split(".")])
    for path in words:
        part, keys = output, []
        for word in path:
            options = [word]
            if isinstance(word, str) and re.fullmatch(r"-?\d+", word):
                options.append(int(word))
            for key in options:
                try:
                    part = part_at(part, key)
                except InputError:
                    continue
                keys.append(key)
                break
        if len(keys) == len(path):
            return tuple(keys)
    return None


def path_text(path: Sequence[str | int]) -> str:
    """Return a path as ``--output`` takes it."""
    return ".".join(str(key) for key in path)


def is_detection(output: Any) -> bool:
    """Whether an output is a list with the boxes of each image, as detectors return it."""
    return isinstance(output, (list, tuple)) and any(
        "boxes" in (parts_of(item) or {}) for item in output
    )


def tensors_in(
    output: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
    """Yield the path and the tensor of each tensor in an output."""
    if isinstance(output, Tensor):
        yield path, output
    elif len(path) < _DEEPEST:
        for key, value in (parts_of(output) or {}).items():
            yield from tensors_in(value, (*path, key))


def describe(output: Any) -> str:
    """Return what an output is, in words: a shape, or a container with its keys."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    parts = parts_of(output)
    if parts is None:
        return f"an object of type {type(output).__name__}"
    inside = ", ".join(
        f"{key}: {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        for key, value in list(parts.items())[:8]
    )
    return f"a {type(output).__name__} ({inside})"
