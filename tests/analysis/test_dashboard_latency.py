"""The dashboard is measured through its real server."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis import dashboard_latency
from analysis.dashboard_latency import Size, _plan
from attnscope.recording.recording import Recording

VIEWS = Path(__file__).parents[2] / "streamlit_app" / "views"


def test_every_page_is_visited_and_clicked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Size(classes=3, each=8).write(tmp_path / "runs")
    assert len(Recording(tmp_path / "runs/two").gates) == 16
    dashboard_latency.report("small", tmp_path / "runs", clicks=2)
    printed = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:2] == "| "][2:]
    assert len({row[0] for row in rows}) == len(rows) == len(list(VIEWS.glob("*.py")))
    for page, first, complete, cpu, clicks, median, high, whole, *_ in rows:
        assert 0 < float(first) <= float(complete) < 600, page
        assert 0 <= float(cpu) < 600, page
        if int(clicks):
            assert 0 < float(median) <= float(high) <= float(whole), page
    assert sum(int(row[4]) for row in rows) > 5
    assert re.search(r"^\d+ MiB, at most \d+ MiB$", printed, re.M)
    assert "shows an error" not in printed


class FakeVisitor:
    """A page with one control, which never offers what it is set to."""

    def __init__(self) -> None:
        self.set_to = "a"
        self.clicked: list[str] = []

    @property
    def widgets(self) -> dict[str, SimpleNamespace]:
        return {"view": SimpleNamespace(key="view")}

    def choices(self, name: str) -> tuple[str, ...]:
        return tuple(each for each in "abcd" if each != self.set_to)


def test_each_choice_of_a_control_is_clicked_once() -> None:
    visitor = FakeVisitor()
    for _, choice in _plan(visitor, "page", "", 40):  # type: ignore[arg-type]
        visitor.set_to = str(choice)
        visitor.clicked.append(visitor.set_to)
    assert visitor.clicked == ["b", "c", "d"]


def test_a_wide_recording_has_as_many_channels_as_asked_for(tmp_path: Path) -> None:
    Size(classes=4, each=2, channels=32).write(tmp_path)
    recording = Recording(tmp_path / "one")
    assert len(recording) == 8
    assert [gate.channels for gate in recording.gates] == [32, 32]
    assert recording["layer4.0.attention.channel"].shape == (8, 32)
