"""Signals that stop a program: what works then cleans up, and the exit code names the signal.

SIGINT (Ctrl-C), SIGTERM (a scheduler) and SIGHUP (a lost connection) raise `KeyboardInterrupt` in a
command. The library itself installs no handlers.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_PARENT_SECONDS = 0.5
_LOOK_AGAIN = 0.05
"""Seconds until it is looked again whether an import has ended."""
_LONGEST_IMPORT = 10.0
"""A signal waits for an import for this number of seconds at most."""
PARENT = "ATTNSCOPE_PARENT"
"""Name of an environment variable: the process whose end is the end of a command, too."""
_received: list[int] = []


def end_with_parent() -> None:
    """End this process soon after the one that started it, if that one asks for it.

    It asks with the variable `PARENT` of the environment. So a command that was killed leaves no
    process behind that works for it.
    """
    parent = os.environ.pop(PARENT, "")
    if not parent.isdecimal():
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def was_interrupted() -> bool:
    """Return whether a signal that stops a program has come since the command began."""
    return bool(_received)


def exit_code() -> int:
    """Return the exit code of an interrupted command: 128 and the number of the signal."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Let each signal that stops a program raise `KeyboardInterrupt` inside the block.

    Signals that are ignored stay ignored, as SIGHUP is under ``nohup``. Outside the main thread
    nothing changes, because only the main thread receives signals.

    A signal that comes during an import waits for its end: libraries catch the exception and go on,
    or abort the process where C++ code imports. A second signal acts at once.

    Raises:
        KeyboardInterrupt: a signal came in the block, or waits when the block ends.
    """
    _received.clear()
    began, waits = 0.0, False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal began, waits
        if number != _ALARM:
            _received.append(number)
            began = began or time.monotonic()
        may_wait = len(_received) == 1 and time.monotonic() - began < _LONGEST_IMPORT
        waits = _ALARM is not None and may_wait and _is_importing(frame)
        if not waits:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN)

    with _handlers(interrupt, {}), _alarm(interrupt):
        yield
    if waits:
        raise KeyboardInterrupt


_ALARM = getattr(signal, "SIGALRM", None)  # Windows has none


@contextmanager
def _alarm(handler: _Handler) -> Iterator[None]:
    """Install a handler of the alarm, and end with no alarm set."""
    if _ALARM is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(_ALARM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(_ALARM, before)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame is part of an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def stop_signal() -> Iterator[list[int]]:
    """Collect the signals that stop a program in a list instead of stopping at once.

    A second signal acts immediately. The previous handlers are restored at the end. Outside the
    main thread nothing is collected, because only the main thread receives signals.

    Yields:
        A list to which the number of a received signal is appended.
    """
    received: list[int] = []
    before: dict[int, _Handler | int | None] = {}

    def collect(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    with _handlers(collect, before):
        yield received


@contextmanager
def _handlers(handler: _Handler, before: dict[int, _Handler | int | None]) -> Iterator[None]:
    """Install one handler for each signal that is not ignored, and restore the previous ones.

    Args:
        handler: the handler.
        before: gets the previous handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    current = {number: signal.getsignal(number) for number in numbers}
    before.update({n: old for n, old in current.items() if old is not signal.SIG_IGN})
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
