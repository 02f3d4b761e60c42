"""Stop training cleanly on SIGINT or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of stopping at once.

    A second signal acts immediately. The previous handlers are restored at the end. Outside the
    main thread nothing is collected, because only the main thread receives signals.

    Yields:
        A list to which the number of a received signal is appended.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _: object) -> None:
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        restore()
