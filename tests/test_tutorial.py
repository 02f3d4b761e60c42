"""docs/your-own-network.md, run as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attnscope.recording.outcomes import find_outcomes
from attnscope.recording.recording import Recording

PAGE = Path(__file__).parents[1] / "docs" / "your-own-network.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def run(command: list[str], folder: Path) -> str:
    # The commands of this Python, and the package under test.
    package = str(Path(__file__).parents[1] / "src")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([package, str(folder)])}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial")
    network, *_ = blocks("python")
    (folder / "mynet.py").write_text(network)
    weights, _ = blocks("sh")
    run(["sh", "-ec", weights], folder)
    return folder


def test_three_commands(folder: Path) -> None:
    _, commands = blocks("sh")
    assert commands.count("\n") == 3
    shown = run(["sh", "-ec", commands], folder)
    # The table on the page: its names and bounds are those that were printed, the ranges are not
    # compared, since the weights are random.
    (table,) = blocks("text")
    for line in table.splitlines()[2:]:
        cells = re.split(r" {2,}", line.strip())
        printed = next(
            p for p in shown.splitlines() if re.split(r" {2,}", p.strip())[:1] == cells[:1]
        )
        assert re.split(r" {2,}", printed.strip())[:6] == cells[:6]
    recording = Recording(folder / "captured" / "mynet")
    assert [(g.name, g.kind) for g in recording.gates] == [
        ("2", "channel"), ("2#2", "spatial"), ("6", "channel"), ("6#2", "spatial"),
    ]  # fmt: skip
    assert (folder / "captured/mynet/figures/attention_grid.png").is_file()


def test_ten_lines(folder: Path) -> None:
    _, captured, edited, intervened = blocks("python")
    assert len([line for line in captured.splitlines() if line]) <= 10
    check = "assert without.shape == (100, 10) and not torch.equal(without, model(images))\n"
    shown = run([sys.executable, "-c", captured + edited + check + intervened], folder)
    assert shown.startswith("2 channel [")
    recording = Recording(folder / "captured" / "again")
    assert len(recording) == 359
    outcomes = find_outcomes(recording)
    assert outcomes is not None
    assert set(outcomes.tables) == {"decoding", "effects"}
