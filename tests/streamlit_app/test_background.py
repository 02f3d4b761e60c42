"""What takes longer than a click does not hold up a page."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest
from streamlit.runtime import Runtime
from streamlit.testing.v1 import AppTest

from tests.streamlit_app.opening import APP

sys.path.insert(0, str(APP.parent))
import background

WORK = ModuleType("work_of_test")
"""What the page calls. It is found by name, because Streamlit runs the text of a page anew."""


def page() -> None:
    import background
    import streamlit as st
    import work_of_test

    if background.ready("the answer", work_of_test.compute):
        st.text(f"answer: {work_of_test.compute()}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "get_instance", lambda: object.__new__(Runtime))
    monkeypatch.setattr(background, "_works", {})
    monkeypatch.setitem(sys.modules, "work_of_test", WORK)


@pytest.mark.usefixtures("server")
def test_visitors_share_a_computation_and_see_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, calls = threading.Event(), []

    def compute() -> int:
        if len(calls) < 1:
            calls.append(threading.current_thread())
            assert calls[0].daemon, "a server that is stopped does not wait for it"
            assert go_on.wait(60)
        return 42

    monkeypatch.setattr(WORK, "compute", compute, raising=False)
    visitors = [AppTest.from_function(page, default_timeout=60).run() for _ in range(2)]
    for visitor in visitors:
        assert not visitor.text
        assert "Computing" in visitor.markdown[0].value
    assert len(calls) == 1, "it is computed once"
    (work,) = background._works.values()
    go_on.set()
    assert work.ended.wait(60)
    for visitor in visitors:
        visitor.run()
        assert [text.value for text in visitor.text] == ["answer: 42"]
        assert not visitor.markdown
    assert not background._works


@pytest.mark.usefixtures("server")
def test_what_is_refused_is_met_by_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute() -> int:
        raise ValueError("no answer")

    monkeypatch.setattr(WORK, "compute", compute, raising=False)
    visitor = AppTest.from_function(page, default_timeout=60).run()
    while visitor.markdown:  # a busy machine may begin late
        visitor.run()
    assert [error.message for error in visitor.exception] == ["no answer"]


def test_without_a_server_a_page_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.0)
    monkeypatch.setitem(sys.modules, "work_of_test", WORK)
    began = threading.Event()
    monkeypatch.setattr(WORK, "compute", lambda: began.wait(0.3), raising=False)
    visitor = AppTest.from_function(page, default_timeout=60).run()
    assert [text.value for text in visitor.text] == ["answer: False"]
