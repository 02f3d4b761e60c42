"""Misclassified images: filters, order, and the list as a file."""

from __future__ import annotations

import io
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

Maker = Callable[..., Recording]
Visit = Callable[..., AppTest]


def paths(app: AppTest) -> list[str]:
    return [text.value.splitlines()[-1].replace("\u200b", "") for text in app.text]


def by_hand(recording: Recording) -> pd.DataFrame:
    """The misclassified images with confidence and loss, from the logits."""
    logits = recording.logits.astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    images = np.arange(len(recording))
    table = recording.rows[["path", "label", "prediction"]].assign(
        confidence=shares.max(1), loss=-np.log(shares[images, recording.labels])
    )
    return table[table["label"] != table["prediction"]]


@pytest.mark.parametrize(("sort", "column"), [("Loss", "loss"), ("Confidence", "confidence")])
def test_images_are_sorted_and_split_into_pages(
    sort: str, column: str, make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    wrong = by_hand(make_recording("poor", accuracy=0.2))
    app = visit(tmp_path, "mistakes", sort=sort)
    assert not app.exception
    assert not app.error
    assert app.subheader[0].value.startswith(f"{len(wrong)} of {len(wrong)} ")
    assert len(wrong) > 20
    expected = wrong.sort_values(column, ascending=False)
    assert paths(app) == expected["path"].tolist()[:20]


def test_filters_are_in_the_address(make_recording: Maker, tmp_path: Path, visit: Visit) -> None:
    wrong = by_hand(make_recording("poor", accuracy=0.2))
    app = visit(tmp_path, "mistakes", true="cat", predicted="owl")
    expected = wrong[(wrong["label"] == 0) & (wrong["prediction"] == 2)]
    assert 0 < len(expected) < len(wrong)
    assert app.subheader[0].value.startswith(f"{len(expected)} of {len(wrong)} ")
    assert sorted(paths(app)) == sorted(expected["path"])
    middle = float(wrong["confidence"].round(2).median())
    app = visit(tmp_path, "mistakes")
    app.slider(key="confidence").set_value((0.0, middle)).run()
    expected = wrong[wrong["confidence"] <= middle]
    assert 0 < len(expected) < len(wrong)
    assert app.subheader[0].value.startswith(f"{len(expected)} of {len(wrong)} ")


def test_filters_that_no_image_passes_are_said(
    make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("good", accuracy=0.9)
    app = visit(tmp_path, "mistakes")
    app.slider(key="confidence").set_value((0.0, 0.01)).run()
    assert len(app.info) == 1
    assert not app.text


@pytest.mark.parametrize("key", ["true", "predicted"])
def test_an_unknown_class_in_the_address_is_said_and_no_images_are_shown(
    key: str, make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("poor", accuracy=0.2)
    app = visit(tmp_path, "mistakes", **{key: "wolf"})
    assert ["`wolf`" in error.value for error in app.error] == [True]
    assert not app.text
    assert not app.subheader


def test_without_errors_the_page_says_so(
    make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("right", accuracy=2)
    app = visit(tmp_path, "mistakes")
    assert len(app.success) == 1
    assert not app.subheader


@pytest.mark.browser
def test_the_list_is_downloaded_as_csv(
    make_recording: Maker, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = make_recording("poor", accuracy=0.2)
    page = browse(tmp_path)
    page.goto(f"{page.url.rstrip('/')}/mistakes?true=cat&sort=Confidence")
    main = page.get_by_test_id("stMain")
    button = main.get_by_role("button", name=re.compile("Download the list"))
    expect(button).to_be_visible()
    with page.expect_download() as waiting:
        button.click()
    download = waiting.value
    assert download.suggested_filename == "misclassified_poor-test.csv"
    found = pd.read_csv(io.BytesIO(Path(download.path()).read_bytes()))
    expected = statistics.misclassified(recording).query("label == 'cat'")
    assert list(found) == ["row", "path", "true", "predicted", "confidence", "loss"]
    assert found["row"].tolist() == expected["row"].tolist()
    assert found["path"].tolist() == expected["path"].tolist()
    np.testing.assert_allclose(found["loss"], expected["loss"])
    main.get_by_role("link", name=f"Open image {found['row'].iloc[0]}", exact=True).click()
    expect(page.get_by_role("heading", name="Image", exact=True)).to_be_visible()
    page.go_back()
    expect(main.get_by_role("heading", name=re.compile(f"^{len(expected)} of"))).to_be_visible()
