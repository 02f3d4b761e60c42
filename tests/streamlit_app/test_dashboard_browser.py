"""The dashboard in a real browser: the server, a click on the confusion matrix, its images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnscope.recording.recording import Recording
from tests.streamlit_app.conftest import serving
from tests.streamlit_app.in_browser import settle

pytestmark = pytest.mark.browser


@pytest.fixture
def folder(make_recording: Callable[..., Recording], tmp_path: Path) -> Path:
    make_recording("cbam")
    make_recording("poor", accuracy=0.3)
    return tmp_path


def test_a_click_on_a_cell_shows_exactly_its_images(
    folder: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = Recording(folder / "poor")
    rows = np.flatnonzero((recording.labels == 2) & (recording.predictions == 1))
    others = np.flatnonzero((recording.labels == 0) & (recording.predictions == 2))
    assert 1 < len(rows) != len(others) > 0
    page = browse(folder)
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    page.get_by_test_id("stSidebar").get_by_role("combobox").click()
    page.get_by_role("option", name="poor/test").click()
    page.get_by_role("link", name="Confusion matrix").click()
    main = page.get_by_test_id("stMain")
    for true, predicted, expected in (("owl", "dog", rows), ("cat", "owl", others)):
        cell = f'[aria-label*="true: {true}; predicted: {predicted};"]'
        place = page.locator(f".mark-rect {cell}").first
        expect(place).to_be_visible()
        settle(page)
        box = place.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        noun = "image" if len(expected) == 1 else "images"
        expect(
            main.get_by_role("heading", name=f"{len(expected)} {noun}", exact=True)
        ).to_be_visible()
        expect(main.get_by_test_id("stImage")).to_have_count(len(expected))
        settle(page)
        captions = main.get_by_test_id("stText")
        expect(captions).to_have_count(len(expected))
        expect(captions.first).to_contain_text(f"{true} → {predicted}")
        texts = captions.all_inner_texts()
        shown = [text.splitlines()[-1].replace("\u200b", "") for text in texts]
        assert sorted(shown) == sorted(recording.rows["path"][expected])
    main.get_by_role("link", name=re.compile(rf"\b{others[0]}$")).click()
    expect(page.get_by_role("heading", name="Image", exact=True)).to_be_visible()
    expect(main).to_contain_text(recording.rows["path"][others[0]])
    expect(main).to_contain_text("poor/test")


def test_the_server_listens_on_this_machine_only(folder: Path) -> None:
    with serving(folder) as url:
        listening = _listening(int(url.rsplit(":", 1)[1]))
    assert listening == ["0100007F"], "127.0.0.1, in hexadecimal and backwards"


def _listening(port: int) -> list[str]:
    """Return the addresses on which a port is open, as the kernel writes them."""
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for line in Path(table).read_text().splitlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                if state == "0A" and int(local.split(":")[1], 16) == port:
                    listening.append(local.split(":")[0])
    return listening
