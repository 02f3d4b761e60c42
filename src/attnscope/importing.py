"""Import what ``package.module:name`` names, from the working directory or the installed packages.

Does not import torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def import_from_here(module: str) -> ModuleType:
    """Import a module of the user, which runs its code.

    The working directory comes first on the path of Python while the module is imported, and last
    from then on: functions and data sets can import modules beside theirs when they run.

    Raises:
        ImportError: The module ends the program, as a script without a main guard does.
        Exception: The module raises it, or there is no such module.
    """
    working_directory = str(Path.cwd())
    sys.path.insert(0, working_directory)
    try:
        imported = importlib.import_module(module)
    except SystemExit:  # a command would end as if it had done its work
        raise ImportError(
            "it ends the program when it is imported; put that under if __name__ == '__main__'"
        ) from None
    finally:
        sys.path.remove(working_directory)
    if working_directory not in sys.path:
        sys.path.append(working_directory)
    return imported


def call_imported(function: Callable[[], T]) -> T:
    """Call a function of the user without arguments.

    Raises:
        RuntimeError: The function ends the program.
        Exception: The function raises it.
    """
    try:
        return function()
    except SystemExit:  # as above
        raise RuntimeError("it ends the program when it is called; it must return") from None
