"""What commands print: names of files and classes cannot send codes to a terminal."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import IO, Any, cast

from attnscope.errors import printable

_CODES = re.compile(r"(\x1b\[A)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control codes but tabs and ends of lines. Progress bars move the cursor up by the first one."""


class _Escaping:
    """A stream that writes control codes as text: ``\\x1b[31m``."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_CODES.sub(lambda m: m[1] or printable(m[0]), text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _OneLine(logging.Formatter):
    """Log messages as one line each."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def plain_output() -> Iterator[None]:
    """Escape control codes in what the block prints, and what the terminal cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        # Streams of another kind, as in tests, or that cannot be flushed.
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    last = logging.lastResort
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(cast("IO[str]", _Escaping(sys.stdout))))
        stack.enter_context(redirect_stderr(cast("IO[str]", _Escaping(sys.stderr))))
        if last is not None:
            before = last.formatter
            last.setFormatter(_OneLine())
            stack.callback(last.setFormatter, before)
        yield
