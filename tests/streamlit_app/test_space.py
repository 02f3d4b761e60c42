"""Gates as points: components, t-SNE in the background, and the images behind points."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.testing.v1 import AppTest

from analysis.dashboard_client import Visitor
from attnscope.dashboard import jobs
from attnscope.dashboard.gate_space import place_images, placed_images
from attnscope.recording.recording import Recording
from attnscope.statistics.embedding import principal_components
from tests.streamlit_app.in_browser import settle
from tests.streamlit_app.opening import LOOK_ONLY, assert_no_error, assert_one_error, open_view
from tests.streamlit_app.plain import started

Make = Callable[..., Recording]
Open = Callable[..., AppTest]
GATE, MAP = "layer1.attention.channel", "layer1.attention.spatial"
BUTTON = "Compute t-SNE"


@pytest.fixture
def open_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    def run(run: str, *words: str, folder: Path = tmp_path, **address: str) -> AppTest:
        return open_view(monkeypatch, folder, "space", *words, run=run, **address)

    return run


def shown(app: AppTest) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The points that are sent to the browser, and the chart."""
    (chart,) = app.get("vega_lite_chart")
    table = chart.proto.data if chart.proto.HasField("data") else chart.proto.datasets[0].data
    return convert_arrow_bytes_to_pandas_df(table.data), json.loads(chart.proto.spec)


@pytest.mark.parametrize("gate", [GATE, MAP])
def test_points_are_the_components_and_are_colored_by_what_is_chosen(
    gate: str, make_recording: Make, open_space: Open
) -> None:
    recording = make_recording("cbam")
    app = open_space("cbam/test", gate=gate, x="3", y="1")
    assert_no_error(app)
    points, chart = shown(app)
    found = principal_components(recording, gate, 6)
    np.testing.assert_allclose(points[["x", "y"]], found.scores[:, [2, 0]], atol=1e-6)
    assert list(points["image"]) == list(range(60))
    names = np.array(recording.classes)
    assert list(points["group"]) == list(names[recording.labels])
    assert chart["encoding"]["color"]["scale"]["domain"] == recording.classes
    total = 100 * found.explained[[0, 2]].sum()
    assert app.metric[0].value == f"{total:.1f}%"
    app.selectbox(key="color").set_value("Right or wrong").run()
    points, _ = shown(app)
    assert list(points["group"] == "right") == list(recording.right)
    app.selectbox(key="color").set_value("Predicted class").run()
    points, _ = shown(app)
    assert list(points["group"]) == list(names[recording.predictions])
    app.multiselect[0].set_value(["dog"]).run()
    points, chart = shown(app)
    assert chart["encoding"]["color"]["scale"]["domain"] == ["dog", "all others"]
    assert (points["group"] == "dog").sum() == (recording.predictions == 1).sum()


def test_of_many_points_a_sample_is_sent_and_said(
    make_recording: Make, open_space: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording("cbam")
    open_space("cbam/test")  # puts the app's folder on the path
    from cached import space

    monkeypatch.setattr(space, "SHOWN", 25)
    app = open_space("cbam/test", gate=GATE)
    assert_no_error(app)
    points, _ = shown(app)
    assert len(points) == 25
    scores = principal_components(recording, GATE, 6).scores
    np.testing.assert_allclose(points[["x", "y"]], scores[points["image"], :2], atol=1e-6)
    assert any("random sample of 25 points" in caption.value for caption in app.caption)


def test_an_unknown_gate_is_said_and_nothing_is_shown_in_its_place(
    make_recording: Make, open_space: Open
) -> None:
    make_recording("cbam")
    app = open_space("cbam/test", gate="nothing", method="t-SNE")
    assert_one_error(app, "`nothing`")
    assert not app.get("vega_lite_chart")
    app.selectbox(key="gate").set_value(GATE).run()
    assert_no_error(app)
    assert BUTTON in [button.label for button in app.button]


def test_t_sne_is_computed_by_a_button_in_the_background_and_is_there_again(
    make_recording: Make, open_space: Open
) -> None:
    recording = make_recording("cbam")
    looking = open_space("cbam/test", *LOOK_ONLY, gate=GATE, method="t-SNE")
    (button,) = (button for button in looking.button if button.label == BUTTON)
    assert button.disabled
    app = open_space("cbam/test", gate=GATE, method="t-SNE")
    assert_no_error(app)
    assert not app.get("vega_lite_chart")
    try:
        next(button for button in app.button if button.label == BUTTON).click().run()
        job = jobs.latest()
        assert job is not None
        assert job.wait(120) == "done", job.line
    finally:
        jobs.stop_all()
    known = placed_images(recording, GATE)
    assert known is not None
    again = open_space("cbam/test", *LOOK_ONLY, gate=GATE, method="t-SNE")
    assert_no_error(again)
    points, _ = shown(again)
    np.testing.assert_allclose(points[["x", "y"]], known.places)
    assert BUTTON not in [button.label for button in again.button]


def test_without_a_place_in_the_folder_t_sne_is_not_offered(
    make_recording: Make, tmp_path: Path, open_space: Open
) -> None:
    recording = make_recording("cbam")
    place_images(recording, GATE)
    app = open_space("test", folder=recording.folder, gate=GATE, method="t-SNE")
    assert_no_error(app)
    assert len(app.info) == 1
    assert not app.get("vega_lite_chart"), "what lies outside of the folder is not opened"
    assert BUTTON not in [button.label for button in app.button]


@pytest.mark.browser
def test_a_brush_over_points_shows_their_images(
    make_recording: Make, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = make_recording("cbam")
    place_images(recording, GATE)
    page = browse(tmp_path)
    page.goto(f"{page.url.rstrip('/')}/space?run=cbam/test&gate={GATE}")
    content = page.get_by_test_id("stMain")
    marks = page.locator(".mark-symbol [aria-label*='image: ']")
    expect(marks).to_have_count(60)
    settle(page)
    boxes = {
        int(mark.get_attribute("aria-label").split("image: ")[1].split(";")[0]): mark.bounding_box()
        for mark in marks.all()
    }
    middle = {
        image: (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for image, box in boxes.items()
    }
    places = np.array([middle[image] for image in sorted(middle)])
    left, top = places.min(0) - 3
    right, bottom = np.quantile(places[:, 0], 0.3), places[:, 1].max() + 3
    page.mouse.move(left, top)
    page.mouse.down()
    for share in (0.5, 1):
        page.mouse.move(left + share * (right - left), top + share * (bottom - top))
    page.mouse.up()
    expect(content.get_by_role("heading", name="selected image")).to_be_visible()
    time.sleep(1)
    inside = [image for image in range(60) if places[image, 0] <= right]
    expect(content.get_by_role("heading", name=f"{len(inside)} selected images")).to_be_visible()
    expect(content).to_contain_text(str(recording.rows["path"][inside[0]]))
    page.goto(f"{page.url.split('/space')[0]}/space?run=cbam/test&gate={GATE}&method=t-SNE")
    expect(content).to_contain_text("t-SNE puts images with similar gates side by side")
    expect(page.locator(".mark-symbol [aria-label*='image: ']")).to_have_count(60)


def test_the_label_of_an_axis_of_another_gate_is_no_error(
    make_recording: Make, tmp_path: Path
) -> None:
    make_recording("cbam")
    with started(tmp_path, tmp_path) as server, Visitor(server.port) as visitor:
        assert visitor.open("space", f"gate={GATE}").errors == []
        (axis,) = (name for name, w in visitor.widgets.items() if w.label == "Horizontal axis")
        stale = WidgetState(id=axis, string_value="Component 2 (99.9%)")
        assert visitor.click(axis, stale).errors == []
