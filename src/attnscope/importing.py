"""Import what ``package.module:name`` names, from the working directory or the installed packages.

Does not import torch.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_from_here(module: str) -> ModuleType:
    """Import a module of the user, which runs its code.

    The working directory comes first on the path of Python while the module is imported.

    Raises:
        Exception: The module raises it, or there is no such module.
    """
    working_directory = str(Path.cwd())
    sys.path.insert(0, working_directory)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(working_directory)
