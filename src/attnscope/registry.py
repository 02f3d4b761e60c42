"""Registries of plots, statistics, recipes and other entries that packages can extend.

A package adds entries by registering them when it is imported. It declares the module that does so
as an entry point of the group ``attnscope.plugins``::

    [project.entry-points."attnscope.plugins"]
    my-plots = "my_package.plots"

These modules are imported when a registry is first read. `load_plugin` and the option
``--plugin MODULE`` import a module that no package declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from attnscope.errors import InputError, first_line
from attnscope.importing import import_from_here

PLUGIN_GROUP = "attnscope.plugins"
T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to entries of one sort, in the order of registration."""

    def __init__(self, what: str, check: Callable[[T], None] | None = None) -> None:
        """Create an empty registry.

        Args:
            what: what an entry is called in messages, such as ``plot`` or ``data source``.
            check: raises a TypeError or ValueError if an entry is incomplete.
        """
        self.what = what
        self._check = check
        self._known: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add an entry.

        Args:
            name: letters, digits, underscores and hyphens.
            entry: what the name stands for.

        Returns:
            The entry.

        Raises:
            InputError: AS121, the name is taken; AS122, it contains other characters; AS123, the
                entry is incomplete.
        """
        if name in self._known:
            raise InputError(
                "AS121", f"the {self.what} '{name}' is already registered; choose another name"
            )
        if not name or not name.replace("_", "").replace("-", "").isalnum():
            raise InputError(
                "AS122",
                f"'{name}' cannot be the name of a {self.what}; "
                "use letters, digits, underscores and hyphens only",
            )
        if self._check is not None:
            try:
                self._check(entry)
            except (TypeError, ValueError) as error:
                raise InputError(
                    "AS123",
                    f"the {self.what} '{name}' cannot be registered: {first_line(error)}",
                ) from None
        self._known[name] = entry
        return entry

    def find(self, name: str) -> T:
        """Return the entry with a name.

        Raises:
            InputError: AS120, there is none; the message lists the names that exist.
        """
        load_declared_plugins()
        if name not in self._known:
            raise InputError(
                "AS120",
                f"the {self.what} '{name}' is unknown; choose one of {', '.join(self._known)}, "
                "or load the package that registers it with --plugin MODULE",
            )
        return self._known[name]

    def __getitem__(self, name: str) -> T:
        load_declared_plugins()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        load_declared_plugins()
        return iter(tuple(self._known))

    def __len__(self) -> int:
        load_declared_plugins()
        return len(self._known)


_declared_plugins_are_loaded = False
_loaded_by_hand: list[str] = []


def load_declared_plugins() -> None:
    """Import the plugins that installed packages declare, once per process.

    Raises:
        InputError: AS124, one of them cannot be imported.
    """
    global _declared_plugins_are_loaded
    if _declared_plugins_are_loaded:
        return
    _declared_plugins_are_loaded = True  # set first: plugins read registries while being imported
    for entry in entry_points(group=PLUGIN_GROUP):
        package = entry.dist.name if entry.dist is not None else entry.value
        try:
            entry.load()
        except Exception as error:  # a plugin may raise anything
            raise InputError(
                "AS124",
                f"the plugin {entry.value} of the package {package} cannot be imported "
                f"({type(error).__name__}: {first_line(error)}); fix or uninstall {package}",
            ) from None


def load_plugin(module: str) -> None:
    """Import a module that registers entries.

    Args:
        module: dotted name of the module, in the working directory or on the Python path.

    Raises:
        InputError: AS125, it cannot be imported.
    """
    load_declared_plugins()
    try:
        import_from_here(module)
    except Exception as error:  # a plugin may raise anything
        raise InputError(
            "AS125",
            f"the plugin '{module}' cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); give --plugin the name of a Python module that can be imported",
        ) from None
    if module not in _loaded_by_hand:
        _loaded_by_hand.append(module)


def loaded_by_hand() -> tuple[str, ...]:
    """Return the modules that `load_plugin` imported.

    A new process must import them, too. It finds declared plugins by itself.
    """
    return tuple(_loaded_by_hand)
