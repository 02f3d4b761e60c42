"""The confusion matrix: charts of few and many classes, pairs, and images by address."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from attnscope import statistics
from attnscope.recording.recording import Recording
from tests.streamlit_app.in_browser import settle

Maker = Callable[..., Recording]
Visit = Callable[..., AppTest]
MANY = [f"c{k}" for k in range(120)]


def assert_no_error(app: AppTest) -> None:
    assert [error.message for error in app.exception] == []
    assert [error.value for error in app.error] == []


def cells(app: AppTest, chart: int = -1) -> pd.DataFrame:
    """The data that the chart sends to the browser."""
    return pa.ipc.open_stream(app.get("vega_lite_chart")[chart].proto.data.data).read_pandas()


def spec(app: AppTest, chart: int = -1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(app.get("vega_lite_chart")[chart].proto.spec)
    return found


@pytest.fixture
def many(make_recording: Maker) -> Recording:
    return make_recording("many", count=360, names=MANY, accuracy=0.5)


def test_few_classes_have_every_cell(make_recording: Maker, tmp_path: Path, visit: Visit) -> None:
    recording = make_recording("few", accuracy=0.4)
    app = visit(tmp_path, "confusion")
    assert_no_error(app)
    counts = statistics.confusion_matrix(recording)
    data = cells(app)
    assert len(data) == 9
    for cell in data.itertuples():
        assert cell.count == counts.loc[cell.true, cell.predicted]
        assert cell.share == cell.value == cell.count / counts.loc[cell.true].sum()
    app.get("button_group")[0].set_value("Counts").run()
    assert_no_error(app)
    assert (cells(app)["value"] == cells(app)["count"]).all()


def test_errors_only_leaves_out_the_diagonal_and_fits_the_colors(
    make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("few", accuracy=0.8)
    app = visit(tmp_path, "confusion")
    assert not app.toggle(key="errors").value
    app.toggle(key="errors").set_value(True).run()
    data = cells(app)
    right = data["true"] == data["predicted"]
    assert data["value"].isna().tolist() == right.tolist()
    color = spec(app)["layer"][0]["encoding"]["color"]
    assert color["scale"]["domain"] == [0, data.loc[~right, "share"].max()]


def test_many_classes_send_the_chosen_window_only(
    many: Recording, tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "confusion", rows="41-80", columns="81-120")
    assert_no_error(app)
    assert app.toggle(key="errors").value, "errors are rare cells of many classes"
    counts = statistics.confusion_matrix(many)
    data = cells(app)
    assert len(data) == 40**2
    assert list(dict.fromkeys(data["true"])) == MANY[40:80]
    assert list(dict.fromkeys(data["predicted"])) == MANY[80:]
    for cell in data.itertuples():
        assert cell.count == counts.loc[cell.true, cell.predicted]
    blocks = cells(app, 0)
    assert len(blocks) == 9
    wrong = counts.to_numpy() * (1 - np.eye(120, dtype=int))
    for block in blocks.itertuples():
        rows, columns = (
            slice(int(text.split("-")[0]) - 1, int(text.split("-")[1]))
            for text in (block.rows, block.columns)
        )
        assert block.errors == wrong[rows, columns].sum()
    frame = spec(app, 0)["layer"][2]["transform"][0]["filter"]
    assert "41-80" in frame
    assert "81-120" in frame


def test_classes_in_order_of_similarity_are_all_there(
    many: Recording, tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "confusion", order="By similarity")
    assert_no_error(app)
    counts = statistics.confusion_matrix(many)
    seen = []
    for part in ("1-40", "41-80", "81-120"):
        app.selectbox(key="rows").set_value(part).run()
        data = cells(app)
        seen += list(dict.fromkeys(data["true"]))
        assert all(c.count == counts.loc[c.true, c.predicted] for c in data.itertuples())
    assert sorted(seen) == sorted(MANY)
    assert seen == [MANY[k] for k in statistics.order_by_confusion(counts.to_numpy())]


@pytest.mark.parametrize("classes", [50, 900])
def test_the_picture_shows_every_cell_that_differs_from_zero(
    classes: int, visit: Visit, make_recording: Maker, tmp_path: Path
) -> None:
    make_recording("any")
    visit(tmp_path, "confusion")  # puts the app's folder on the path, as Streamlit does
    matrices = sys.modules["matrices"]
    look = matrices.Look("x", 0, 1, "cividis", "cividis", "d")
    values = np.zeros((classes, classes))
    spots = [(0, 0), (classes - 1, 3), (17, classes // 2)]
    for spot in spots:
        values[spot] = 1
    values[5, 5] = np.nan
    image = np.asarray(Image.open(io.BytesIO(matrices.picture(values, look))).convert("RGB"))
    side = len(image)
    assert 360 <= side <= 800
    brightest = image.astype(int).sum(2) > 450
    marks = np.zeros((classes, classes), bool)
    for spot in spots:
        place = tuple(int((k + 0.5) * side / (-(-classes // (pool := -(-classes // 360))) * pool))
                      for k in spot)  # fmt: skip
        assert brightest[place], spot
        marks[spot] = True
    assert brightest.mean() < 0.01
    if classes == 50:
        gray = image[int(5.5 * side / classes), int(5.5 * side / classes)]
        assert gray.tolist() == [0x9A, 0xA3, 0xB5]


def test_the_list_of_errors_is_that_of_the_statistic(
    many: Recording, tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "confusion")
    shown = app.dataframe[0].value
    expected = statistics.confused_pairs(many)
    assert shown["true"].tolist() == expected["true"].tolist()
    assert shown["count"].tolist() == expected["count"].tolist()
    np.testing.assert_allclose(shown["rate"], 100 * expected["rate"])
    low, high = expected.loc[0, ["low", "high"]]
    assert shown["interval"][0] == f"{100 * low:.1f}% to {100 * high:.1f}%"


def test_an_address_opens_the_images_of_its_cell(
    make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    recording = make_recording("poor", accuracy=0.3)
    app = visit(tmp_path, "confusion", true="owl", predicted="dog", run="poor/test")
    assert_no_error(app)
    rows = np.flatnonzero((recording.labels == 2) & (recording.predictions == 1))
    assert app.subheader[0].value == f"{len(rows)} images"
    assert sorted(text.value.splitlines()[-1].replace("\u200b", "") for text in app.text) == sorted(
        recording.rows["path"][rows]
    )


@pytest.mark.parametrize(
    "address", [{"true": "wolf"}, {"true": "cat", "predicted": "wolf"}, {"predicted": "wolf"}]
)
def test_an_unknown_class_in_the_address_is_said_and_no_images_are_shown(
    address: dict[str, str], make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("poor", accuracy=0.3)
    app = visit(tmp_path, "confusion", **address)
    assert [error.message for error in app.exception] == []
    assert ["`wolf`" in error.value for error in app.error] == [True]
    assert not app.text
    assert not app.subheader


def test_an_unknown_window_in_the_address_is_said(
    many: Recording, tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "confusion", rows="41-81")
    assert ["`41-81`" in error.value for error in app.error] == [True]
    assert not app.get("vega_lite_chart")


def test_a_class_without_images_has_no_rates(
    write_recording: Maker, tmp_path: Path, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recording(labels=[0, 0, 1], predictions=[0, 2, 1])
    app = visit(tmp_path, "confusion")
    assert_no_error(app)
    data = cells(app)
    assert data.loc[data["true"] == "owl", ["value", "share"]].isna().all(axis=None)
    assert not data.loc[data["true"] != "owl", "value"].isna().any()


@pytest.mark.browser
def test_many_classes_in_a_browser(
    many: Recording, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    """A block is clicked, then a cell, its images are shown, and the address opens them again."""
    from playwright.sync_api import expect

    page = browse(tmp_path)
    page.get_by_role("link", name="Confusion matrix").click()
    main = page.get_by_test_id("stMain")
    expect(main.get_by_text("Click a block")).to_be_visible()
    charts = main.get_by_test_id("stVegaLiteChart")
    picture = charts.first.locator(".mark-rect").first
    expect(picture).to_be_visible()
    settle(page)
    box = picture.bounding_box()
    page.mouse.click(box["x"] + 5 / 6 * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_url("**rows=41-80&columns=81-120**")
    settle(page)
    page.wait_for_timeout(1000)  # until the chart is drawn, which nothing on the page tells
    # So many cells are drawn on a canvas, whose lower right part they fill.
    box = charts.nth(1).locator("canvas").bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_url("**predicted=c**")
    chosen = {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}
    true, predicted = (MANY.index(chosen[key]) for key in ("true", "predicted"))
    assert 40 <= true < 80 <= predicted
    count = ((many.labels == true) & (many.predictions == predicted)).sum()
    noun = "image" if count == 1 else "images"
    heading = main.get_by_role("heading", name=f"{count} {noun}", exact=True)
    expect(heading).to_be_visible()
    # The address opens the same cell and window; with another cell it opens that one.
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(heading).to_be_visible()
    expect(main.get_by_role("combobox", name="Predicted classes")).to_have_value("81-120")
    pair = statistics.confused_pairs(many).iloc[0]
    wanted = {**chosen, "true": pair["true"], "predicted": pair["predicted"]}
    page.goto(f"{address.split('?')[0]}?{urlencode(wanted)}")
    expect(main.get_by_test_id("stText")).to_have_count(int(pair["count"]))
    rows = (many.labels == MANY.index(pair["true"])) & (
        many.predictions == MANY.index(pair["predicted"])
    )
    texts = main.get_by_test_id("stText").all_inner_texts()
    shown = [text.splitlines()[-1].replace("\u200b", "") for text in texts]
    assert sorted(shown) == sorted(many.rows["path"][rows])
