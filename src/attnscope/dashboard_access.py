"""What visitors of the dashboard may do: look only, or also upload images and start work.

The server tells its pages by an argument of their script, because pages run in the server's process
but import nothing of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

_LOOK_ONLY = "--look-only"


def script_arguments(folder: Path, *, actions: bool) -> list[str]:
    """Return the arguments of the pages' script.

    Args:
        folder: What the dashboard shows.
        actions: Whether visitors may upload images and start work.
    """
    return [str(folder), *([] if actions else [_LOOK_ONLY])]


def actions_allowed() -> bool:
    """Return whether the visitors of this dashboard may upload images and start work.

    They may where only this machine reaches the server, which includes pages that
    ``streamlit run`` serves, and elsewhere if the dashboard was started with ``--allow-actions``.
    """
    return _LOOK_ONLY not in sys.argv[2:]
