"""Registries: things of one kind by name, which packages can add to.

A package adds its own by registering them when it is imported, and announces the module that does
so as an entry point of the group ``attnscope.plugins``::

    [project.entry-points."attnscope.plugins"]
    my-plots = "my_package.plots"

Announced modules are imported when a registry is first asked; ``--plugin MODULE`` and `load_plugin`
import one that nobody announced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from attnscope.errors import InputError, first_line

PLUGIN_GROUP = "attnscope.plugins"
T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name, in the order in which they were registered."""

    def __init__(self, what: str, check: Callable[[T], None] | None = None) -> None:
        """An empty registry.

        Args:
            what: what each of them is called in messages: ``plot``, ``data source`` ...
            check: raises a TypeError or ValueError where a thing is not complete.
        """
        self.what = what
        self._check = check
        self._known: dict[str, T] = {}

    def register(self, name: str, thing: T) -> T:
        """Add a thing under a name.

        Returns:
            The thing.

        Raises:
            InputError: the name is taken, or the thing is not complete.
        """
        if name in self._known:
            raise InputError(f"the {self.what} '{name}' is registered already; take another name")
        if not name or not name.replace("_", "").replace("-", "").isalnum():
            raise InputError(
                f"'{name}' cannot name a {self.what}; take letters, digits, underscores and hyphens"
            )
        if self._check is not None:
            try:
                self._check(thing)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"the {self.what} '{name}' cannot be registered: {first_line(error)}"
                ) from None
        self._known[name] = thing
        return thing

    def find(self, name: str) -> T:
        """The thing of that name.

        Raises:
            InputError: there is none; the message lists those that there are.
        """
        load_announced()
        if name not in self._known:
            raise InputError(
                f"the {self.what} '{name}' is not known; choose one of {', '.join(self._known)}, "
                "or load the package that registers it with --plugin MODULE"
            )
        return self._known[name]

    def __getitem__(self, name: str) -> T:
        load_announced()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        load_announced()
        return iter(tuple(self._known))

    def __len__(self) -> int:
        load_announced()
        return len(self._known)


_announced_are_loaded = False
_loaded_by_hand: list[str] = []


def load_announced() -> None:
    """Import the modules that installed packages announce, once in a process.

    Raises:
        InputError: one of them cannot be imported.
    """
    global _announced_are_loaded
    if _announced_are_loaded:
        return
    _announced_are_loaded = True  # before, since what is imported asks registries itself
    for entry in entry_points(group=PLUGIN_GROUP):
        package = entry.dist.name if entry.dist is not None else entry.value
        try:
            entry.load()
        except Exception as error:  # whatever somebody's module raises
            raise InputError(
                f"the plugin {entry.value} of the package {package} cannot be imported "
                f"({type(error).__name__}: {first_line(error)}); mend or uninstall {package}"
            ) from None


def load_plugin(module: str) -> None:
    """Import a module that registers things; it may lie in the working directory.

    Raises:
        InputError: it cannot be imported.
    """
    load_announced()
    where = str(Path.cwd())
    sys.path.insert(0, where)
    try:
        import_module(module)
    except Exception as error:  # whatever somebody's module raises
        raise InputError(
            f"the plugin '{module}' cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); --plugin takes the name of a Python module"
        ) from None
    finally:
        sys.path.remove(where)
    if module not in _loaded_by_hand:
        _loaded_by_hand.append(module)


def loaded_by_hand() -> tuple[str, ...]:
    """The modules that `load_plugin` imported: what a process that this one starts must load too.

    Those that packages announce are found there without being told.
    """
    return tuple(_loaded_by_hand)
