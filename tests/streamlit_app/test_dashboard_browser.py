"""The dashboard in a real browser: the server, a click on the confusion matrix, its images."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from attnscope.recording.recording import Recording

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120
"""Seconds; the machine may be busy."""


@pytest.fixture
def server(make_recording: Callable[..., Recording], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The dashboard's address, and the folder that it serves."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed; CI needs it: apt-get install chromium")
        pytest.skip("chromium is not installed")
    make_recording("cbam")
    make_recording("poor", accuracy=0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys; from pathlib import Path; from attnscope.serve import serve; "
    program += "sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(url, process)
        yield url, tmp_path
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        assert output.startswith(url), output
        assert str(tmp_path) in output
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


def test_a_click_on_a_cell_shows_exactly_its_images(server: tuple[str, Path]) -> None:
    from playwright.sync_api import expect, sync_playwright

    url, folder = server
    recording = Recording(folder / "poor")
    rows = np.flatnonzero((recording.labels == 2) & (recording.predictions == 1))
    others = np.flatnonzero((recording.labels == 0) & (recording.predictions == 2))
    assert 1 < len(rows) != len(others) > 0
    foreign = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE)
        expect.set_options(timeout=1000 * PATIENCE)
        page.on("request", lambda r: foreign.append(r.url) if url not in r.url else None)
        page.goto(url)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.get_by_test_id("stSidebar").get_by_role("combobox").click()
        page.get_by_role("option", name="poor/test").click()
        expect(page.get_by_test_id("stMain")).to_contain_text("poor/test")
        page.get_by_role("link", name="Confusion matrix").click()
        main = page.get_by_test_id("stMain")
        for true, predicted, expected in (("owl", "dog", rows), ("cat", "owl", others)):
            cell = f'[aria-label*="true: {true}; predicted: {predicted};"]'
            box = page.locator(f".mark-rect {cell}").first.bounding_box()
            assert box is not None
            page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            noun = "image" if len(expected) == 1 else "images"
            expect(
                main.get_by_role("heading", name=f"{len(expected)} {noun}", exact=True)
            ).to_be_visible()
            expect(main.get_by_test_id("stImage")).to_have_count(len(expected))
            captions = main.get_by_test_id("stText")
            expect(captions).to_have_count(len(expected))
            expect(captions.first).to_contain_text(f"{true} → {predicted}")
            shown = [text.splitlines()[-1] for text in captions.all_inner_texts()]
            assert sorted(shown) == sorted(recording.rows["path"][expected])
        main.get_by_role("link", name=re.compile(rf"\b{others[0]}$")).click()
        expect(page.get_by_role("heading", name="Spatial maps")).to_be_visible()
        expect(main).to_contain_text(recording.rows["path"][others[0]])
        expect(main).to_contain_text("poor/test")
        browser.close()
    assert [address for address in foreign if not address.startswith(("data:", "blob:"))] == []


def test_the_server_listens_on_this_machine_only(server: tuple[str, Path]) -> None:
    port = int(server[0].rsplit(":", 1)[1])
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for line in Path(table).read_text().splitlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                if state == "0A" and int(local.split(":")[1], 16) == port:
                    listening.append(local.split(":")[0])
    assert listening == ["0100007F"], "127.0.0.1, in hexadecimal and backwards"
