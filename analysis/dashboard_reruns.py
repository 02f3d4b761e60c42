"""Does the dashboard's server grow with every rerun of a page?

    python -m analysis.dashboard_reruns FOLDER --reruns 500

One visitor opens every page of the dashboard and sets each control once, again and again. The first
rounds fill the caches, and are not counted. Whatever the server keeps of each rerun then shows in
its resident memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import tyro
from tyro.conf import Positional

from analysis.dashboard_client import Server, Visitor, serving

_WARM_ROUNDS = 3
_CONTROLS = 3
"""Controls of each page that are set in a round."""
_STEP = 100
"""Reruns after which the memory is noted."""


@dataclass(frozen=True)
class Growth:
    """Resident memory before and after the reruns, in bytes."""

    reruns: int
    before: int
    after: int
    between: dict[int, int] = field(default_factory=dict)
    """Number of reruns -> memory then, about every hundred reruns."""

    @property
    def each(self) -> float:
        """Bytes that one rerun adds."""
        return (self.after - self.before) / self.reruns

    def __str__(self) -> str:
        sizes = f"{self.before / 2**20:,.0f} MiB before, {self.after / 2**20:,.0f} MiB after"
        steps = "".join(
            f"\n  after {reruns}: {memory / 2**20:,.1f} MiB"
            for reruns, memory in self.between.items()
        )
        return f"{self.reruns} reruns: {sizes}, {self.each / 2**10:+,.1f} KiB each{steps}"


def growth(server: Server, query: str = "", reruns: int = 500, pages: int | None = None) -> Growth:
    """Measure how much the server grows.

    Args:
        server: The server.
        query: What follows the ``?`` in each address, such as the recording.
        reruns: How many reruns are counted, at least; the last round is completed.
        pages: Only so many pages; None for all.
    """
    with Visitor(server.port) as visitor:
        visitor.open("", query)
        opened = visitor.pages[:pages]
        for page in opened * _WARM_ROUNDS:
            _round(visitor, page, query)
        before, done, between = server.memory, 0, dict[int, int]()
        for page in cycle(opened):
            done += _round(visitor, page, query)
            if done >= _STEP * (len(between) + 1):
                between[done] = server.memory
            if done >= reruns and page == opened[-1]:
                break
        return Growth(done, before, server.memory, between)


def _round(visitor: Visitor, page: str, query: str) -> int:
    """Open a page and set some of its controls; return the number of reruns."""
    reruns = 1
    visitor.go(page, query)
    for name in list(visitor.widgets):
        widget = visitor.widgets.get(name)  # a click may remove other controls
        if widget is None or not widget.choices or widget.key == "run" or reruns > _CONTROLS:
            continue
        visitor.click(name, widget.choices[0])
        reruns += 1
    return reruns


def main(folder: Positional[Path], reruns: int = 500) -> None:
    """Print how much the server of a folder grows.

    Args:
        folder: What the dashboard shows.
        reruns: How many reruns are counted, at least.
    """
    with serving(folder) as server:
        print(growth(server, reruns=reruns))


if __name__ == "__main__":
    tyro.cli(main)
