"""Serves the dashboard: checks what it is given, then runs Streamlit in this process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from attnscope.errors import InputError
from attnscope.recording.recording import find_recordings

_THEME = {
    "base": "light",
    "primaryColor": "#1f5f99",
    "backgroundColor": "#ffffff",
    "secondaryBackgroundColor": "#f3f5f8",
    "textColor": "#1b2430",
    "baseRadius": "6px",
    "headingFontSizes": "1.9rem, 1.3rem, 1.1rem",
    "codeTextColor": "#1b2430",  # names of classes and runs are set as code; they are no alarm
    "showWidgetBorder": "true",
}


def serve(folder: Path, port: int = 8501, address: str = "127.0.0.1") -> int:
    """Serves the dashboard over the recordings in ``folder`` until it is stopped with Ctrl-C.

    Args:
        folder: a folder of runs, a run, or a recording.
        port: where to listen, 1 to 65535.
        address: the interface to listen on; the default can be reached from this machine only.

    Returns:
        0 when the server was stopped; another number when Streamlit could not start.

    Raises:
        InputError: there is no recording, the port cannot be had, or the dashboard's pages are not
            installed.
    """
    folder = Path(folder).resolve()
    count = len(find_recordings(folder))
    _check_port(port, address)
    app = _find_app(Path(__file__).resolve().parent)
    # Streamlit's own command is its stable entrance; it is imported here because it is slow.
    import click
    from streamlit.web import cli

    noun = "recording" if count == 1 else "recordings"
    print(f"http://{address}:{port} shows {count} {noun} in {folder} (Ctrl-C ends)", flush=True)
    try:
        # Options on the command line win over a config.toml that lies in the working directory.
        arguments = ["run", str(app), *_options(port, address), "--", str(folder)]
        cli.main(arguments, "attnscope", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        pass  # Ctrl-C is how a server ends
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _options(port: int, address: str) -> list[str]:
    options: dict[str, str | list[str]] = {
        "server.address": address,
        "server.port": str(port),
        # A page elsewhere cannot reach the dashboard through a name that it points at this machine.
        "server.allowedHosts": sorted({address, "127.0.0.1", "localhost"}),
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "server.maxUploadSize": "1",  # nothing is uploaded; 0 would mean no limit to some versions
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorLinks": "false",
        "logger.hideWelcomeMessage": "true",
        "logger.level": "warning",
        **{f"theme.{name}": value for name, value in _THEME.items()},
    }
    flags = []
    for name, value in options.items():
        for one in [value] if isinstance(value, str) else value:
            flags += [f"--{name}", one]
    return flags


def _check_port(port: int, address: str) -> None:
    if not 1 <= port <= 65535:
        raise InputError(f"port {port} does not exist; --port takes 1 to 65535")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        if os.name == "posix":  # a server that has just ended does not keep its port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(
                f"port {port} on {address} cannot be had ({error.strerror}); "
                "take another with --port"
            ) from None


def _find_app(package: Path) -> Path:
    """The app's script: in an installed wheel inside the package, else beside ``src``."""
    for app in (package / "_dashboard/app.py", package.parents[1] / "streamlit_app/app.py"):
        if app.is_file():
            return app
    raise InputError(f"the dashboard's pages are not beside {package}; install attnscope again")
