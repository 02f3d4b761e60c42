"""The program ``attnscope``, which ``python -m attnscope`` runs, too.

Importing the commands takes a moment. A signal that comes before they can handle it ends the
program with one line, and not with a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command that the arguments of this process name; see `attnscope.commands.main`."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        # A signal that is ignored stays ignored, as SIGHUP is under nohup.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from attnscope.commands.main import main as run

    return run()


def _end(number: int, frame: FrameType | None) -> None:
    """End the process. Nothing has been written yet, or everything."""
    os.write(2, b"attnscope: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
