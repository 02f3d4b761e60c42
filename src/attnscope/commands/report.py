"""``attnscope report``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import MasksOption, RunsArgument, add_masks, verify_folder
from attnscope.layout import REPORT


@dataclass(frozen=True)
class Report:
    """Write a self-contained HTML page about one run, or several runs and their differences."""

    runs: RunsArgument
    """One or more run folders with recordings, or recordings."""
    out: Path = Path(REPORT)
    """HTML file, which is replaced if it exists."""
    masks: MasksOption = None
    """Masks of the objects in the images of all runs, as for attnscope figures: a folder of image
    files, a JSON or CSV file of boxes, or ink for drawings."""
    methods: bool = False
    """Also write the methods paragraph (NAME-methods.md) and its references (NAME.bib) beside the
    page."""

    def __call__(self) -> None:
        from attnscope.report import write_report

        for run in self.runs:
            verify_folder(run)
        add_masks(self.runs, self.masks)
        print(write_report(self.runs, self.out, methods=self.methods))
