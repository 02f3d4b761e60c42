"""Worker processes that decode image files ahead of their use.

They are those of torch's `DataLoader`, which end with this process. Tasks go to them and pixels
come back through pipes, so nothing is kept in shared memory, which is small in containers.
"""

from __future__ import annotations

import gc
import signal
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from multiprocessing import current_process

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from attnscope.data.decoding import refused_bombs
from attnscope.data.memory import WORKERS_VARIABLE
from attnscope.data.tasks import DecodedTask, Task, decode_files, run_task
from attnscope.errors import InputError, first_line

_AHEAD_TASKS = 32  # of all processes together; a task has up to 4 MiB of images
_FEWEST_TASKS = 2  # of each process
_FEW = 64  # images for which starting processes takes longer than decoding them


class DecodingPool:
    """Processes that decode tasks in order, with a bounded number of tasks ahead.

    They start when more than a few images are decoded, are kept for the next use, and end when
    nothing refers to the pool. A use that begins before another one has ended gets processes of
    its own.
    """

    def __init__(self, workers: int) -> None:
        """Start nothing yet.

        Args:
            workers: Number of processes; 0 decodes in this process, not ahead.
        """
        # A process that ends with its parent must not have children of its own.
        self._count = 0 if current_process().daemon else workers
        self._started: list[_Workers] = []
        self._idle: list[_Workers] = []
        # If the pool is part of a cycle of references, the garbage collector would close the pipes
        # first, and wait in vain for the processes to read from them that they shall end. The
        # finalizer is outside the cycle, so everything is intact when it lets go of them.
        weakref.finalize(self, self._started.clear)

    def run(self, tasks: Iterable[Task]) -> Iterator[DecodedTask]:
        """Yield what each task gives, in order.

        Args:
            tasks: Some tasks are taken from it before they are needed.

        Raises:
            InputError: A process has ended, for lack of memory for example.
        """
        if not self._count:
            yield from map(run_task, tasks)
            return
        tasks, images = iter(tasks), 0
        first: list[Task] = []
        while images <= _FEW and (task := next(tasks, None)) is not None:
            first.append(task)
            images += len(task.names)
        if images <= _FEW:
            yield from map(run_task, first)
            return
        if not self._idle:
            self._idle.append(_Workers(self._count))
            self._started.append(self._idle[-1])
        workers, given, done = self._idle.pop(), _Given(chain(first, tasks)), 0
        try:
            for found in workers.run(given):
                done += 1
                if given.ended and done == given.count:
                    # Before the last one is handed on: the caller may ask for no more.
                    self._idle.append(workers)
                yield found
        finally:
            # If not, they have tasks that nobody waits for; the finalizer may have run before.
            if workers not in self._idle and workers in self._started:
                self._started.remove(workers)


class _Given:
    """Tasks that are counted when they are taken."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self.count, self.ended = 0, False

    def __iter__(self) -> Iterator[Task]:
        for task in self._tasks:
            self.count += 1
            yield task
        self.ended = True


class _Workers:
    """A loader whose processes are used again and again."""

    def __init__(self, count: int) -> None:
        self._order = _Order()
        with warnings.catch_warnings():  # of more processes than CPUs, which somebody asked for
            warnings.simplefilter("ignore", UserWarning)
            self._loader: DataLoader[DecodedTask] = DataLoader(
                _Decoding(),
                batch_size=None,
                sampler=self._order,
                num_workers=count,
                collate_fn=_unchanged,  # type: ignore[arg-type]  # one item, without a batch size
                worker_init_fn=_prepare,
                prefetch_factor=max(_FEWEST_TASKS, _AHEAD_TASKS // count),
                persistent_workers=True,
                # A loader draws a random number when it starts; keep it away from the global one.
                generator=torch.Generator(),
            )

    def run(self, tasks: Iterable[Task]) -> Iterator[DecodedTask]:
        self._order.tasks = tasks
        try:
            with _starting():
                results = iter(self._loader)
            yield from results
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                "AS242",
                f"a process that decodes images has ended ({first_line(error)}); if the system "
                f"ended it for lack of memory, use fewer: set {WORKERS_VARIABLE}, 0 for none",
            ) from None


@contextmanager
def _starting() -> Iterator[None]:
    """In this block, processes are started, maybe by forking this one."""
    collects, child_ended = gc.isenabled(), getattr(signal, "SIGCHLD", None)
    handler = None if child_ended is None else signal.getsignal(child_ended)
    gc.disable()  # a collection in the new process would end things of this one
    try:
        with warnings.catch_warnings():  # Python warns of forks beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if collects:
            gc.enable()
        # The handler of torch raises an error wherever this process is when a worker has ended.
        # Without it, the error is raised where its images are awaited, and can be explained.
        if child_ended is not None and signal.getsignal(child_ended) is not handler:
            signal.signal(child_ended, handler)


class _Order(Sampler[Task]):
    """The tasks of the present use of the processes."""

    def __init__(self) -> None:
        self.tasks: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


class _Decoding(Dataset[DecodedTask]):
    """Maps a task to its images."""

    def __getitem__(self, task: Task) -> DecodedTask:
        return run_task(task)


def _unchanged(found: DecodedTask) -> DecodedTask:
    return found


def _prepare(_: int) -> None:
    """Prepare a worker process."""
    # Ctrl-C reaches all processes of a terminal. The main process ends the workers when it does not
    # need them any more: a training first completes its step and writes a checkpoint.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # else the garbage collector writes to, and so copies, what is shared by forking
    gc.enable()


def run_in_threads(tasks: Iterable[Task]) -> Iterator[DecodedTask]:
    """Yield what each task gives, in order, decoded by threads of this process."""
    ahead: deque[Future[DecodedTask]] = deque()
    with refused_bombs(), ThreadPoolExecutor() as pool:
        for task in tasks:
            ahead.append(pool.submit(decode_files, task))
            if len(ahead) > _AHEAD_TASKS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
