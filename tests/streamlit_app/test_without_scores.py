"""Pages of the dashboard for recordings without class scores or without class labels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch.utils.data import TensorDataset

from attnscope import build_model, capture, load_data
from attnscope.report import write_report
from tests.streamlit_app.test_dashboard import APP, PAGES

MISSING = {"scores": "AS618", "labels": "AS648"}
"""What a recording lacks -> the code of the refusal."""


@pytest.fixture(scope="module", params=MISSING)
def missing(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, missing: str) -> Path:
    torch.manual_seed(0)
    model = build_model("resnet18", attention="cbam", width=16, reduction=4)
    place = tmp_path_factory.mktemp("without") / "runs"
    data = load_data("digits")
    images = data.test[slice(0, 20)]
    if missing == "scores":
        capture(model, images, place / "features", output="none", progress=False)
    else:
        unlabeled = TensorDataset(data.normalization.apply(images.images))
        normalization = data.normalization
        capture(model, unlabeled, place / "features", normalization=normalization, progress=False)
    return place


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_needs_no_class_or_says_what_is_missing(
    folder: Path, missing: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
    app = AppTest.from_file(str(APP), default_timeout=120).run()
    if page != "runs":
        app.switch_page(f"views/{page}.py").run()
    assert [error.message for error in app.exception] == []
    assert all(error.value.endswith(f"[{MISSING[missing]}]`") for error in app.error)
    shows = {
        "scores": ("runs", "overview", "channels", "maps", "states"),
        "labels": ("runs", "overview", "maps", "states"),
    }
    if page in shows[missing]:
        assert not app.error
    if page == "figures":
        assert "AS909" not in str(app), "a figure of the training is not offered"
    if page == "usage":
        assert not app.code, "no command is advised that would be refused"
    if page == "overview":
        shown = {metric.label: metric.value for metric in app.metric}
        assert shown["Accuracy"] == shown["Calibration error"] == "–"
        assert shown["Gates"] == "16"


def test_the_report_has_the_figures_of_gates(folder: Path, missing: str, tmp_path: Path) -> None:
    page = write_report([folder / "features"], tmp_path / "page.html").read_text()
    assert "gate_state" in page or "Gate state" in page
    assert "Not shown: attention_grid" not in page
    assert {"scores": "no class scores", "labels": "no labels"}[missing] in page
    assert "<dt>accuracy</dt>" not in page
    assert "<h3>Per class</h3>" not in page
