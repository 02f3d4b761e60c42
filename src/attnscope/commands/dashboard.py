"""``attnscope dashboard``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunArgument


@dataclass(frozen=True)
class Dashboard:
    """Open the dashboard over all recordings in a folder, at 127.0.0.1."""

    folder: RunArgument = Path("runs")
    """A folder of runs, a run or a recording."""
    port: int = 8501
    """Where it listens."""

    def __call__(self) -> int:
        from attnscope.serve import serve

        return serve(self.folder, self.port)
