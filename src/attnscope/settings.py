"""Validation of settings: dataclasses checked against their type hints, or read from a table."""

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

_TYPE_NAMES = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    type(None): "omitted",
}


def check_types(settings: DataclassInstance) -> None:
    """Check every field of a dataclass against its type hint.

    An int is accepted where a float is expected; NaN and infinity are not. Hints may consist of
    numbers, ``bool``, ``str``, ``Path``, dataclasses, ``None``, ``Literal``, ``tuple`` and unions
    of these.

    Args:
        settings: an instance of a dataclass.

    Raises:
        InputError: AS101, a value has the wrong type.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not _matches(value, hints[field.name]):
            raise _bad_value("AS101", field.name, value, _describe(hints[field.name]))


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise an error about a setting unless a condition holds.

    Args:
        condition: what must hold.
        name: the name of the setting; underscores become spaces in the message.
        value: the value that was given.
        expected: what the value must be, such as ``"at least 1"``. It follows the words "must be".

    Raises:
        InputError: AS102, the condition does not hold.
    """
    if not condition:
        raise _bad_value("AS102", name, value, expected)


def from_table(kind: type[T], table: Mapping[str, Any]) -> T:
    """Build a dataclass of settings from a table of plain values, as read from TOML or JSON.

    Args:
        kind: the dataclass.
        table: name of a field -> value. Lists become tuples.

    Raises:
        InputError: AS103, a key is unknown; AS104, a required key is missing; or the dataclass
            rejects a value.
    """
    names = [field.name for field in fields(kind)]
    for key in table:
        if key not in names:
            remedy = f"use one of {', '.join(names)}" if names else "this table takes no keys"
            raise InputError("AS103", f"the key '{key}' is unknown; {remedy}")
    for field in fields(kind):
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if not optional and field.name not in table:
            raise InputError("AS104", f"the required key '{field.name}' is missing; add it")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})


def _bad_value(code: str, name: str, value: object, expected: str) -> InputError:
    """The one place that words a message about the value of a setting."""
    shown = " ".join(str(value).split())  # the message is one line
    shown = f"'{shown:.80}'" if isinstance(value, str) else f"{shown:.80}"
    return InputError(code, f"{name.replace('_', ' ')} must be {expected}, not {shown}")


def _matches(value: object, hint: Any) -> bool:
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_matches(value, argument) for argument in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is ...:
            return all(_matches(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_matches, value, arguments))
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)  # type: ignore[arg-type]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    """A type hint in words, such as ``a finite number or omitted``."""
    *first, last = _alternatives(hint)
    return f"{', '.join(first)} or {last}" if first else last


def _alternatives(hint: Any) -> list[str]:
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return [name for argument in arguments for name in _alternatives(argument)]
    if origin is Literal:
        return list(map(str, arguments))
    if origin is tuple:
        count = "" if arguments[-1] is ... else f"{len(arguments)} "
        return [f"a list of {count}values, each {_describe(arguments[0])}"]
    return [_TYPE_NAMES.get(hint, f"a {getattr(hint, '__name__', hint)}")]
