"""What tests in a real browser share: waiting for a page, and downloading its files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def settle(page: Any) -> None:
    """Wait until the server has sent the whole page.

    Before that, places of elements can be those of a moment, and old elements can stand among them.
    """
    from playwright.sync_api import expect

    app = page.get_by_test_id("stApp")
    expect(app).to_have_attribute("data-test-script-state", "notRunning")


def download_all(page: Any) -> dict[str, bytes]:
    """Download every file of the first menu on the page: name -> content."""
    settle(page)  # a menu that is replaced closes
    page.get_by_test_id("stMain").get_by_test_id("stPopover").get_by_role("button").first.click()
    found = {}
    for kind in ("PNG", "PDF", "CSV"):
        button = page.get_by_test_id("stDownloadButton").get_by_role("button", name=kind)
        with page.expect_download() as waiting:
            button.first.click()
        found[waiting.value.suggested_filename] = Path(waiting.value.path()).read_bytes()
    return found


def expect_pictures(found: dict[str, bytes]) -> None:
    """Something is drawn in each PNG and PDF."""
    for name, content in found.items():
        if name.endswith(".png"):
            image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
            assert image.std() > 5, "something is drawn"
        if name.endswith(".pdf"):
            assert content.startswith(b"%PDF-")
            assert len(content) > 5_000
