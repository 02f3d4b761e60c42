"""Take pictures of the pages of the dashboard: python analysis/dashboard_screenshots.py FOLDER OUT.

It needs playwright and a Chromium on the search path. Each page is drawn to its end, however long.
"""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import tyro

ROOT = Path(__file__).parents[1]
PATIENCE = 120
"""Seconds that a page may take."""
BUSY = (
    '[data-testid="stStatusWidget"], [data-testid="stSkeleton"], [data-testid="stSpinner"], '
    ':text("Computing …")'
)


def main(
    folder: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    pages: tuple[str, ...] = (),
    run: str | None = None,
    query: tuple[str, ...] = (),
    sizes: tuple[str, ...] = ("1440x900", "1920x1080"),
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark"),
    longest: int = 4000,
    suffix: str = "",
) -> None:
    """Save one picture for each page, size and theme.

    Args:
        folder: what the dashboard shows.
        out: folder for the pictures, ``PAGE-SIZE-THEME.png``.
        pages: names of the pages, as in their addresses; default all.
        run: the recording that is shown; default the first one.
        query: further parts of the addresses, such as ``image=12``.
        sizes: sizes of the window in pixels.
        themes: color schemes of the browser.
        longest: most pixels of a picture from top to bottom, at least the height of the window.
        suffix: added to the names of the files.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is not installed; install it, such as: apt-get install chromium")
    playwright = importlib.import_module("playwright.sync_api")
    pages = pages or tuple(
        sorted(file.stem for file in (ROOT / "streamlit_app/views").glob("*.py"))
    )
    out.mkdir(parents=True, exist_ok=True)
    asked = dict(part.partition("=")[::2] for part in query)
    if run is not None:
        asked = {"run": run, **asked}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "attnscope", "dashboard", str(folder), "--port", str(port)]
    server = subprocess.Popen(command)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, server)
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            for size in sizes:
                width, height = (int(side) for side in size.split("x"))
                for theme in themes:
                    page = browser.new_page(
                        viewport={"width": width, "height": height}, color_scheme=theme
                    )
                    for name in pages:
                        page.goto(f"{address}/{name if name != 'runs' else ''}?{urlencode(asked)}")
                        file = out / f"{name}-{size}-{theme}{suffix}.png"
                        _save(page, file, width, height, longest)
                    page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _save(page: Any, file: Path, width: int, height: int, longest: int) -> None:
    """Save a page when nothing on it changes any more."""
    page.wait_for_selector('[data-testid="stMain"]', timeout=1000 * PATIENCE)
    _settle(page)
    # Tables and hidden parts are higher than what is seen of them.
    script = """
        Math.max(...['stMainBlockContainer', 'stSidebarContent'].map(name => {
            const part = document.querySelector(`[data-testid="${name}"]`);
            return part ? part.scrollHeight : 0;
        }))
    """
    page.set_viewport_size(
        {"width": width, "height": min(max(page.evaluate(script), height), max(longest, height))}
    )
    _settle(page)
    page.screenshot(path=str(file))
    page.set_viewport_size({"width": width, "height": height})
    print(file, flush=True)


def _settle(page: Any) -> None:
    """Wait until the script of the page has ended, and for the browser to draw."""
    quiet, end = 0, time.monotonic() + PATIENCE
    while quiet < 4 and time.monotonic() < end:
        page.wait_for_timeout(400)
        quiet = 0 if page.locator(BUSY).count() else quiet + 1


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(10 * PATIENCE):
        if server.poll() is not None:
            raise SystemExit("the dashboard did not start")
        try:
            with direct.open(f"{address}/_stcore/health", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise SystemExit("the dashboard did not start")


if __name__ == "__main__":
    tyro.cli(main)
