"""Serve the dashboard: check the arguments, then run Streamlit in this process."""

from __future__ import annotations

import os
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from attnscope.errors import InputError
from attnscope.guard import Guard
from attnscope.recording.places import list_recordings

_THEME = {
    "base": "light",
    "primaryColor": "#1f5f99",
    "backgroundColor": "#ffffff",
    "secondaryBackgroundColor": "#f3f5f8",
    "textColor": "#1b2430",
    "baseRadius": "6px",
    "headingFontSizes": "1.9rem, 1.3rem, 1.1rem",
    "codeTextColor": "#1b2430",  # class and run names are code; not red, which looks like an error
    "showWidgetBorder": True,
}
_USED_BY_PAGES = ("altair", "attnscope.report", "pyarrow.parquet", "sklearn.metrics")
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


def serve(folder: Path, port: int = 8501, address: str = "127.0.0.1") -> int:
    """Serve the dashboard for the recordings in a folder until Ctrl-C is pressed.

    Args:
        folder: a folder of runs, a run folder, or a recording.
        port: the port to listen on, 1 to 65535.
        address: the address to listen on. The default can be reached from this machine only.

    Returns:
        The exit code: 0 when the server was stopped, another number when Streamlit did not start.

    Raises:
        InputError: the folder has no recording; AS140, the port is out of range; AS141, it cannot
            be opened; AS142, the pages of the dashboard are not installed.
    """
    folder = Path(folder).resolve()
    found, problems = list_recordings(folder)
    if not found:
        raise problems[0]
    count = len(found)
    _check_port(port, address)
    app = _find_app(Path(__file__).resolve().parent)
    # Imported here because they are slow.
    import streamlit
    from starlette.middleware import Middleware

    for name in _USED_BY_PAGES:  # now, not while the first visitor waits
        import_module(name)
    noun = "recording" if count == 1 else "recordings"
    print(f"http://{address}:{port} shows {count} {noun} in {folder} (Ctrl-C ends)", flush=True)
    guard = Middleware(Guard, hosts={address, *_LOCAL_HOSTS})
    before = sys.argv
    # `App.run` hands the arguments that follow the first one to the pages.
    sys.argv = [str(app), str(folder)]
    try:
        # These settings override a config.toml in the working directory.
        streamlit.App(app, middleware=[guard]).run(config=_options(port, address))
    except KeyboardInterrupt:
        pass  # Ctrl-C is the normal way to stop a server
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


def _options(port: int, address: str) -> dict[str, Any]:
    """Return Streamlit's settings. `Guard` holds whatever the others are."""
    return {
        "server.address": address,
        "server.port": port,
        "server.baseUrlPath": "",
        # Protects against DNS rebinding: another site's host name must not reach the dashboard.
        "server.allowedHosts": sorted({address, *_LOCAL_HOSTS}),
        "server.enableCORS": True,
        "server.corsAllowedOrigins": [],
        "server.enableXsrfProtection": True,
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.sslCertFile": "",
        "server.sslKeyFile": "",
        "server.maxUploadSize": 1,  # MB; in some versions 0 means no limit
        "server.headless": True,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        "global.developmentMode": False,
        "client.toolbarMode": "viewer",
        "client.showErrorLinks": False,
        "logger.hideWelcomeMessage": True,
        "logger.level": "warning",
        **{f"theme.{name}": value for name, value in _THEME.items()},
    }


def _check_port(port: int, address: str) -> None:
    if not 1 <= port <= 65535:
        raise InputError("AS140", f"port {port} is out of range; choose --port from 1 to 65535")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        if os.name == "posix":  # the port of a server that just stopped is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(
                "AS141",
                f"port {port} on {address} cannot be opened ({error.strerror}); "
                "choose another port with --port",
            ) from None


def _find_app(package: Path) -> Path:
    """Return the script of the app: inside an installed package, or beside ``src``."""
    for app in (package / "_dashboard/app.py", package.parents[1] / "streamlit_app/app.py"):
        if app.is_file():
            return app
    raise InputError(
        "AS142", f"the pages of the dashboard are missing beside {package}; reinstall attnscope"
    )
