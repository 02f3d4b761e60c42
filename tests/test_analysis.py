"""The studies run as scripts, on recordings made by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from attnscope.cli import main
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


def test_features_svm(tmp_path: Path) -> None:
    """A trained network's features tell digits apart; an untrained file of weights does worse."""
    options = ["--data", "digits", "--attention", "none", "--width", "16", "--epochs", "2"]
    options += ["--device", "cpu", "--batch-size", "64", "--out", str(tmp_path / "run")]
    assert main(["train", *options]) == 0
    done = run("features_svm.py", "digits", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    *tried, last = done.stdout.splitlines()
    assert len(tried) == 4
    assert all("validation accuracy" in line for line in tried)
    accuracy = float(last.split("accuracy ")[1].split("%")[0])
    assert accuracy > 80, last
    best = max(tried, key=lambda line: float(line.split("accuracy ")[1].rstrip("%")))
    assert last.split("C = ")[1] == best.split("C = ")[1].split(":")[0]
    done = run("features_svm.py", "digits", "--weights", tmp_path / "none.pth")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
