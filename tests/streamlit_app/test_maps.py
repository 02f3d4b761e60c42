"""The page of spatial maps, and the grids that it draws."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from attnscope import statistics
from attnscope.recording.recording import Recording

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"
sys.path.insert(0, str(APP.parent))
import grids  # type: ignore[import-not-found]  # noqa: E402
import image_parts  # type: ignore[import-not-found]  # noqa: E402

Maker = Callable[..., Recording]


@pytest.fixture
def open_maps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    def run(folder: Path, **query: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
        app = AppTest.from_file(str(APP), default_timeout=120).run()
        for name, value in query.items():
            app.query_params[name] = value
        return app.switch_page("views/maps.py").run()

    return run


def tables(app: AppTest) -> list[Any]:
    return [
        pa.ipc.open_stream(each.data.data).read_all().to_pandas()
        for chart in app.get("vega_lite_chart")
        for each in chart.proto.datasets
    ]


def test_values_at_the_pointer_are_the_raw_values(
    make_recording: Maker, tmp_path: Path, open_maps: Callable[..., AppTest]
) -> None:
    recording = make_recording("cbam")
    app = open_maps(tmp_path, map_image="17")
    assert not app.exception
    assert not app.error
    gates, cams = tables(app)
    for number in (1, 2):
        maps = recording.gate(f"layer{number}.attention.spatial", 17)
        here = gates[gates["map"] == f"layer{number}"]
        assert len(here) == maps.size
        np.testing.assert_allclose(here["value"], maps[here["row"], here["column"]])
    for target in ("predicted", "true"):
        maps = recording.grad_cam(target=target, rows=17).clip(0)
        here = cams[cams["map"] == f"Grad-CAM, {target}"]
        np.testing.assert_allclose(here["value"], maps[here["row"], here["column"]])


def test_large_maps_have_no_values_at_the_pointer_and_that_is_said(
    make_recording: Maker,
    tmp_path: Path,
    open_maps: Callable[..., AppTest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_recording("cbam")  # with maps of 8×8 and 4×4 positions
    monkeypatch.setattr(image_parts, "LARGEST_GRID", 4)
    app = open_maps(tmp_path, map_image="17")
    assert not app.exception
    assert set(tables(app)[0]["map"]) == {"layer2"}
    assert any("1 larger map is left out" in caption.value for caption in app.caption)


@pytest.mark.parametrize("image", ["60", "cat"])
def test_an_image_that_does_not_exist_is_said(
    image: str, make_recording: Maker, tmp_path: Path, open_maps: Callable[..., AppTest]
) -> None:
    make_recording("cbam")
    app = open_maps(tmp_path, map_image=image)
    assert not app.exception
    assert [image in error.value for error in app.error] == [True]
    assert not app.image


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float) / 255


def test_a_grid_shows_each_value_in_the_color_of_its_scale() -> None:
    values = np.array([[0.0, 0.25], [0.5, np.nan]])
    maps = np.stack([values, values + 0.5])
    column = grids.Column("gate a", maps, 0, 1, grad_cam=False)
    found = pixels_of(grids.grid_png(["one", "two"], [], [column]))
    cmap = matplotlib.colormaps["cividis"]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        color = np.array(cmap(value)[:3])
        share = (np.abs(found - color).max(2) < 0.012).mean()
        assert share > 0.02, value
    top, bottom = (
        np.flatnonzero((np.abs(found - np.array(cmap(value)[:3])).max(2) < 0.012).any(1)).mean()
        for value in (0.25, 1.0)
    )
    assert top < bottom, "the first map is above the second"
    gray = np.abs(found - np.array([0xE4] * 3) / 255).max(2) < 0.012
    assert gray.mean() > 0.05  # the cell without a value


def test_a_map_over_an_image_is_nearly_gray_where_it_is_low_and_colored_where_it_is_high() -> None:
    image = np.full((8, 8, 3), 128, np.uint8)
    heat = np.zeros((1, 8, 8))
    heat[0, :, 4:] = 1
    column = grids.Column("cam", heat, 0, 1, grad_cam=True, is_over=True)
    own = grids.Column("cam", heat, 0, 1, grad_cam=True)
    over, plain = (pixels_of(grids.grid_png(["x"], [image], [each])) for each in (column, own))
    high = np.array(matplotlib.colormaps["viridis"](1.0)[:3])
    blended = 0.2 * 128 / 255 + 0.8 * high
    assert (np.abs(over - blended).max(2) < 0.02).sum() > 1000
    assert (np.abs(plain - blended).max(2) < 0.02).sum() < 100
    low = 0.85 * 128 / 255 + 0.15 * np.array(matplotlib.colormaps["viridis"](0.0)[:3])
    assert (np.abs(over - low).max(2) < 0.02).sum() > 1000


@pytest.mark.browser
def test_in_a_browser_maps_of_an_image_lead_to_its_page(
    make_recording: Maker, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = make_recording("cbam")
    page = browse(tmp_path)
    page.get_by_role("link", name="Spatial maps").click()
    main = page.get_by_test_id("stMain")
    links = main.get_by_role("link", name="Open image")
    expect(links).to_have_count(6)
    main.get_by_role("button", name="Page 2", exact=True).click()
    expect(links.first).to_have_text("Open image 6")
    main.get_by_label("Image number").fill("17")
    main.get_by_label("Image number").press("Enter")
    expect(main).to_contain_text(recording.rows["path"][17])
    page.reload()
    expect(main).to_contain_text(recording.rows["path"][17])
    main.get_by_role("link", name="Open image 17").click()
    expect(page.get_by_role("heading", name="Image", exact=True)).to_be_visible()
    expect(main).to_contain_text(recording.rows["path"][17])


def test_values_have_the_colors_of_matplotlib() -> None:
    values = np.concatenate([np.arange(257) / 256, [-0.1, 1.1], np.random.default_rng(0).random(9)])
    for name in (grids.GATE_MAP, grids.GRAD_CAM_MAP):
        expected = matplotlib.colormaps[name](values)[:, :3]
        np.testing.assert_array_equal(grids.colored(values[None], 0, 1, name)[0], expected)


def test_a_page_and_its_figure_share_what_they_compute(
    make_recording: Maker,
    tmp_path: Path,
    open_maps: Callable[..., AppTest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed = []
    original = statistics.agreement_summary

    def count(*arguments: Any, **options: Any) -> Any:
        computed.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(statistics, "agreement_summary", count)
    recording = make_recording("cbam")
    app = open_maps(tmp_path, map_view="Agreement with Grad-CAM")
    assert not app.exception
    (table,) = app.dataframe
    assert len(computed) == 1
    expected = original(recording, class_intervals=False)
    everything = expected[expected["class"] == "all"]
    np.testing.assert_array_equal(table.value["spearman"], everything["spearman"])
