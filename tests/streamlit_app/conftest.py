"""A real browser on the real server, for the tests of single pages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120
"""Seconds; the machine may be busy."""
PROGRAM = """
import json, sys
from pathlib import Path
from attnscope.dashboard.serve import serve
sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2]), **json.loads(sys.argv[3])))
"""


@contextmanager
def serving(folder: Path, options: str = "{}") -> Iterator[str]:
    """Serve a folder in a process of its own, and yield the address.

    Args:
        folder: what the dashboard shows.
        options: further arguments of `attnscope.dashboard.serve.serve` as JSON.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(port), options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(url, process)
        yield url
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        assert output.startswith(url), output
        assert str(folder) in output
        assert "Traceback" not in output
    finally:
        process.kill()
        process.wait()


def _wait_until_up(url: str, process: subprocess.Popen[str]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for localhost
    for _ in range(10 * PATIENCE):
        assert process.poll() is None, process.communicate()[0]
        try:
            with direct.open(f"{url}/_stcore/health", timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not start")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A Chromium of playwright; skipped where none is installed, but not in CI."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed; CI needs it: apt-get install chromium")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any) -> Iterator[Callable[[Path], Any]]:
    """Serves a folder and returns a page that has opened it.

    A request to any other address than the server's fails the test.
    """
    foreign: list[str] = []
    with ExitStack() as stack:

        def open_page(folder: Path) -> Any:
            url = stack.enter_context(serving(folder))
            page = chromium.new_page(viewport={"width": 1440, "height": 900})
            stack.callback(page.close)
            page.set_default_timeout(1000 * PATIENCE)

            def note(request: Any) -> None:
                if not request.url.startswith((url, "data:", "blob:")):
                    foreign.append(request.url)

            page.on("request", note)
            page.goto(url)
            return page

        yield open_page
    assert foreign == []


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Returns a page that was opened by its address, without a browser."""

    def opened(folder: Path, page: str, **address: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
        app = AppTest.from_file(str(APP), default_timeout=PATIENCE)
        if "run" in address:
            app.query_params["run"] = address["run"]
        app.run()
        app.switch_page(f"views/{page}.py")
        for name, value in address.items():
            app.query_params[name] = value
        return app.run()

    return opened
