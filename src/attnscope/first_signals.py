"""Signals that come while the program is starting. Imported first of all, for that reason.

Importing the commands takes a moment. Importing this module makes a signal that comes before the
commands can handle it end the program with one line and not with a traceback. It does nothing in
other programs that import attnscope.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from types import FrameType


def is_program() -> bool:
    """Return whether this process is ``attnscope`` or ``python -m attnscope``.

    Processes that decode images have the same ``sys.argv``, and were started otherwise.
    """
    started, name = sys.orig_argv, sys.argv[0] if sys.argv else ""
    if name == "-m":  # until the module is found
        return ("-m", "attnscope") in pairwise(started)
    return os.path.basename(name) == "attnscope" and name in started


def _end(number: int, frame: FrameType | None) -> None:
    """End the process at once: nothing has been written yet, or everything has."""
    os.write(2, b"attnscope: interrupted\n")
    os._exit(128 + number)


if is_program():
    for _name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        _number = getattr(signal, _name, None)
        # A signal that is ignored stays ignored, as SIGHUP is under nohup.
        if _number is not None and signal.getsignal(_number) is not signal.SIG_IGN:
            signal.signal(_number, _end)
