"""How long the dashboard's server takes for each page and each click, as a table in Markdown.

    python -m analysis.dashboard_latency FOLDER                    # all sizes
    python -m analysis.dashboard_latency FOLDER --sizes usual      # 10,000 images, 16 gates
    python -m analysis.dashboard_latency FOLDER --served runs      # recordings that are there

Synthetic recordings are made in FOLDER, which takes some minutes and up to 6 GB, and kept there. A
visitor then opens each page through the server's websocket, sets its controls, and follows its
links. The time of a rerun ends when the server has sent its last message for it. CPU time of the
server's process is measured beside it, so that other work on the machine matters less; the kernel
counts it in hundredths of a second.

What takes longer than a click is computed beside the page, which answers before. Such a click is
complete when the page shows the result, and its CPU time is that of the whole.

The first visit of each page is the first one of the server, with empty caches. A click is a control
set to a value that was not shown before, or a link of the page.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from streamlit.proto.WidgetStates_pb2 import WidgetState
from tyro.conf import Positional

from analysis.dashboard_client import Answer, Server, Visitor, serving
from analysis.scale import write_recording
from attnscope.kinds import Gate

_CLICKS = 40
"""Clicks on each page, at most."""
_LINKS = 5
"""Links of each page that are followed."""
_NEW = 2
"""Controls that a click brings and that are set, and values of each."""
_PERCENTILE = 95


@dataclass(frozen=True)
class Size:
    """A synthetic recording."""

    classes: int
    each: int
    """Images of each class."""
    channels: int = 0
    """Channels of its only channel gate; 0 for the sixteen gates of a ResNet18 with CBAM."""

    def write(self, folder: Path) -> None:
        """Write two recordings of the same images, because some pages compare two networks."""
        gates = None
        if self.channels:
            gates = [_gate("channel", self.channels, None), _gate("spatial", self.channels, (4, 4))]
        write_recording(folder / "one", self.classes, self.each, gates=gates)
        if not (folder / "two").exists():
            shutil.copytree(folder / "one", folder / "two", copy_function=os.link)


def _gate(kind: str, channels: int, grid: tuple[int, int] | None) -> Gate:
    return Gate(f"layer4.0.attention.{kind}", kind, channels, grid, "sigmoid", 0.0, 1.0, 1.0)


SIZES = {
    "usual": Size(10, 1_000),
    "many-images": Size(100, 1_000),
    "wide": Size(1_000, 10, channels=2_048),
}


@dataclass(frozen=True)
class Timed:
    """One answer and what it took."""

    answer: Answer
    complete: float
    """Seconds until the page showed everything."""
    cpu: float
    """Seconds of CPU time of the server until then."""


def _timed(server: Server, visitor: Visitor, act: Callable[[], Answer]) -> Timed:
    before = server.cpu
    answer = act()
    complete = answer.seconds + visitor.settle()
    return Timed(answer, complete, server.cpu - before)


@dataclass
class Times:
    """Seconds of one page."""

    page: str
    first: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Until the answer, until the page is complete, and of the CPU, for the first visit."""
    clock: list[float] = field(default_factory=list)
    """Until the answer."""
    complete: list[float] = field(default_factory=list)
    """Until the page is complete."""
    cpu: list[float] = field(default_factory=list)
    slowest: str = ""
    """What the slowest click set."""
    sent: int = 0
    """Bytes of the largest answer."""
    errors: list[str] = field(default_factory=list)

    def add(self, what: str, timed: Timed) -> None:
        """Note a click."""
        if not self.clock or timed.answer.seconds > max(self.clock):
            self.slowest = what
        self.clock.append(timed.answer.seconds)
        self.complete.append(timed.complete)
        self.cpu.append(timed.cpu)
        self._note(timed.answer)

    def visit(self, timed: Timed) -> None:
        """Note the first visit."""
        self.first = (timed.answer.seconds, timed.complete, timed.cpu)
        self._note(timed.answer)

    def _note(self, answer: Answer) -> None:
        self.sent = max(self.sent, answer.sent)
        self.errors += answer.errors

    def row(self) -> str:
        """Return a row of a table in Markdown."""
        every = (self.clock, self.complete, self.cpu)
        click = [_of(values, _PERCENTILE) for values in every]
        cells = [
            self.page or "first page",
            *(f"{seconds:.2f}" for seconds in self.first),
            str(len(self.clock)),
            _of(self.clock, 50),
            *click,
            f"{self.sent / 1e3:,.0f}",
            self.slowest or "-",
        ]
        return f"| {' | '.join(cells)} |"


HEADER = """\
| Page | First visit, s | complete, s | CPU, s | Clicks | Median, s | 95%, s | complete, s | \
CPU, s | Largest answer, kB | Slowest click |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def _of(values: Sequence[float], percentile: float) -> str:
    return f"{np.percentile(values, percentile):.2f}" if values else "-"


def measure(server: Server, query: str = "", clicks: int = _CLICKS) -> Iterator[Times]:
    """Visit every page of a server, and yield its times.

    Args:
        server: The server, which nobody has visited yet.
        query: What follows the ``?`` in each address, such as the recording.
        clicks: Clicks on each page, at most.
    """
    with Visitor(server.port) as visitor:

        def timed(act: Callable[..., Answer], *what: Any) -> Timed:
            return _timed(server, visitor, partial(act, *what))

        visited = timed(visitor.open, "", query)
        pages = list(visitor.pages)
        for page in pages:
            times = Times(page)
            if page:
                visited = timed(visitor.open, page, query)
            times.visit(visited)
            links = list(dict.fromkeys(visited.answer.links))
            for name, choice in _plan(visitor, page, query, clicks):
                said = visitor.widgets[name].describe(choice)
                times.add(said, timed(visitor.click, name, choice))
            for target, address in links[:_LINKS]:
                times.add(f"link to {target}", timed(visitor.go, target, address))
            yield times


def _plan(
    visitor: Visitor, page: str, query: str, clicks: int
) -> Iterator[tuple[str, WidgetState]]:
    """Yield what is clicked on the present page: each control in turns, and those that it brings.

    A page that lost a control by a click is opened again, which is not counted.
    """
    opening = list(visitor.widgets)
    # As they are now: a control leaves out the choice that it has, so they change with each click.
    turned = {name: visitor.choices(name) for name in opening if visitor.widgets[name].key != "run"}
    given = turn = 0
    while any(turn < len(choices) for choices in turned.values()):
        for name, choices in turned.items():
            if turn >= len(choices) or name not in visitor.widgets:
                continue
            if given >= clicks:
                return
            given += 1
            yield name, choices[turn]
            for new in [other for other in visitor.widgets if other not in opening][:_NEW]:
                for choice in visitor.choices(new)[:_NEW]:
                    if given < clicks and new in visitor.widgets:
                        given += 1
                        yield new, choice
            if not set(opening) <= set(visitor.widgets):
                visitor.open(page, query)
        turn += 1


def report(name: str, folder: Path, query: str = "", clicks: int = _CLICKS) -> None:
    """Print the times of a folder in Markdown."""
    print(f"## {name}\n\n{HEADER}", flush=True)
    errors: dict[str, list[str]] = {}
    with serving(folder) as server:
        for times in measure(server, query, clicks):
            print(times.row(), flush=True)
            errors[times.page] = times.errors
        print(f"\n{server.memory / 2**20:,.0f} MiB, at most {server.peak / 2**20:,.0f} MiB")
    for page, found in errors.items():
        for line in dict.fromkeys(found):
            print(f"- {page or 'first page'} shows an error: {line}")
    print(flush=True)


def main(
    folder: Positional[Path],
    sizes: tuple[str, ...] = tuple(SIZES),
    served: Path | None = None,
    clicks: int = _CLICKS,
) -> None:
    """Print tables of times.

    Args:
        folder: Where synthetic recordings are made, or lie already.
        sizes: Which of them.
        served: A folder of recordings that is measured in place of synthetic ones.
        clicks: Clicks on each page, at most.
    """
    if served is not None:
        report(served.name, served, clicks=clicks)
        return
    for name in sizes:
        SIZES[name].write(folder / name)
        report(name, folder / name, clicks=clicks)


if __name__ == "__main__":
    tyro.cli(main)
