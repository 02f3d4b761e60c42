"""Visitors in real browsers: a token, two at once, many reruns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis import dashboard_client, dashboard_reruns
from attnscope.recording.recording import Recording
from tests.streamlit_app.plain import started

MIB = 2**20


@pytest.fixture
def folder(make_recording: Callable[..., Recording], tmp_path: Path) -> Path:
    make_recording("one")
    make_recording("two", accuracy=0.4)
    return tmp_path


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a server."""
    return tmp_path_factory.mktemp("place")


def _choose(page: Any, recording: str) -> None:
    page.get_by_test_id("stSidebar").get_by_role("combobox").click()
    page.get_by_role("option", name=recording).click()


@pytest.mark.browser
def test_a_browser_enters_with_the_token_once_under_a_base_path(
    folder: Path, place: Path, chromium: Any
) -> None:
    from playwright.sync_api import expect

    with started(folder, place, address="0.0.0.0", base_path="lab/gates") as server:
        url = f"http://{server.host}/lab/gates"
        visitor, stranger = chromium.new_context(), chromium.new_context()
        try:
            page = visitor.new_page()
            page.goto(f"{url}/figures?token={server.token}&run=two%2Ftest")
            expect(page.get_by_role("heading", name="All figures")).to_be_visible()
            expect(page.get_by_test_id("stMain")).to_contain_text("two/test")
            assert page.url.startswith(f"{url}/figures?")
            assert server.token not in page.url
            assert page.evaluate("document.cookie").find("attnscope") < 0, "scripts cannot read it"
            picture = page.get_by_test_id("stImage").locator("img").first
            expect(picture).to_have_js_property("complete", True)
            assert picture.evaluate("image => image.naturalWidth") > 0
            source = picture.get_attribute("src")
            page.get_by_role("link", name="Confusion matrix").click()
            expect(page.get_by_role("heading", name="Confusion matrix", level=1)).to_be_visible()
            page.reload()
            expect(page.get_by_role("heading", name="Confusion matrix", level=1)).to_be_visible()
            other = stranger.new_page()
            for address in (url, page.url, source):
                assert other.goto(address).status == 401
                expect(other.locator("body")).to_contain_text("token")
        finally:
            visitor.close()
            stranger.close()


@pytest.mark.browser
def test_two_browsers_do_not_disturb_each_other(folder: Path, place: Path, chromium: Any) -> None:
    from playwright.sync_api import expect

    with started(folder, place) as server:
        contexts = [chromium.new_context() for _ in range(2)]
        try:
            pages = [context.new_page() for context in contexts]
            names = ("one/test", "two/test")
            for page in pages:
                page.goto(f"http://{server.host}")
            for page, name in zip(pages, names, strict=True):
                _choose(page, name)
            for title in ("Confusion matrix", "Misclassified images"):
                for page in pages:
                    page.get_by_role("link", name=title).click()
                for page, name in zip(pages, names, strict=True):
                    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
                    expect(page.get_by_test_id("stMain")).to_contain_text(name)
                # The first recording is the one that is shown without an address.
                assert "run=" not in pages[0].url
                assert "run=two%2Ftest" in pages[1].url.replace("two/", "two%2F")
        finally:
            for context in contexts:
                context.close()


def test_reruns_do_not_grow_the_server(folder: Path) -> None:
    with dashboard_client.serving(folder) as server:
        found = dashboard_reruns.growth(server, reruns=60, pages=4)
    assert found.reruns >= 60
    assert found.after - found.before < 12 * MIB, found
