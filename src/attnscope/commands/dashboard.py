"""``attnscope dashboard``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from attnscope.commands.options import FolderArgument
from attnscope.commands.parsing import Argument


@dataclass(frozen=True)
class Dashboard:
    """Serve the dashboard for all recordings in a folder.

    Only this machine can reach it, unless --address or --allow-host say otherwise. Then a random
    token is required, which is part of the address that is printed.
    """

    folder: FolderArgument = Path("runs")
    """Folder that contains runs or recordings; or a single run or recording."""
    port: int = 8501
    """Port to listen on."""
    address: Annotated[str, Argument(metavar="IP")] = "127.0.0.1"
    """IP address to listen on; 0.0.0.0 is every address of this machine."""
    base_path: Annotated[str | None, Argument(metavar="PATH")] = None
    """Path under which the pages are served, such as lab/gates, for a proxy."""
    allow_host: Annotated[tuple[str, ...], Argument(metavar="HOST")] = ()
    """Additional host names under which browsers reach the dashboard, such as that of a
    proxy."""
    open: bool = False
    """Open the dashboard in the browser of this machine."""
    allow_actions: bool = False
    """Let visitors of other machines upload images and start work, such as interventions. Visitors
    of this machine always may."""

    def __call__(self) -> int:
        from attnscope.dashboard.serve import serve

        return serve(
            self.folder,
            self.port,
            self.address,
            base_path=self.base_path or "",
            allow_hosts=self.allow_host,
            open_browser=self.open,
            allow_actions=self.allow_actions,
        )
