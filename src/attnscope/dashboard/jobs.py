"""Jobs of the dashboard's server: one command at a time in the background, which can be cancelled.

>>> job = start("Record cbam", ["capture", "runs/cbam"], Path("runs/cbam"))
>>> job.state, job.progress, job.line
('running', (40, 359), ' 11%|█         | 40/359 [00:01<00:09, 34.1image/s]')
>>> job.cancel()

A job is a process of its own, in a process group of its own, so that Ctrl-C of the server does not
reach it. It ends with the server: `stop_all` runs when the server ends, and a server that was
killed is noticed by the job itself (`attnscope.signals.end_with_parent`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from attnscope.errors import InputError, printable
from attnscope.registry import loaded_by_hand
from attnscope.shell import shell_command
from attnscope.signals import PARENT

State = Literal["running", "done", "failed", "cancelled"]

GRACE_SECONDS = 20.0
"""Time between two signals of a cancellation: a command writes what it keeps before it ends."""
_CLOSING_SECONDS = 3.0  # the same when the server ends, and somebody waits for that
_TAIL_BYTES = 16_384  # of the log, in which the last line and the last bar lie
_LONGEST_LINE = 500  # characters

_BAR = re.compile(r"(\d+)%\|[^|]*\|(?: *(\d+)(?:\.\d*)?/(\d+)(?:\.\d*)? \[)?")
"""A bar of tqdm: its share, and with units how much is done of how much."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What moves the cursor or colors the text of a terminal."""

_lock = threading.RLock()
_latest: Job | None = None


class Job:
    """A command that runs in the background, or has run.

    Made by `start`. All members can be used by several threads at once.

    Attributes:
        title: what the job does, for people.
        folder: the run or recording that it works on.
        command: the command as it can be pasted into a shell.
        number: a number that no other job of this server has.
    """

    _count = 0

    def __init__(self, title: str, words: Sequence[str], folder: Path, command: str) -> None:
        """Start the process.

        Args:
            title: what the job does.
            words: the program and its arguments.
            folder: the run or recording that it works on.
            command: the command for people.
        """
        Job._count += 1
        self.title, self.folder, self.command, self.number = title, folder, command, Job._count
        self._cancelled = False
        self._private = tempfile.TemporaryDirectory(prefix="attnscope-job-")
        self._log = Path(self._private.name) / "output"
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    list(words),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Unbuffered: the lines of both streams keep their order, with an error last.
                    env={**os.environ, PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
        except OSError:
            self._private.cleanup()
            raise

    @property
    def state(self) -> State:
        """What became of the job: running, done, failed or cancelled."""
        code = self._process.poll()
        if code is None:
            return "running"
        if code == 0:
            return "done"
        return "cancelled" if self._cancelled else "failed"

    @property
    def is_ending(self) -> bool:
        """Whether the job was cancelled and has not ended yet."""
        return self._cancelled and self.state == "running"

    @property
    def progress(self) -> tuple[int, int] | None:
        """How much is done of how much, by the last bar; None before there is one.

        A bar without units counts percent, so that the total is 100.
        """
        found = _BAR.findall(self._tail())
        if not found:
            return None
        percent, done, total = found[-1]
        return (int(done), int(total)) if total else (int(percent), 100)

    @property
    def line(self) -> str:
        """The last line of the output, with its control characters escaped; empty if none."""
        lines = [line.strip() for line in re.split(r"[\r\n]", self._tail())]
        last = next((line for line in reversed(lines) if line), "")
        return printable(last if len(last) <= _LONGEST_LINE else f"{last[:_LONGEST_LINE]}…")

    def cancel(self) -> None:
        """Ask the job to end, and return at once.

        The process group gets SIGINT, as by Ctrl-C. If that is not enough, it gets SIGTERM after
        `GRACE_SECONDS`, and is killed after twice that time. A command leaves nothing half-written,
        and running it again continues where it can.
        """
        with _lock:
            if self._cancelled or self._process.poll() is not None:
                return
            self._cancelled = True
        threading.Thread(target=self._end, args=(GRACE_SECONDS,), daemon=True).start()

    def wait(self, seconds: float | None = None) -> State:
        """Wait until the job has ended, or at most a number of seconds; return its state."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.state

    def _end(self, grace: float) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._signal(number)
            if self.wait(grace) != "running":
                break
        # What the command started may be there still, such as processes that decode images.
        self._signal(signal.SIGKILL)
        self.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has ended
            os.killpg(self._process.pid, number)

    def _close(self) -> None:
        """End the process soon, and remove its output."""
        if self._process.poll() is None:
            self._cancelled = True
            self._end(_CLOSING_SECONDS)
        self._private.cleanup()

    def _tail(self) -> str:
        """Return the end of the output, without the escapes of a terminal."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = log.read().decode("utf-8", "replace")
        except FileNotFoundError:  # the next job has begun, and the output of this one is gone
            return ""
        return _ESCAPES.sub("", text)


def start(title: str, arguments: Sequence[str], folder: Path, *, module: str = "attnscope") -> Job:
    """Start a command in the background.

    Args:
        title: what the job does, for people.
        arguments: the words after ``attnscope``, or after ``python -m MODULE``.
        folder: the run or recording that it works on.
        module: what Python runs. Another module than ``attnscope`` must call
            `attnscope.signals.end_with_parent` first, so that it ends with a killed server.

    Raises:
        InputError: AS980, another job is running; AS981, the process cannot be started.
    """
    global _latest
    arguments = [str(argument) for argument in arguments]
    words = [sys.executable, "-m", module, *arguments]
    command = " ".join(["python -m", module, *arguments])
    if module == "attnscope":
        plugins = [f"--plugin={name}" for name in loaded_by_hand()]
        words[3:3] = plugins
        command = shell_command(*plugins, *arguments)
    with _lock:
        busy = current()
        if busy is not None:
            raise InputError(
                "AS980",
                f"{title} cannot begin, because '{busy.title}' is running; wait until it has "
                "ended, or cancel it",
            )
        if _latest is not None:
            _latest._close()
        try:
            _latest = Job(title, words, folder, command)
        except OSError as error:
            raise InputError(
                "AS981",
                f"{title} cannot begin ({error.strerror}); run it in a terminal: {command}",
            ) from None
        return _latest


def current() -> Job | None:
    """Return the job that is running, or None."""
    job = latest()
    return job if job is not None and job.state == "running" else None


def latest() -> Job | None:
    """Return the job that was started last, which may have ended; None if there was none."""
    with _lock:
        return _latest


def stop_all() -> None:
    """End the job that runs, and forget what has run. It is called when the server ends."""
    global _latest
    with _lock:
        job, _latest = _latest, None
    if job is not None:
        job._close()


atexit.register(stop_all)
