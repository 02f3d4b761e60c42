"""The page of the visitor's own image."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from attnscope.dashboard.access import script_arguments
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from tests.streamlit_app.image_runs import make_captured_run

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"
Maker = Callable[..., Recording]


@pytest.fixture
def open_upload(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    def run(folder: Path, *, actions: bool = True) -> AppTest:
        arguments = script_arguments(folder, actions=actions)
        monkeypatch.setattr(sys, "argv", [str(APP), *arguments])
        app = AppTest.from_file(str(APP), default_timeout=120).run()
        return app.switch_page("views/upload.py").run()

    return run


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A captured run whose folder is not changed by the tests."""
    return make_captured_run(tmp_path_factory.mktemp("upload"))


def texts(app: AppTest) -> str:
    return "\n".join(text.value for text in app.text)


def linked(app: AppTest) -> list[int]:
    labels = (each.proto.label for each in app.get("page_link"))
    return [int(label.split()[-1]) for label in labels if label.startswith("Open image")]


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "12 bits"])
def test_a_recorded_image_gets_its_recorded_prediction_and_is_its_own_neighbor(
    deep: bool, captured: Run, open_upload: Callable[..., AppTest], tmp_path: Path
) -> None:
    captured = make_captured_run(tmp_path, deep=True) if deep else captured
    recording = captured.recording()
    row = 42
    file = Path(captured.config["data"].removeprefix("folder:")) / recording.rows["path"][row]
    app = open_upload(captured.folder.parent)
    assert not app.exception
    app.file_uploader(key="upload").set_value((file.name, file.read_bytes(), "image/png")).run()
    assert not app.exception
    assert [error.value for error in app.error] == []
    name = recording.classes[recording.predictions[row]]
    shown = texts(app)
    assert f"Prediction: {name}, confidence {recording.confidence[row]:.3f}" in shown
    assert linked(app)[0] == row
    assert "distance 0.000" in shown
    about = "\n".join(caption.value for caption in app.caption)
    assert "resized to 16×16 pixels, RGB" in about


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("AS261", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"),
        ("AS264", b"\x89PNG\r\n\x1a\n" + bytes(50)),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_line(
    code: str, content: bytes, captured: Run, open_upload: Callable[..., AppTest]
) -> None:
    app = open_upload(captured.folder.parent)
    app.file_uploader(key="upload").set_value(("cat.png", content, "image/png")).run()
    assert not app.exception
    (error,) = app.error
    assert code in error.value
    assert "\n" not in error.value
    assert not app.image


def test_without_the_network_it_says_so_in_one_line(
    make_recording: Maker, tmp_path: Path, open_upload: Callable[..., AppTest]
) -> None:
    make_recording("cbam")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "png")
    app = open_upload(tmp_path)
    app.file_uploader(key="upload").set_value(("a.png", buffer.getvalue(), "image/png")).run()
    assert not app.exception
    (error,) = app.error
    assert "AS640" in error.value


def test_other_machines_may_not_send_images(
    captured: Run, open_upload: Callable[..., AppTest]
) -> None:
    app = open_upload(captured.folder.parent, actions=False)
    assert not app.exception
    assert not app.get("file_uploader")
    assert any("--allow-actions" in info.value for info in app.info)


@pytest.mark.browser
def test_in_a_browser_a_sent_image_is_predicted_and_leads_to_its_neighbors(
    captured: Run, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = captured.recording()
    row = 13
    file = Path(captured.config["data"].removeprefix("folder:")) / recording.rows["path"][row]
    page = browse(captured.folder.parent)
    page.get_by_role("link", name="Your own image").click()
    main = page.get_by_test_id("stMain")
    main.locator('input[type="file"]').set_input_files(str(file))
    name = recording.classes[recording.predictions[row]]
    expect(main).to_contain_text(f"Prediction: {name}, confidence")
    main.get_by_role("link", name=f"Open image {row}", exact=True).click()
    expect(page.get_by_role("heading", name="Image", exact=True)).to_be_visible()
    expect(main).to_contain_text(recording.rows["path"][row])
