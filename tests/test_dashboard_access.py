"""What visitors of the dashboard may do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attnscope.dashboard_access import actions_allowed, script_arguments


@pytest.mark.parametrize("allowed", [True, False])
def test_pages_know_whether_work_may_be_started(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = script_arguments(Path("runs"), actions=allowed)
    assert given[0] == "runs"
    monkeypatch.setattr(sys, "argv", ["app.py", *given])
    assert actions_allowed() is allowed


def test_a_folder_cannot_be_taken_for_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = script_arguments(Path("runs"), actions=False)[1]
    monkeypatch.setattr(sys, "argv", ["app.py", *script_arguments(Path(folder), actions=True)])
    assert actions_allowed()
