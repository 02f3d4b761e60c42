"""A captured run for the pages that need the network."""

from __future__ import annotations

from pathlib import Path

from attnscope.commands.main import main
from attnscope.runs import Run
from tests.folding.runs import make_run, untrained, write_digits


def make_captured_run(folder: Path, *, deep: bool = False) -> Run:
    """Write a run with its images beside it, and capture it; see `write_digits`."""
    digits = write_digits(folder / "digits", deep=deep)
    made = make_run(folder / "runs" / "cbam", digits, untrained("cbam", "stage"), "l")
    assert main(["capture", str(made)]) == 0
    return Run(made)
