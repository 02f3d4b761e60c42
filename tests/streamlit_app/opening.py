"""Opens a page of the dashboard without a browser."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.dashboard.access import script_arguments

LOOK_ONLY = script_arguments(Path(), actions=False)[1:]
"""Words of the script where visitors may only look."""
APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"


def open_view(
    monkeypatch: pytest.MonkeyPatch, folder: Path, page: str, *words: str, **address: str
) -> AppTest:
    """Open a page as its address does.

    Args:
        monkeypatch: of pytest.
        folder: what the dashboard shows.
        page: name of a file in views.
        words: further arguments of the script.
        address: the query of the address.
    """
    monkeypatch.setattr(sys, "argv", [str(APP), str(folder), *words])
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.query_params["run"] = address["run"]
    app.run()
    app.switch_page(f"views/{page}.py")
    for name, value in address.items():
        app.query_params[name] = value
    return app.run()


def assert_no_error(app: AppTest) -> None:
    """Nothing failed, and nothing was refused."""
    assert [error.message for error in app.exception] == []
    assert [error.value for error in app.error] == []


def assert_one_error(app: AppTest, *names: str) -> None:
    """One line says what is wrong, and names these things."""
    assert [error.message for error in app.exception] == []
    (error,) = app.error
    assert "\n" not in error.value
    for name in names:
        assert name in error.value
