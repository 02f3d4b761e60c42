"""The studies run as scripts, on recordings made by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from attnscope.recording import Recording
from attnscope.statistics import compare_accuracy

ANALYSIS = Path(__file__).parents[1] / "analysis"


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ANALYSIS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_attention_figures_of_every_run(
    make_recording: Callable[..., Recording], tmp_path: Path
) -> None:
    make_recording("a")
    make_recording("b", spatial=False)
    done = run("attention_figures.py", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name in ("a", "b"):
        assert (tmp_path / "out" / name / "recordings" / "test" / "channel_gates.png").is_file()
    done = run("attention_figures.py", tmp_path / "nothing")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)


def test_se_vs_cbam(make_recording: Callable[..., Recording], tmp_path: Path) -> None:
    a = make_recording("se", spatial=False, accuracy=0.9, count=90)
    b = make_recording("cbam", accuracy=0.3, seed=1, count=90)
    out = tmp_path / "out"
    done = run("se_vs_cbam.py", a.folder, b.folder, "--out", out)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(out / "accuracy.csv")
    pd.testing.assert_frame_equal(written, compare_accuracy(a, b), check_dtype=False)
    assert (out / "report.html").is_file()
    assert (out / "per_class_grad_cam.pdf").is_file()
    done = run("se_vs_cbam.py", a.folder, b.folder, "--out", out)
    assert done.returncode == 2
    assert "exists already" in done.stderr
