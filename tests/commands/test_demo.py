"""The demo: two networks, their interventions, a folded network, figures and a report."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from attnscope.commands import demo
from attnscope.commands.main import main
from attnscope.dashboard import serve
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from tests.making import refused_command


def test_demo_trains_records_and_reports_two_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A script that runs all checks names a folder, and uses the demo again.
    out = Path(os.environ.get("ATTNSCOPE_DEMO", tmp_path / "demo"))
    assert main(["demo", "--out", str(out), "--width", "16", "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].endswith(f"attnscope dashboard {out} --open")
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == {"se", "cbam", "fold"}
    for kind in ("se", "cbam"):
        recording = Recording(out / kind)
        right = (recording.labels == recording.predictions).mean()
        assert summary[kind]["test_accuracy"] == pytest.approx(right)
        assert summary[kind]["test_images"] == len(recording) == 359
        assert summary[kind]["seconds_per_step"] > 0
        assert {"decodable_and_used.png", "gates_over_training.png"} <= {
            file.name for file in (out / kind / "figures").iterdir()
        }
    before, after = Run(out / "cbam").model(), Run(out / "cbam-folded").model()
    assert len(after.attnscope_config.folded) == summary["fold"]["gates"] == 16
    assert summary["fold"]["parameters"] == sum(p.numel() for p in after.parameters())
    assert summary["fold"]["parameters"] < sum(p.numel() for p in before.parameters())
    assert (out / "report.html").is_file()
    assert str(out) + "." not in (out / "report.html").read_text(), "a temporary folder"
    refused_command(capsys, "AS113", "demo", "--out", out, names=(out,))


def test_demo_opens_the_dashboard_on_a_port_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[object, ...]] = []

    def note(folder: Path, port: int, *, open_browser: bool) -> int:
        served.append((folder, port, open_browser))
        return 7

    monkeypatch.setattr(serve, "serve", note)
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        monkeypatch.setattr(serve.free_port, "__defaults__", (used.getsockname()[1],))
        assert demo._show(tmp_path) == 7
        ((folder, port, open_browser),) = served
        assert (folder, open_browser) == (tmp_path, True)
        assert port not in (0, used.getsockname()[1])
