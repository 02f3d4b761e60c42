"""Work that goes on in threads while the caller goes on, too."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Background:
    """Does pieces of work, in threads or at once.

    With one thread, they are done in their order. After a piece has failed, no other is begun, and
    the error is raised in the thread that submits pieces: with the next one, or at the end of the
    ``with`` block. That waits for everything submitted, also after an error.
    """

    def __init__(self, threads: int, ahead: int, limit: int) -> None:
        """Prepare the threads.

        Args:
            threads: Number of threads; 0 to do each piece when it is submitted.
            ahead: How many pieces may wait or be done at a time.
            limit: How large these may be together. One piece may always be done.
        """
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._ahead, self._limit = ahead, limit
        self._submitted: deque[tuple[Future[None], int]] = deque()
        self._failed = False

    def submit(self, work: Callable[[], None], size: int = 0) -> None:
        """Do a piece of work soon. Wait while there are too many.

        Args:
            work: A function.
            size: The size of the piece, which counts for ``limit``.
        """
        if self._pool is None:
            work()
            return
        while self._submitted and (
            len(self._submitted) >= self._ahead
            or size + sum(each for _, each in self._submitted) > self._limit
        ):
            self._wait()
        while self._submitted and self._submitted[0][0].done():
            self._wait()  # an error is seen soon
        self._submitted.append((self._pool.submit(self._do, work), size))

    def finish(self) -> None:
        """Wait for all pieces.

        Raises:
            Exception: What the first of them raised that failed.
        """
        while self._submitted:
            self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=True)

    def _wait(self) -> None:
        self._submitted.popleft()[0].result()

    def _do(self, work: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            work()
        except BaseException:
            self._failed = True
            raise
