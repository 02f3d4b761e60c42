"""Serve the dashboard: check the arguments, then run Streamlit in this process."""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from attnscope.dashboard.access import Access, script_arguments
from attnscope.dashboard.guard import Guard
from attnscope.dashboard.place import Place, checked_hosts, checked_path, tunnel
from attnscope.errors import InputError
from attnscope.recording.places import list_recordings

PORT = 8501
"""The port if none is chosen."""
_MAX_UPLOAD = 20  # MB; pages name the same limit
_COLORS: dict[str, dict[str, Any]] = {
    "light": {
        "primaryColor": "#1f5f99",
        "backgroundColor": "#ffffff",
        "secondaryBackgroundColor": "#f3f5f8",
        "textColor": "#1b2430",
        "linkColor": "#1f5f99",
        "borderColor": "#d5dae2",
        # Class and run names are code; not red, which looks like an error.
        "codeTextColor": "#1b2430",
        "codeBackgroundColor": "#f3f5f8",
        "chartCategoricalColors": [
            "#1f5f99",
            "#c8641b",
            "#2b8a5a",
            "#8555b0",
            "#b5443c",
            "#59687b",
        ],
    },
    "dark": {
        "primaryColor": "#5aa2e0",
        "backgroundColor": "#12161c",
        "secondaryBackgroundColor": "#1d232c",
        "textColor": "#e4e8ee",
        "linkColor": "#7db8ec",
        "borderColor": "#3a424f",
        "codeTextColor": "#e4e8ee",
        "codeBackgroundColor": "#1d232c",
        "chartCategoricalColors": [
            "#5aa2e0",
            "#f0964f",
            "#5cc48e",
            "#b894de",
            "#e8807a",
            "#9aa8ba",
        ],
    },
}
"""Without ``theme.base``, so that the browser's preference chooses."""
_THEME = {
    "baseRadius": "6px",
    "headingFontSizes": "1.9rem, 1.3rem, 1.1rem",
    "showWidgetBorder": True,
}
_USED_BY_PAGES = (
    "altair",
    "attnscope.report",
    "attnscope.statistics.embedding",
    "attnscope.statistics.ordering",
    "pyarrow.parquet",
    "sklearn.metrics",
)


def serve(
    folder: Path,
    port: int = PORT,
    address: str = "127.0.0.1",
    *,
    base_path: str = "",
    allow_hosts: Sequence[str] = (),
    open_browser: bool = False,
    allow_actions: bool = False,
) -> int:
    """Serve the dashboard for the recordings in a folder until Ctrl-C is pressed.

    The default address can be reached from this machine only. With another address, or with
    ``allow_hosts``, other machines can reach it: then visitors need the token in the printed
    address, and may upload images and start work only with ``allow_actions``.

    Args:
        folder: a folder of runs, a run folder, or a recording. Recordings may appear later.
        port: the port to listen on, 1 to 65535.
        address: the address to listen on.
        base_path: a path under which the pages are served, such as ``lab/gates``.
        allow_hosts: further names under which browsers may ask for it, without a port, such as
            those of a proxy.
        open_browser: open the dashboard in the browser of this machine.
        allow_actions: let visitors from other machines upload images and start work.

    Returns:
        The exit code: 0 when the server was stopped, another number when Streamlit did not start.

    Raises:
        InputError: AS620, the folder does not exist; AS140, the port is out of range; AS141, it
            cannot be opened; AS142, the pages of the dashboard are not installed; AS143, the base
            path is not valid; AS144, the name of a host is not valid; AS145, the address is not
            one of this machine.
    """
    folder = Path(folder).resolve()
    count = _count_recordings(folder)
    place = Place(address, port, checked_path(base_path), checked_hosts(allow_hosts))
    _check_port(port, address)
    app = _find_app(Path(__file__).resolve().parents[1])
    # Imported here because they are slow.
    import streamlit
    from starlette.middleware import Middleware

    for name in _USED_BY_PAGES:  # now, not while the first visitor waits
        import_module(name)
    _forget_modules()
    # What is computed beside pages must not keep a page waiting for the interpreter.
    sys.setswitchinterval(0.001)
    access = None if place.is_private else Access(port, place.base_path)
    actions = place.is_private or allow_actions
    _say(place, access, count, folder, actions)
    guard = Middleware(
        Guard,
        hosts=place.hosts,
        own_address=place.is_wildcard,
        access=access,
        uploads=actions,
    )
    if open_browser:
        _open_when_up(place, access)
    before = sys.argv
    # `App.run` hands the arguments that follow the first one to the pages.
    sys.argv = [str(app), *script_arguments(folder, actions=actions)]
    try:
        # These settings override a config.toml in the working directory.
        streamlit.App(app, middleware=[guard]).run(config=_options(place))
    except KeyboardInterrupt:
        pass  # Ctrl-C is the normal way to stop a server
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


def _forget_modules() -> None:
    """Leave what was imported so far out of later garbage collections.

    Streamlit collects garbage after each rerun, and would look at all objects of all modules each
    time, which takes longer than most reruns.
    """
    gc.collect()
    gc.freeze()


def free_port(port: int = PORT) -> int:
    """Return the port if it is free on this machine, otherwise another one that is free."""
    try:
        _check_port(port, "127.0.0.1")
    except InputError:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    return port


def _options(place: Place) -> dict[str, Any]:
    """Return Streamlit's settings. `Guard` holds whatever the others are."""
    # The address of this machine that a request reached is known to `Guard` alone.
    hosts = ["*"] if place.is_wildcard else sorted(place.hosts)
    return {
        "server.address": place.address,
        "server.port": place.port,
        "server.baseUrlPath": place.base_path,
        # Protects against DNS rebinding: another site's host name must not reach the dashboard.
        "server.allowedHosts": hosts,
        "server.enableCORS": True,
        "server.corsAllowedOrigins": [],
        "server.enableXsrfProtection": True,
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.sslCertFile": "",
        "server.sslKeyFile": "",
        "server.maxUploadSize": _MAX_UPLOAD,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        "global.developmentMode": False,
        "client.toolbarMode": "viewer",
        "client.showErrorLinks": False,
        "client.showErrorDetails": "none",  # tracebacks are for the terminal
        "logger.hideWelcomeMessage": True,
        "logger.level": "warning",
        **{f"theme.{name}": value for name, value in _THEME.items()},
        **{
            f"theme.{theme}.{name}": color
            for theme, colors in _COLORS.items()
            for name, color in colors.items()
        },
    }


def _say(place: Place, access: Access | None, count: int, folder: Path, actions: bool) -> None:
    """Print where the dashboard is, and who can reach it."""
    noun = "recording" if count == 1 else "recordings"
    url = place.url(place.shown_host, access)
    print(f"{url} shows {count or 'no'} {noun} in {folder} (Ctrl-C ends)", flush=True)
    command = tunnel(place.port)
    if command and place.is_loopback:
        print(f"From your own machine, forward the port first: {command}", flush=True)
    if access is not None:
        allowed = "may" if actions else "may not"
        print(
            "attnscope: other machines can reach this dashboard, and the connection is not "
            "encrypted. Whoever has the address with the token sees all recordings in the folder "
            f"and {allowed} upload images and start work.",
            file=sys.stderr,
            flush=True,
        )


def _open_when_up(place: Place, access: Access | None) -> None:
    """Open the dashboard in the browser as soon as the server answers; do not wait for it."""
    url = place.url(place.near_host, access)

    def wait() -> None:
        for _ in range(600):
            try:
                socket.create_connection((place.near_host, place.port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        if not webbrowser.open(url):
            print("attnscope: no browser was found; open the address above", file=sys.stderr)

    threading.Thread(target=wait, daemon=True).start()


def _count_recordings(folder: Path) -> int:
    """Count the recordings that can be opened, and print one line for each of the others.

    Raises:
        InputError: AS620, the folder does not exist.
    """
    try:
        found, problems = list_recordings(folder)
    except InputError:
        if not folder.is_dir():
            raise
        return 0  # no recording yet: the pages say how to make one
    for problem in problems:
        print(f"attnscope: {problem}", file=sys.stderr)
    return len(found)


def _check_port(port: int, address: str) -> None:
    if not 1 <= port <= 65535:
        raise InputError("AS140", f"port {port} is out of range; choose --port from 1 to 65535")
    if not address:  # for `bind` it is every address
        raise InputError("AS145", "the address is empty; choose --address, such as 127.0.0.1")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        if os.name == "posix":  # the port of a server that just stopped is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, UnicodeError) as error:  # a name may be too long for a host
            reason = getattr(error, "strerror", None) or str(error)
            is_foreign = isinstance(error, socket.gaierror | UnicodeError)
            if is_foreign or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
                raise InputError(
                    "AS145",
                    f"{address!r} is not an address of this machine ({reason}); choose another "
                    "--address, such as 127.0.0.1 (this machine only) or 0.0.0.0 (every address)",
                ) from None
            raise InputError(
                "AS141",
                f"port {port} on {address} cannot be opened ({reason}); "
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
