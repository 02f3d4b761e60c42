"""The page of all figures: one is chosen, shown, and downloaded."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnscope import statistics
from attnscope.plots import PLOTS
from attnscope.recording.recording import Recording
from tests.streamlit_app.in_browser import download_all, expect_pictures


@pytest.mark.browser
def test_a_chosen_figure_is_shown_and_its_files_are_downloaded(
    make_recording: Callable[..., Recording], tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = make_recording("poor", accuracy=0.3)
    page = browse(tmp_path)
    page.get_by_test_id("stSidebar").get_by_role("link", name="All figures").click()
    expect(page.get_by_role("heading", name="All figures")).to_be_visible()
    main = page.get_by_test_id("stMain")
    main.get_by_role("combobox", name="Figure", exact=True).click()
    page.get_by_role("option", name="Gate state", exact=True).click()
    plot = PLOTS["gate_state"]
    expect(main).to_contain_text(plot.about)
    expect(page).to_have_url(re.compile(r"figure=Gate(\+|%20)state"))
    picture = main.get_by_test_id("stImage").locator("img")
    expect(picture).to_have_count(1)
    expect(picture).to_have_js_property("complete", True)
    found = download_all(page)
    assert set(found) == {f"gate_state_poor-test.{kind}" for kind in ("png", "pdf", "csv")}
    expect_pictures(found)
    shown = page.request.get(picture.evaluate("image => image.src"))
    assert shown.headers["content-type"] == "image/png"
    pixels = [
        np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        for content in (shown.body(), found["gate_state_poor-test.png"])
    ]
    np.testing.assert_array_equal(*pixels)
    assert min(pixels[0].shape[:2]) > 300
    table = pd.read_csv(io.BytesIO(found["gate_state_poor-test.csv"]))
    pd.testing.assert_frame_equal(table, statistics.gate_state(recording), check_dtype=False)
