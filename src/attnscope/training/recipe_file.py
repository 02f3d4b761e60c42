"""Read a recipe from a TOML file. docs/reference/training.md has an example."""

from __future__ import annotations

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
    """Return the recipe with a name or from a file.

    Args:
        source: the name of a recipe; a `Path` or a string that ends with ``.toml``; or a recipe,
            which is returned.

    Raises:
        InputError: AS120, there is no recipe with the name; or the file cannot be used, see
            `read_recipe`.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Path) or source.endswith(".toml"):
        return read_recipe(Path(source).expanduser())
    return RECIPES.find(source)


def read_recipe(file: Path) -> Recipe:
    """Read a recipe from a TOML file.

    The keys are the fields of `Recipe`. ``base`` names a recipe whose values are used for the keys
    that are left out. The tables ``augmentation`` and ``network`` replace single keys of the base.
    ``optimizer`` and ``schedule`` do so if they are of the same kind as the base's, and replace it
    otherwise. ``phases`` replace all phases of the base.

    Args:
        file: the TOML file. Its stem is the name of the recipe unless the key ``name`` is given.

    Raises:
        InputError: AS510, the file does not exist; AS511, it cannot be read; AS512, it is not TOML;
            AS103 and AS104, a key is unknown or missing; AS101, AS102, AS501, AS502 and AS513 to
            AS516, a value cannot be used. The message names the file and the key.
    """
    import tomllib  # it takes as long as all of `attnscope --help` to import

    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("AS510", f"recipe {file} does not exist; check the path") from None
    except OSError as error:
        raise InputError(
            "AS511",
            f"recipe {file} cannot be read ({error.strerror}); give the path of a TOML file",
        ) from None
    except ValueError as error:  # from decoding or parsing
        raise InputError(
            "AS512", f"recipe {file} is not valid TOML ({first_line(error)}); correct it"
        ) from None
    try:
        return _build(table, file)
    except InputError as error:
        raise InputError(error.code, f"recipe {file}: {error.message}") from None


def _build(table: dict[str, Any], file: Path) -> Recipe:
    name = table.pop("base", None)
    if name is not None and not isinstance(name, str):
        raise InputError("AS513", f"base is {name!r:.60}; it must be the name of a recipe")
    base = None if name is None else RECIPES.find(name)
    values: dict[str, Any] = {"name": file.stem, "about": f"the recipe of {file.name}"}
    if base is None:
        values |= {"augmentation": Augmentation()}
    else:
        inherited = {field.name: getattr(base, field.name) for field in fields(base)}
        values = inherited | values
    for key, value in table.items():
        inherited_value = None if base is None else getattr(base, key, None)
        values[key] = _read_value(key, value, inherited_value)
    return from_table(Recipe, values)


def _read_value(key: str, value: Any, base: Any) -> Any:
    """Convert a value of the top-level table. Tables become dataclasses."""
    if key == "phases":
        if not isinstance(value, list):
            raise InputError("AS514", "phases must be a list of tables; start each with [[phases]]")
        return tuple(
            _read_table(f"phase {number}", Phase, phase, None)
            for number, phase in enumerate(value, start=1)
        )
    kinds: dict[str, type[Augmentation | Network]] = {
        "augmentation": Augmentation,
        "network": Network,
    }
    if key in kinds:
        return _read_table(key, kinds[key], value, base)
    if key == "optimizer":
        return _read_kind(key, _OPTIMIZERS, value, base)
    if key == "schedule":
        return _read_kind(key, _SCHEDULES, value, base)
    return value


def _read_kind(key: str, kinds: Mapping[str, Any], value: Any, base: Any) -> Any:
    """Read a table whose ``kind`` chooses the dataclass. Default: the kind of the base."""
    given = dict(_expect_table(key, value))
    names = {kind: name for name, kind in kinds.items()}
    known = None if base is None else names[type(base)]
    name = given.pop("kind", known)
    if not isinstance(name, str) or name not in kinds:
        raise InputError(
            "AS515", f"{key}: kind is {name!r:.40}; it must be one of {', '.join(kinds)}"
        )
    if kinds[name] is None:
        if given:
            raise InputError(
                "AS516",
                f"{key}: the kind '{name}' takes no other keys; remove {', '.join(given)}",
            )
        return None
    return _read_table(key, kinds[name], given, base if name == known else None)


def _read_table(key: str, kind: type[Any], value: Any, base: Any) -> Any:
    """Read a table as a dataclass. Keys that are left out come from ``base`` or the defaults."""
    given = _expect_table(key, value)
    try:
        return from_table(kind, given if base is None else {**asdict(base), **given})
    except InputError as error:
        raise InputError(error.code, f"{key}: {error.message}") from None


def _expect_table(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(
            "AS514", f"{key} is {value!r:.40}; it must be a table that starts with [{key}]"
        )
    return value
