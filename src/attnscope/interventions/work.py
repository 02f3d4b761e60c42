"""The work of one experiment: its finished pieces, and the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from attnscope.capturing.batching import Batch
from attnscope.interventions.setup import InterventionSetup
from attnscope.progress import AS_SHARE, Bar, progress_bar
from attnscope.recording.pieces import Piece, Pieces


class Work:
    """The pieces of one experiment, which are computed unless an earlier call finished them.

    Args:
        bar: The bar that is moved, if one is shown.
        pieces: Where finished pieces are kept. Default: in memory.
        share: What the experiment is worth on the bar.
    """

    def __init__(
        self, bar: Bar | None = None, pieces: Pieces | None = None, share: float = 1.0
    ) -> None:
        self.pieces = Pieces() if pieces is None else pieces
        self._bar, self._share = bar, share
        self._units, self._moved = 1.0, 0.0

    def start(self, units: float) -> None:
        """State how many units of work the experiment has at most."""
        self._units = units

    def piece(self, name: str, units: float, compute: Callable[[], Piece]) -> Piece:
        """Return a piece, and compute it unless it is finished.

        Args:
            name: The name of the piece.
            units: Its part of the units of the experiment.
            compute: A function that computes the piece.
        """
        known = self.pieces.find(name)
        if known is not None:
            self._move(units, is_new=False)
            return known
        found = compute()
        self.pieces.keep(name, found)
        self._move(units)
        return found

    def end(self) -> None:
        """Move the bar to the end of the experiment."""
        self._move(self._units)

    def _move(self, units: float, is_new: bool = True) -> None:
        step = min(self._share * units / self._units, self._share - self._moved)
        self._moved += step
        if self._bar is not None and is_new:
            self._bar.update(step)
        elif self._bar is not None:
            self._bar.skip(step)


@contextmanager
def shown(progress: bool, total: float = 1.0) -> Iterator[Bar]:
    """Show a progress bar with the remaining time within the block.

    Args:
        progress: Whether to show it.
        total: What all experiments are worth on the bar.
    """
    with progress_bar(total, "s", enabled=progress, bar_format=AS_SHARE) as bar:
        yield bar


@contextmanager
def alone(work: Work | None, progress: bool, name: str) -> Iterator[Work]:
    """Yield the work of an experiment; one that is run by itself gets a bar of its own."""
    if work is not None:
        yield work
        return
    with shown(progress) as bar:
        bar.describe(name)
        yield Work(bar)


def batches_of(
    setup: InterventionSetup, rows: NDArray[np.int64], is_needed: Sequence[bool]
) -> Iterator[tuple[int, Batch]]:
    """Yield the number of each batch that is needed, and the batch.

    Args:
        setup: The network and its images.
        rows: All rows, which are divided into batches of the size of the setup.
        is_needed: For each batch, whether it is read.
    """
    size = setup.batch_size
    wanted = [number for number, needed in enumerate(is_needed) if needed]
    if wanted:
        # Only the last batch can be smaller, and it stays the last: the batches are the same.
        parts = [rows[number * size : (number + 1) * size] for number in wanted]
        yield from zip(wanted, setup.batches(np.concatenate(parts)), strict=True)
