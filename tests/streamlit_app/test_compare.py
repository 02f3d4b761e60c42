"""Two networks, or two configurations over seeds, on the page of comparisons."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from attnscope import statistics
from attnscope.comparison import Comparison
from attnscope.files import read_json, write_sealed
from attnscope.recording.format import Shard
from attnscope.recording.recording import Recording
from tests.streamlit_app.in_browser import download_all, expect_pictures

Maker = Callable[..., Recording]
Visit = Callable[..., AppTest]


def assert_no_error(app: AppTest) -> None:
    assert [error.message for error in app.exception] == []
    assert [error.value for error in app.error] == []


def _say(recording: Recording, **about: Any) -> None:
    """Change what a recording says of its network."""
    file = recording.folder / "manifest.json"
    manifest = read_json(file)
    manifest["about"] |= about
    write_sealed(file, manifest)


def cells(app: AppTest) -> pd.DataFrame:
    return pa.ipc.open_stream(app.get("vega_lite_chart")[-1].proto.data.data).read_pandas()


def texts(app: AppTest) -> str:
    return "\n".join(text.value for text in app.text)


@pytest.fixture
def pair(make_recording: Maker) -> tuple[Recording, Recording]:
    return make_recording("a", accuracy=0.8), make_recording("b", seed=1, accuracy=0.4)


@pytest.fixture
def seeds(make_recording: Maker) -> dict[str, list[Recording]]:
    """Three seeds of one configuration and two of another."""
    kinds: dict[str, list[Recording]] = {}
    for kind, count in (("se", 3), ("cbam", 2)):
        for seed in range(count):
            made = make_recording(f"{kind}-{seed}", seed=seed + 10 * count, accuracy=0.5)
            _say(made, model={"attention": kind}, seed=seed)
            kinds.setdefault(kind, []).append(Recording(made.folder))
    return kinds


def test_accuracies_have_intervals_and_tests(
    pair: tuple[Recording, Recording], tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "comparison", run="a/test")
    assert_no_error(app)
    shown, expected = app.dataframe[0].value, Comparison(*pair).accuracy
    np.testing.assert_allclose(shown["p_holm"], expected["p_holm"])
    np.testing.assert_allclose(shown["difference"], 100 * expected["difference"])
    low, high = 100 * expected.loc[0, ["low", "high"]]
    first, last = shown["95% CI"][0].replace("\N{MINUS SIGN}", "-").split(" to ")
    assert (float(first), float(last)) == pytest.approx((low, high), abs=0.051)


def test_the_difference_of_the_confusion_matrices_by_hand(
    pair: tuple[Recording, Recording], tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "comparison", run="a/test", comparison_view="Confusion")
    assert_no_error(app)
    rates = [statistics.confusion_matrix(r).to_numpy() / 20 for r in pair]
    data = cells(app)
    assert len(data) == 9
    np.testing.assert_allclose(data["value"], (rates[1] - rates[0]).ravel(), atol=1e-12)
    shown = app.dataframe[0].value
    assert shown["difference"].abs().is_monotonic_decreasing
    assert shown["difference"].abs().max() == pytest.approx(100 * data["value"].abs().max())


def test_a_cell_shows_the_images_that_one_network_alone_puts_there(
    pair: tuple[Recording, Recording], tmp_path: Path, visit: Visit
) -> None:
    app = visit(
        tmp_path, "comparison", run="a/test", comparison_view="Confusion", true="cat",
        predicted="dog",
    )  # fmt: skip
    assert_no_error(app)
    a, b = ((r.labels == 0) & (r.predictions == 1) for r in pair)
    count = int((a != b).sum())
    assert count > 1
    assert app.subheader[-1].value == f"{count} images"


@pytest.mark.parametrize(
    "which", ["All", "Only first correct", "Only second correct", "Both wrong"]
)
def test_images_are_chosen_by_who_is_right(
    which: str, pair: tuple[Recording, Recording], tmp_path: Path, visit: Visit
) -> None:
    address = {} if which == "All" else {"which": which}
    app = visit(tmp_path, "comparison", run="a/test", comparison_view="Images", **address)
    assert_no_error(app)
    a, b = (r.right for r in pair)
    wanted = {"All": a | True, "Only first correct": a & ~b, "Only second correct": b & ~a}
    count = int(wanted.get(which, ~a & ~b).sum())
    assert app.subheader[0].value == f"{count} images"


def test_networks_without_grad_cam_are_shown_side_by_side(
    write_recording: Maker, tmp_path: Path, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recording, "image", lambda self, i: np.zeros((8, 8, 3), np.uint8))
    write_recording("a", labels=[0, 1, 2], predictions=[0, 2, 2])
    write_recording("b", labels=[0, 1, 2], predictions=[1, 1, 2])
    app = visit(tmp_path, "comparison", comparison_view="Images")
    assert_no_error(app)
    assert app.subheader[0].value == "3 images"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ({"other": "c/test"}, "c/test"),
        ({"other": "../b/test"}, "../b/test"),
        ({"comparison_view": "Images", "true": "wolf"}, "wolf"),
        ({"comparison_view": "Confusion", "predicted": "wolf"}, "wolf"),
    ],
)
def test_what_the_address_asks_for_in_vain_is_said(
    address: dict[str, str],
    name: str,
    pair: tuple[Recording, Recording],
    tmp_path: Path,
    visit: Visit,
) -> None:
    app = visit(tmp_path, "comparison", run="a/test", **address)
    assert [error.message for error in app.exception] == []
    assert [f"`{name}`" in error.value for error in app.error] == [True]
    assert not any(re.search("[0-9]+ image", heading.value) for heading in app.subheader)


def test_of_many_recordings_only_those_that_are_compared_are_read(
    make_recording: Maker, tmp_path: Path, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        make_recording(f"n{i}", seed=i)
    read: list[str] = []
    rows_of = Recording._read_rows

    def note(recording: Recording, shard: Shard) -> pd.DataFrame:
        read.append(recording.folder.parents[1].name)
        return rows_of(recording, shard)

    monkeypatch.setattr(Recording, "_read_rows", note)
    app = visit(tmp_path, "comparison", run="n3/test")
    assert_no_error(app)
    assert app.sidebar.selectbox(key="other").value == "n0/test"
    assert set(read) == {"n3", "n0"}
    read.clear()
    app.sidebar.selectbox(key="other").set_value("n5/test").run()
    assert_no_error(app)
    assert set(read) <= {"n3", "n5"}


def test_two_configurations_are_compared_over_the_seeds_of_both(
    seeds: dict[str, list[Recording]], tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "comparison", compare="Two configurations over seeds")
    assert_no_error(app)
    assert app.selectbox(key="first").options == ["cbam", "se"]
    a, b = seeds["cbam"], seeds["se"][:2]
    expected = statistics.compare_seeds(a, b)
    shown = app.dataframe[-1].value
    np.testing.assert_allclose(shown["difference"], 100 * expected["difference"])
    np.testing.assert_allclose(shown["p_holm"], expected["p_holm"])
    assert any("0, 1" in note.value and "1 recording" in note.value for note in app.caption)
    assert "cbam" in texts(app)


def test_an_unknown_configuration_is_said(
    seeds: dict[str, list[Recording]], tmp_path: Path, visit: Visit
) -> None:
    app = visit(tmp_path, "comparison", compare="Two configurations over seeds", second="eca")
    assert ["`eca`" in error.value for error in app.error] == [True]
    assert not app.dataframe


def test_a_copy_of_a_seed_is_named(
    seeds: dict[str, list[Recording]], make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    copied = make_recording("copied", accuracy=0.5)
    _say(copied, **seeds["se"][0].about)
    app = visit(tmp_path, "comparison")
    assert_no_error(app)
    assert any("AS733" in note.value for note in app.caption)


@pytest.mark.browser
def test_a_plot_is_downloaded_as_png_pdf_and_csv(
    pair: tuple[Recording, Recording], tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    """Of a registered plot and of a chart; the view is opened by its address."""
    from playwright.sync_api import expect

    page = browse(tmp_path)
    root = page.url.rstrip("/")
    page.goto(f"{root}/comparison?run=a/test&other=b/test")
    found = download_all(page)
    assert set(found) == {f"per_class_accuracy_a-test_b-test.{x}" for x in ("png", "pdf", "csv")}
    expect_pictures(found)
    table = pd.read_csv(io.BytesIO(found["per_class_accuracy_a-test_b-test.csv"]))
    np.testing.assert_allclose(table["difference"], Comparison(*pair).accuracy["difference"])
    page.goto(f"{root}/comparison?run=a/test&other=b/test&comparison_view=Confusion")
    expect(page.get_by_test_id("stVegaLiteChart")).to_be_visible()
    found = download_all(page)
    assert len(found) == 3
    expect_pictures(found)
    (name,) = (name for name in found if name.endswith(".csv"))
    assert name.startswith("confusion_difference_window")
    rates = [statistics.confusion_matrix(r).to_numpy() / 20 for r in pair]
    table = pd.read_csv(io.BytesIO(found[name]))
    np.testing.assert_allclose(table["value"], (rates[1] - rates[0]).ravel(), atol=1e-12)
