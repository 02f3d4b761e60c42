"""``attnscope report``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunsArgument, verify_folder
from attnscope.errors import InputError


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one run, or about several and how they differ."""

    runs: RunsArgument
    """Run folders with recordings, or recordings."""
    out: Path = Path("report.html")
    """The page; an older one is replaced."""

    def __call__(self) -> None:
        from attnscope.report import write_report

        if not self.runs:
            raise InputError("report needs a run; give one or more run folders")
        for run in self.runs:
            verify_folder(run)
        print(write_report(self.runs, self.out))
