"""The overview of a run: sentences on what stands out, each with a link that shows more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from attnscope import statistics
from attnscope.dashboard import highlights
from attnscope.dashboard.highlights import Highlight
from attnscope.plots.usage import joint_of, usage_of
from attnscope.recording.outcomes import find_outcomes
from attnscope.recording.recording import Recording
from tests.streamlit_app.test_dashboard import APP

Maker = Callable[..., Recording]
Open = Callable[..., AppTest]


@pytest.fixture
def open_overview(monkeypatch: pytest.MonkeyPatch) -> Open:
    def run(folder: Path) -> AppTest:
        monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
        app = AppTest.from_file(str(APP), default_timeout=120).run()
        app.switch_page("views/overview.py").run()
        assert [error.message for error in app.exception] == []
        assert [error.value for error in app.error] == []
        return app

    return run


def said(app: AppTest) -> list[str]:
    return [markdown.value for markdown in app.markdown]


def links(app: AppTest) -> list[tuple[str, dict[str, str]]]:
    found = []
    for link in app.main.get("page_link"):
        query = dict(pair.split("=", 1) for pair in link.proto.query_string.split("&"))
        found.append((link.proto.page, query))
    return found


def assert_shown(app: AppTest, expected: list[Highlight]) -> None:
    sentences = [each.write("`{}`".format) for each in expected]
    shown = said(app)
    assert [sentence for sentence in sentences if sentence not in shown] == []
    assert len(links(app)) >= len(expected)


def test_what_stands_out_is_said_with_a_link(
    make_recording: Maker, tmp_path: Path, open_overview: Open
) -> None:
    recording = make_recording("cbam", accuracy=0.4)
    expected = [
        *highlights.confused_pairs(statistics.confusion_matrix(recording)),
        *highlights.weakest_classes(statistics.class_metrics(recording)),
    ]
    assert len(expected) == 4
    app = open_overview(tmp_path)
    assert_shown(app, expected)
    pages = [page for page, _ in links(app)]
    assert pages == ["confusion"] * 4 + ["usage"], "interventions are offered"
    assert all(query["run"] == "cbam%2Ftest" for _, query in links(app))
    assert [query.get("true") for _, query in links(app)[:3]] == [
        each.query["true"] for each in expected[:3]
    ]


def test_interventions_say_which_gates_could_be_constants(
    make_recording: Maker,
    tmp_path: Path,
    open_overview: Open,
    add_interventions: Callable[..., Path],
) -> None:
    recording = make_recording("cbam")
    add_interventions(recording)
    outcomes = find_outcomes(recording)
    assert outcomes is not None
    expected = [
        *highlights.gates_that_could_be_constants(usage_of(outcomes)),
        *highlights.all_gates_at_once(joint_of(outcomes)),
    ]
    assert len(expected) == 2
    app = open_overview(tmp_path)
    assert_shown(app, expected)
    assert [page for page, _ in links(app)][:2] == ["usage", "usage"]


def test_a_gate_that_never_moves_is_named(
    write_recording: Callable[..., Recording], tmp_path: Path, open_overview: Open
) -> None:
    write_recording("still", labels=np.arange(30) % 3, gates={"a *b*": np.full((30, 4), 0.5)})
    app = open_overview(tmp_path)
    assert any("`a *b*`" in sentence for sentence in said(app))
    assert ("channels", {"run": "still", "gate": "a+%2Ab%2A"}) in links(app)


def test_a_page_string_is_no_text_of_the_page(
    make_recording: Maker, tmp_path: Path, open_overview: Open
) -> None:
    """Streamlit shows strings that stand alone in a script."""
    make_recording("cbam")
    assert not any("->" in sentence for sentence in said(open_overview(tmp_path)))


@pytest.mark.browser
def test_a_sentence_links_to_its_images_and_back(
    make_recording: Maker, browse: Callable[[Path], Any], tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    recording = make_recording("poor", accuracy=0.3)
    first = highlights.confused_pairs(statistics.confusion_matrix(recording))[0]
    true, predicted = (recording.classes.index(name) for name in first.names)
    count = int(np.sum((recording.labels == true) & (recording.predictions == predicted)))
    page = browse(tmp_path)
    page.get_by_test_id("stSidebar").get_by_role("link", name="Overview").click()
    page.get_by_test_id("stMain").get_by_role("link", name="Images").first.click()
    expect(page.get_by_role("heading", name="Confusion matrix")).to_be_visible()
    main = page.get_by_test_id("stMain")
    expect(main.get_by_test_id("stImage")).to_have_count(min(count, 20))
    address = page.url
    page.go_back()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(main).to_contain_text("poor/test")
    page.goto(address)
    expect(main.get_by_test_id("stImage")).to_have_count(min(count, 20))
