"""A recipe from a TOML file of the user; docs/training.md has an example."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from attnscope.data.augmentation import Augmentation
from attnscope.errors import InputError, first_line
from attnscope.settings import from_table
from attnscope.training.recipe import (
    SGD,
    Adam,
    Milestones,
    Network,
    OneCycle,
    Phase,
    Plateau,
    Recipe,
)
from attnscope.training.recipes import RECIPES

_OPTIMIZERS: dict[str, type[SGD | Adam]] = {"sgd": SGD, "adam": Adam}
_SCHEDULES: dict[str, type[OneCycle | Milestones | Plateau] | None] = {
    "one-cycle": OneCycle,
    "milestones": Milestones,
    "plateau": Plateau,
    "constant": None,
}


def find_recipe(source: str | Path | Recipe) -> Recipe:
    """A recipe by its name or from a file: a path, or a text that ends with ``.toml``.

    Raises:
        InputError: there is none of that name, or the file cannot be used.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Path) or source.endswith(".toml"):
        return read_recipe(Path(source).expanduser())
    return RECIPES.find(source)


def read_recipe(file: Path) -> Recipe:
    """The recipe that a TOML file describes.

    Its keys are the fields of `Recipe`. ``base`` names a recipe that gives every key that is left
    out: the tables ``augmentation`` and ``network`` replace single keys of it; ``optimizer`` and
    ``schedule`` do so where they are of the base's kind; ``phases`` replace all of its phases.

    Raises:
        InputError: the file is missing or no TOML, a key is not known or missing, or a value cannot
            be used. The message names the file and the key.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"the recipe {file} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"the recipe {file} cannot be read ({error.strerror})") from None
    except ValueError as error:  # of decoding as well as of parsing
        raise InputError(f"{file} is not TOML ({first_line(error)}); correct it") from None
    try:
        return _build(table, file)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _build(table: dict[str, Any], file: Path) -> Recipe:
    name = table.pop("base", None)
    if name is not None and not isinstance(name, str):
        raise InputError(f"base is {name!r:.60}; it must be the name of a recipe")
    base = None if name is None else RECIPES.find(name)
    values: dict[str, Any] = {"name": file.stem, "about": f"the recipe of {file.name}"}
    if base is None:
        values |= {"augmentation": Augmentation()}
    else:
        own = {field.name: getattr(base, field.name) for field in fields(base)}
        values = own | values
    for key, value in table.items():
        before = None if base is None else getattr(base, key, None)
        values[key] = _read_value(key, value, before)
    return from_table(Recipe, values)


def _read_value(key: str, value: Any, before: Any) -> Any:
    """A value of the recipe's own table; a table or a list of tables becomes dataclasses."""
    if key == "phases":
        if not isinstance(value, list):
            raise InputError("phases is no list of tables; write [[phases]] before each")
        return tuple(
            _read_table(f"phase {number}", Phase, phase, None)
            for number, phase in enumerate(value, start=1)
        )
    kinds: dict[str, type[Augmentation | Network]] = {
        "augmentation": Augmentation,
        "network": Network,
    }
    if key in kinds:
        return _read_table(key, kinds[key], value, before)
    if key == "optimizer":
        return _read_kind(key, _OPTIMIZERS, value, before)
    if key == "schedule":
        return _read_kind(key, _SCHEDULES, value, before)
    return value


def _read_kind(key: str, kinds: Mapping[str, Any], value: Any, before: Any) -> Any:
    """A table whose ``kind`` chooses the dataclass; without it, that of the base."""
    given = dict(_expect_table(key, value))
    names = {kind: name for name, kind in kinds.items()}
    known = None if before is None else names[type(before)]
    name = given.pop("kind", known)
    if not isinstance(name, str) or name not in kinds:
        raise InputError(f"{key}: kind is {name!r:.40}; it must be one of {', '.join(kinds)}")
    if kinds[name] is None:
        if given:
            raise InputError(f"{key}: the kind '{name}' takes no other key; leave them out")
        return None
    return _read_table(key, kinds[name], given, before if name == known else None)


def _read_table(key: str, kind: type[Any], value: Any, before: Any) -> Any:
    """A dataclass of a table; what is left out is as in ``before``, or the default."""
    given = _expect_table(key, value)
    try:
        return from_table(kind, given if before is None else {**asdict(before), **given})
    except InputError as error:
        raise InputError(f"{key}: {error}") from None


def _expect_table(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{key} is {value!r:.40}; it must be a table, [{key}]")
    return value
