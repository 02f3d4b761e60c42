"""Pages of the dashboard for a recording of a network that gave no class scores."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

from attnscope import build_model, capture, load_data
from attnscope.report import write_report
from tests.streamlit_app.test_dashboard import APP, PAGES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build_model("resnet18", attention="cbam", width=16, reduction=4)
    place = tmp_path_factory.mktemp("without") / "runs"
    images = load_data("digits").test[slice(0, 20)]
    capture(model, images, place / "features", output="none", progress=False)
    return place


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_needs_no_class_or_says_what_is_missing(
    folder: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
    app = AppTest.from_file(str(APP), default_timeout=120).run()
    if page != "overview":
        app.switch_page(f"views/{page}.py").run()
    assert [error.message for error in app.exception] == []
    assert all(error.value.endswith("[AS618]`") for error in app.error)
    if page in ("overview", "channels", "maps", "states"):
        assert not app.error
    if page == "overview":
        shown = {metric.label: metric.value for metric in app.metric}
        assert shown["Accuracy"] == shown["Calibration error"] == "–"
        assert shown["Gates"] == "16"


def test_the_report_has_the_figures_of_gates(folder: Path, tmp_path: Path) -> None:
    page = write_report([folder / "features"], tmp_path / "page.html").read_text()
    assert "gate_state" in page or "Gate state" in page
    assert "no class scores" in page
    assert "<dt>accuracy</dt>" not in page
    assert "<h3>Per class</h3>" not in page
