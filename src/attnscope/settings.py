"""Dataclasses of settings: checked against their type hints, and read from tables of a file."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from attnscope.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "left out",
}


def check_types(settings: DataclassInstance) -> None:
    """Hold every field to its type hint; a whole number may stand for a float.

    Hints may be made of numbers, ``bool``, ``str``, ``Path``, dataclasses, ``None``, ``Literal``,
    ``tuple`` and unions of them.

    Raises:
        InputError: a value is of another type, or a number is not finite.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not _fits(value, hints[field.name]):
            refuse(field.name, value, _describe(hints[field.name]))


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Refuse a value unless something holds for it.

    Raises:
        InputError: it does not hold; the message names the setting and says what is expected.
    """
    if not holds:
        refuse(name, value, expected)


def refuse(name: str, value: object, expected: str) -> None:
    """Raise the InputError that names a setting, its value and what is expected instead."""
    shown = f"'{value}'" if isinstance(value, str) else str(value)
    raise InputError(f"{name.replace('_', ' ')} is {shown:.80}; it must be {expected}")


def from_table(kind: type[T], table: Mapping[str, Any]) -> T:
    """A dataclass of settings from a table of plain values, whose lists become tuples.

    Raises:
        InputError: a key is not known, a key is missing, or the dataclass refuses a value.
    """
    names = [field.name for field in fields(kind)]
    for key in table:
        if key not in names:
            known = f"choose one of {', '.join(names)}" if names else "this table takes no keys"
            raise InputError(f"the key '{key}' is not known; {known}")
    for field in fields(kind):
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if not optional and field.name not in table:
            raise InputError(f"the key '{field.name}' is missing; add it")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})


def _fits(value: object, hint: Any) -> bool:
    parts = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if parts[-1] is ...:
            return all(_fits(one, parts[0]) for one in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)  # type: ignore[arg-type]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    parts = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        *first, last = [_describe(part) for part in parts]
        return f"{', '.join(first)} or {last}"
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is tuple:
        number = "" if parts[-1] is ... else f" of {len(parts)}"
        return f"a list{number}, each {_describe(parts[0])}"
    return _WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")
