"""Progress bars: one for each piece of work, or one for all pieces of a long command.

>>> with progress_bar(len(images), "image") as bar:  # a bar of its own
...     bar.update(64)
>>> with stages(2) as shown:  # one bar, whose description names the stage
...     with shown.stage("capture"):
...         capture(model, images, "there")
...     with shown.stage("figures"):
...         write_figures("there")

Code that works calls `progress_bar` and need not know which of the two is shown.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tqdm import tqdm

from attnscope.errors import printable

AS_SHARE = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
"""Format of a bar whose units mean nothing to a reader: without counts."""


_SMOOTHING = 0.1
"""Weight of the latest speed in that from which the remaining time follows."""


class Bar:
    """The bar of a piece of work.

    Args:
        bar: The bar of tqdm.
        prefix: Text before every description.
    """

    def __init__(self, bar: tqdm[None], prefix: str = "") -> None:
        self._bar, self._prefix = bar, prefix

    @property
    def done(self) -> float:
        """How much is done."""
        return float(self._bar.n)

    def update(self, n: float = 1) -> None:
        """Count ``n`` more as done."""
        if self._bar.disable:
            return
        # The sum of rounded shares can be larger than the total.
        total = self._bar.total
        step = n if total is None else max(0, min(n, total - self._bar.n))
        # A whole number is shown as one: 40 of 600 images, not 40.0.
        self._bar.update(int(step) if step == int(step) else step)

    def skip(self, n: float) -> None:
        """Count ``n`` more as done that took no time, and are not part of the speed."""
        if self._bar.disable:
            return
        self._bar.initial += n
        self._bar.n += n

    def describe(self, text: str) -> None:
        """Show a text in front of the bar."""
        self._bar.set_description_str(f"{', '.join(filter(None, (self._prefix, text)))}: ")


@dataclass(frozen=True)
class _Part:
    """A piece of work; one can run inside another."""

    total: float | None
    unit: str
    description: str
    bar_format: str | None


class Stages:
    """The single bar of a command with several stages.

    Args:
        count: Number of stages.
        enabled: Whether to show the bar. Lines are printed in any case.
    """

    def __init__(self, count: int, enabled: bool = True) -> None:
        self._bar = tqdm(
            disable=not enabled, dynamic_ncols=True, bar_format="{desc}", smoothing=_SMOOTHING
        )
        self._count, self._number, self._name = count, 0, ""
        self._part: _Part | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Name the stage that runs inside the block: ``2/5 interventions``."""
        self._number += 1
        self._name = f"{self._number}/{self._count} {name}"
        self._begin(None)
        yield

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        tqdm.write(printable(line), file=sys.stderr)

    @contextmanager
    def part(
        self, total: float | None, unit: str, description: str, bar_format: str | None
    ) -> Iterator[Bar]:
        """Show how much of a piece of work of the present stage is done."""
        if self._bar.disable:
            yield Bar(self._bar)
            return
        outer = self._part, self._bar.n
        self._begin(_Part(total, unit, description, bar_format))
        try:
            yield Bar(self._bar, self._name)
        finally:
            self._bar.refresh()
            self._begin(*outer)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.leave = False
        self._bar.close()

    def _begin(self, part: _Part | None, done: float = 0) -> None:
        """Show a piece of work, of which some is done; None: the name of the stage only."""
        self._part = part
        if self._bar.disable:
            return
        if part is None:
            self._bar.bar_format = "{desc}"
            self._bar.set_description_str(f"{self._name} ...")
            return
        self._bar.bar_format, self._bar.unit = part.bar_format, part.unit
        names = filter(None, (self._name, part.description))
        self._bar.set_description_str(f"{', '.join(names)}: ", refresh=False)
        self._bar.reset(part.total)
        self._bar.update(done)


_shown: ContextVar[Stages | None] = ContextVar("shown", default=None)


@contextmanager
def stages(count: int, enabled: bool = True) -> Iterator[Stages]:
    """Show all work inside the block in one bar.

    Lines of the package's log are printed above it, unless the program has handlers of its own.

    Args:
        count: Number of stages.
        enabled: Whether to show the bar.
    """
    shown = Stages(count, enabled)
    token = _shown.set(shown)
    log, handler = logging.getLogger("attnscope"), _Above(shown)
    added = not log.hasHandlers()
    if added:
        log.addHandler(handler)
    try:
        yield shown
    finally:
        if added:
            log.removeHandler(handler)
        _shown.reset(token)
        shown.close()


@contextmanager
def progress_bar(
    total: float | None,
    unit: str,
    *,
    description: str = "",
    enabled: bool = True,
    alone: bool = True,
    bar_format: str | None = None,
) -> Iterator[Bar]:
    """Show how much of a piece of work is done.

    Inside `stages`, the bar is that of the stages.

    Args:
        total: How much there is to do; None if it is not known.
        unit: What is counted, such as ``image``.
        description: Text in front of the bar.
        enabled: Whether to show a bar.
        alone: Whether to show one outside of `stages`, too.
        bar_format: Format of the bar; default: that of tqdm.
    """
    shown = _shown.get()
    if shown is not None and enabled:
        with shown.part(total, unit, description, bar_format) as part:
            yield part
        return
    with tqdm(
        total=total,
        unit=unit,
        desc=description or None,
        disable=not (enabled and alone),
        dynamic_ncols=True,
        bar_format=bar_format,
        smoothing=_SMOOTHING,
    ) as bar:
        yield Bar(bar)


class _Above(logging.Handler):
    """Prints warnings above a bar, as Python prints them where no handler is set."""

    def __init__(self, shown: Stages) -> None:
        super().__init__(logging.WARNING)
        self._shown = shown
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if line not in self._said:  # two stages can leave out the same
            self._said.add(line)
            self._shown.say(line)
