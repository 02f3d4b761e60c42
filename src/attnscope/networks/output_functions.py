"""Functions of the user's own that take class scores from what a network returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attnscope.errors import InputError, first_line
from attnscope.importing import import_from_here


def function_name(function: Callable[..., Any]) -> str:
    """Return ``module:function``, by which a recording names a function."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{function.__module__}:{name}"


def import_function(name: str) -> Callable[[Any], Any]:
    """Import ``module:function`` from the Python path or the current folder.

    Raises:
        InputError: There is no such function (AS362).
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_from_here(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # user code raises exceptions of any type
        raise InputError(
            "AS362",
            f"the output function {name} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); check its name",
        ) from None
    if not callable(found):
        raise InputError("AS362", f"{name} is not a function; name one that takes the output")
    return found  # type: ignore[no-any-return]
