"""Names that are imported when they are used (PEP 562), and names that have changed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names come from its modules.

    They keep ``import attnscope`` quick, and a recording can be read without torch.

    Args:
        package: ``__name__`` of the package.
        homes: name -> the module below the package that defines it. An empty string means that the
            name is a module of the package.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        if not homes[name]:
            return import_module(f"{package}.{name}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted(homes)


def renamed_names(module: str, new_names: Mapping[str, str]) -> Callable[[str], Any]:
    """``__getattr__`` of a module in which public names have changed.

    An old name works for one version, and warns.

    Args:
        module: ``__name__`` of the module.
        new_names: old name -> new name in the same module.
    """

    def get(name: str) -> Any:
        if name not in new_names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        new = new_names[name]
        warnings.warn(
            f"{module}.{name} is now {new}; the old name will be removed in the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(sys.modules[module], new)

    return get
