"""Data sets of users that a command names: ``package.module:callable``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from attnscope.data.items import item_count
from attnscope.data.known import DATA_SOURCES
from attnscope.errors import InputError, first_line
from attnscope.importing import call_imported, import_from_here

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def names_data_set(text: str) -> bool:
    """Return whether a text is ``package.module:callable``, and no registered source."""
    return text.partition(":")[0] not in DATA_SOURCES and _FORM.fullmatch(text) is not None


def open_data_set(text: str, split: str) -> Dataset[Any]:
    """Import a module of the user, which runs its code, and return its data set.

    Args:
        text: ``package.module:callable``. The callable takes no arguments and returns a data set,
            or a dict of splits (``train``, ``validation``, ``test``) and data sets. A data set can
            stand in its place.
        split: The split that is needed. A single data set is that of every split.

    Raises:
        InputError: It cannot be imported or called, or is no map-style data set.
    """
    module, _, name = text.partition(":")
    try:
        found = getattr(import_from_here(module), name)
    except Exception as error:  # user code raises exceptions of any type
        raise InputError(
            "AS230",
            f"the data set {text} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); check the name, or choose one of "
            f"{', '.join(DATA_SOURCES)}",
        ) from None
    # A class has ``__getitem__``, too, and its items are those of the data set that it builds.
    if isinstance(found, type) or (callable(found) and not hasattr(found, "__getitem__")):
        try:
            found = call_imported(found)
        except Exception as error:  # user code raises exceptions of any type
            raise InputError(
                "AS231",
                f"calling {text} failed ({type(error).__name__}: {first_line(error)}); it must be "
                "callable without arguments and return a data set",
            ) from None
    if isinstance(found, Mapping):
        if split not in found:
            raise InputError(
                "AS232",
                f"the data set {text} has no split '{split}', only "
                f"{', '.join(map(repr, found)) or 'none'}; choose one with --split",
            )
        found = found[split]
    item_count(found)
    result: Dataset[Any] = found
    return result
