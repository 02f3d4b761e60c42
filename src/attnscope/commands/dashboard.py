"""``attnscope dashboard``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import FolderArgument


@dataclass(frozen=True)
class Dashboard:
    """Serve the dashboard for all recordings in a folder, on this machine only (127.0.0.1)."""

    folder: FolderArgument = Path("runs")
    """Folder that contains runs or recordings; or a single run or recording."""
    port: int = 8501
    """Port to listen on."""

    def __call__(self) -> int:
        from attnscope.serve import serve

        return serve(self.folder, self.port)
