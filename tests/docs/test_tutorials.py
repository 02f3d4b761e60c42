"""What the tutorials and the pages on adding say is what happens."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnscope.gate_history import GateHistory
from attnscope.recording.recording import Recording
from tests.docs.pages import DOCS, ROOT, blocks, run_command, run_page

Maker = Callable[[Path], Path]
COMMAND = """
import attnscope.commands
attnscope.commands.__path__.append(".")  # where the page's file would lie in a clone
from attnscope.commands.main import main
assert main(["classes", "runs/cbam", "--worst", "2"]) == 0
"""
DASHBOARD = """
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("streamlit_app/app.py", default_timeout=120)
sys.argv = ["streamlit_app/app.py", "runs"]
app.run()
app.switch_page("views/classes.py").run()
assert not app.exception, app.exception
assert not app.error, app.error
print(len(app.dataframe), app.title[0].value)
"""


def test_your_own_network_is_recorded(tmp_path: Path) -> None:
    page = DOCS / "tutorials" / "your-own-network.md"
    check = "assert before > 0.8, before\nassert float(loss.detach()) < 1\n"
    shown = run_page(page, tmp_path, after=check)
    recording = Recording(tmp_path / "captured" / "mynet")
    assert [(g.name, g.kind) for g in recording.gates] == [
        ("3", "channel"), ("3#2", "spatial"), ("8", "channel"), ("8#2", "spatial"),
    ]  # fmt: skip
    assert len(recording) == 359
    # The command records the same network and images.
    again = Recording(tmp_path / "captured" / "again")
    assert [g.name for g in again.gates] == [g.name for g in recording.gates]
    assert (again.predictions == recording.predictions).all()
    # Its table names the same gates.
    assert [line.split()[:2] for line in shown.splitlines() if " sigmoid " in line] == [
        [gate.name, gate.kind] for gate in recording.gates
    ]


def test_the_gates_of_a_u_net_are_recorded(tmp_path: Path) -> None:
    check = (
        "from attnscope import edit_gates\n"
        "assert overlap() > 0.95\n"
        "with edit_gates(model, {gate.name: mean_gate for gate in groups['all channel']}):\n"
        "    assert overlap() < 0.8\n"  # the page says that they are worth about half
    )
    shown = run_page(DOCS / "tutorials" / "unet-scse.md", tmp_path, after=check)
    masks = Recording(tmp_path / "captured" / "masks")
    assert [gate.kind for gate in masks.gates] == ["channel", "spatial"] * 5
    assert not masks.has_scores
    assert "AS618" in shown
    shapes = Recording(tmp_path / "captured" / "shapes")
    assert shapes.right.mean() > 0.9
    assert shapes.grad_cam_layers == ["bottom"]
    for gate in masks:
        np.testing.assert_array_equal(masks[gate.name], shapes[gate.name])


def test_the_gates_of_signals_are_recorded_and_replaced(tmp_path: Path) -> None:
    check = (
        "probe = statistics.linear_probe(recording, permutations=20).set_index('gate')\n"
        "assert probe.balanced_accuracy['8'] > 0.85\n"  # the page says so
        "assert (effects[effects.edit == 'swap_other'].change > -0.1).all()\n"
        "assert half < whole - 0.1\n"
    )
    run_page(DOCS / "tutorials" / "signals.md", tmp_path, after=check)
    recording = Recording(tmp_path / "captured" / "tones")
    assert [gate.kind for gate in recording.gates] == ["channel", "channel", "sequence"]
    assert recording.right.mean() > 0.9
    assert recording.image(0).shape == (64, 128, 3)


def test_the_gates_are_observed_in_a_plain_loop(tmp_path: Path) -> None:
    check = "assert float(loss.detach()) < 1\nassert figure.caption\n"
    run_page(DOCS / "tutorials" / "monitor.md", tmp_path, after=check)
    history = GateHistory.read(tmp_path / "gates.jsonl")
    assert history.steps.tolist() == [*range(0, 127, 10)]
    assert [gate.kind for gate in history.gates] == ["channel", "spatial"] * 2
    assert (history.values("distance")[-1] > 0.05).any()
    assert any((tmp_path / "tensorboard").iterdir())


def test_the_first_network_learns_and_is_drawn(tmp_path: Path) -> None:
    run_page(DOCS / "tutorials" / "first-network.md", tmp_path)
    recording = Recording(tmp_path / "runs" / "cbam")
    assert len(recording.gates) == 16
    assert recording.right.mean() > 0.9
    for name in ("gate_state", "attention_grid", "gate_profiles"):  # the page names them
        assert (tmp_path / f"runs/cbam/figures/{name}.png").stat().st_size > 0
    assert (tmp_path / "report.html").stat().st_size > 0


def test_the_command_of_the_page_runs(page_folder: Maker) -> None:
    page = DOCS / "add" / "command.md"
    folder = page_folder(page)
    shown = run_page(page, folder, after=COMMAND)
    assert len(shown.strip().splitlines()) == 3  # a heading and two classes


def test_the_dashboard_page_is_shown(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, line = blocks(DOCS / "add" / "dashboard-page.md")
    shutil.copytree(prepared / "runs", tmp_path / "runs")
    shutil.copytree(ROOT / "streamlit_app", tmp_path / "streamlit_app")
    (tmp_path / "streamlit_app/views/classes.py").write_text(view.text)
    app = tmp_path / "streamlit_app/app.py"
    before, figures, after = app.read_text().partition('st.Page("views/figures.py"')
    app.write_text(f"{before}{line.text.strip()}\n            {figures}{after}")
    done = run_command([sys.executable, "-c", DASHBOARD], tmp_path)
    assert done.stdout.split() == ["1", "Classes"]
