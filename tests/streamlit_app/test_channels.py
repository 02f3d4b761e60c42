"""The page of the channels of a gate: orders, parts of many classes, and the card behind a cell."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from attnscope import statistics
from attnscope.recording.recording import Recording
from attnscope.statistics.ordering import differences, similarity_order
from tests.streamlit_app.in_browser import settle
from tests.streamlit_app.opening import assert_no_error, assert_one_error, open_view

Make = Callable[..., Recording]
Open = Callable[..., AppTest]
GATE, SECOND = "layer1.attention.channel", "layer2.attention.channel"
MANY = [f"kind {number:03d}" for number in range(120)]


@pytest.fixture
def open_channels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    def run(run: str, **address: str) -> AppTest:
        return open_view(monkeypatch, tmp_path, "channels", run=run, **address)

    return run


def heat(app: AppTest) -> pd.DataFrame:
    """The cells of the heat map, by class and channel in the order of their axes."""
    chart = app.get("vega_lite_chart")[0]
    spec = json.loads(chart.proto.spec)
    table = chart.proto.data if chart.proto.HasField("data") else chart.proto.datasets[0].data
    from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df

    frame = convert_arrow_bytes_to_pandas_df(table.data)
    wide = frame.pivot_table("difference", "class", "channel")
    return wide.loc[spec["encoding"]["y"]["sort"], spec["encoding"]["x"]["sort"]]


def test_cells_are_the_differences_of_the_class_means(
    make_recording: Make, open_channels: Open
) -> None:
    recording = make_recording("cbam")
    app = open_channels("cbam/test")
    assert_no_error(app)
    shown = heat(app)
    means = statistics.class_profiles(recording, GATE).pivot_table("mean", "class", "channel")
    means = means.loc[recording.classes]
    assert list(shown.index) == recording.classes
    assert list(shown.columns) == list(range(8))
    np.testing.assert_allclose(shown, means - means.mean(), atol=1e-9)


def test_channels_and_classes_are_ordered_as_asked(
    make_recording: Make, open_channels: Open
) -> None:
    recording = make_recording("cbam")
    means = statistics.class_profiles(recording, GATE).pivot_table("mean", "class", "channel")
    apart = differences(means.loc[recording.classes])
    effects = statistics.channel_effects(recording, GATE)
    ranked = effects.sort_values("omega_squared", ascending=False, na_position="last")
    app = open_channels("cbam/test", by_channel="By omega squared")
    assert list(heat(app).columns) == ranked["channel"].tolist()
    assert heat(app).columns[0] == 0, "the planted effect"
    app.selectbox(key="by_channel").set_value("By similarity")
    app.selectbox(key="by_class").set_value("Most different first").run()
    assert_no_error(app)
    assert list(heat(app).columns) == list(similarity_order(apart.T))
    farthest = recording.classes[int((apart**2).sum(1).argmax())]
    assert heat(app).index[0] == farthest
    app.text_input(key="find").set_value("O").run()
    assert sorted(heat(app).index) == ["dog", "owl"]
    app.text_input(key="find").set_value("zebra").run()
    assert "zebra" in app.info[0].value
    assert not [c for c in app.get("vega_lite_chart") if "x" in json.loads(c.proto.spec)]


def test_of_many_classes_a_part_is_shown_and_said(
    make_recording: Make, open_channels: Open
) -> None:
    recording = make_recording("many", count=480, names=MANY)
    app = open_channels("many/test", table="true")
    assert_no_error(app)
    means = statistics.class_profiles(recording, GATE).pivot_table("mean", "class", "channel")
    far = (differences(means.loc[MANY]) ** 2).sum(1)
    expected = [MANY[k] for k in np.argsort(-far, kind="stable")]
    assert list(heat(app).index) == expected[:50]
    assert any("50 of 120 classes" in caption.value for caption in app.caption)
    (_, intervals) = app.get("vega_lite_chart")
    assert "layer" in json.loads(intervals.proto.spec)
    assert any("20 classes with the largest" in caption.value for caption in app.caption)
    assert len(app.dataframe[-1].value) == 120 * 8
    assert len(app.image) == 0
    app.toggle(key="whole").set_value(True).run()
    assert_no_error(app)
    assert len(app.image) == 1
    app.text_input(key="find").set_value("kind 11").run()
    assert sorted(heat(app).index) == MANY[110:]


def test_an_unknown_gate_in_the_address_is_said_and_nothing_is_shown_in_its_place(
    make_recording: Make, open_channels: Open
) -> None:
    make_recording("cbam")
    app = open_channels("cbam/test", gate="layer9.<b>none</b>")
    assert_one_error(app, "`layer9.<b>none</b>`")
    assert app.selectbox(key="gate").value is None
    assert not app.metric
    assert_one_error(app.run(), "layer9")
    app.selectbox(key="gate").set_value(SECOND).run()
    assert_no_error(app)
    assert heat(app).shape == (3, 16)
    known = open_channels("cbam/test", gate=SECOND)
    assert_no_error(known)
    assert known.selectbox(key="gate").value == SECOND


@pytest.mark.browser
def test_a_click_on_a_cell_opens_the_card_of_its_channel_and_back_returns(
    make_recording: Make, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = make_recording("cbam")
    make_recording("another", seed=1)  # it would be shown without a choice
    page = browse(tmp_path)
    address = page.url.rstrip("/")
    page.goto(f"{address}/channels?run=cbam/test&gate={SECOND}&by_channel=By similarity")
    main = page.get_by_test_id("stMain")
    cell = page.locator('.mark-rect [aria-label*="channel: 11; class: dog;"]').first
    expect(cell).to_be_visible()
    settle(page)
    box = cell.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_role("heading", name="Channel card")).to_be_visible()
    expect(main).to_contain_text("Channel 11 of")
    expect(page).to_have_url(re.compile(r"/channel\?.*channel=11"))
    values = recording.gate(SECOND)[:, 11]
    top = int(values.argmax())
    link = main.get_by_role("link", name=f"Image {top}", exact=True)
    expect(link).to_be_visible()
    expect(main).to_contain_text(f"gate {values[top]:.4f}")
    page.reload()
    expect(main).to_contain_text("Channel 11 of")
    expect(link).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Channel gates")).to_be_visible()
    expect(main).to_contain_text("Channels that differ between classes")
    page.wait_for_timeout(3000)
    expect(page.get_by_role("heading", name="Channel gates")).to_be_visible()


@pytest.mark.browser
def test_a_brush_compares_the_classes_under_it_with_all_others(
    make_recording: Make, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    make_recording("cbam")
    page = browse(tmp_path)
    page.goto(f"{page.url.rstrip('/')}/channels?run=cbam/test&gate={GATE}")
    main = page.get_by_test_id("stMain")
    rect = '.mark-rect [aria-label*="channel: {}; class: {};"]'
    first = page.locator(rect.format(0, "dog")).first
    expect(first).to_be_visible()
    settle(page)
    start, end = first.bounding_box(), page.locator(rect.format(2, "owl")).first.bounding_box()
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    for share in (0.5, 1):
        page.mouse.move(
            start["x"] + share * (end["x"] - start["x"]) + end["width"] / 2,
            start["y"] + share * (end["y"] - start["y"]) + end["height"] / 2,
        )
    page.mouse.up()
    expect(main.get_by_role("heading", name="Selected classes against all others")).to_be_visible()
    expect(main).to_contain_text("2 classes: dog, owl")
    # Channel 0 is the one whose gates were planted to differ between the classes.
    expect(main.get_by_role("link", name="Open the card of channel 0").first).to_be_visible()
