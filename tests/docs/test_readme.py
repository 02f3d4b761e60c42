"""The commands of the README run as they are written."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from attnscope.runs import Run
from tests.docs.pages import ROOT, SERVER, Block, blocks, environment, run_command

README = ROOT / "README.md"
TEST_COMMAND = re.compile(r"^<!-- the test command -->\n```sh\n(.*?)^```$", re.M | re.S)
GIVEN = """\
import torch
from attnscope import build_model, load_data

data = load_data("digits", image_size=16)
images = data.normalization.apply(data.test.images[:4])
dataset = torch.utils.data.TensorDataset(
    data.normalization.apply(data.test.images[:120]), data.test.labels[:120]
)
model = build_model("resnet18", attention="cbam", width=16)
"""
"""The names that the README says are the reader's."""
SEEN = """\
assert values[gates[0].name].shape == (4, 16), values
assert recording[gates[0].name, :100].shape == (100, 16)
assert len(recording) == 120
"""


def test_only_the_installation_and_the_test_command_are_run_elsewhere() -> None:
    found = blocks(README)
    run = [block for block in found if block.steps]
    assert len(run) == 7
    (test_command,) = TEST_COMMAND.findall(README.read_text(encoding="utf-8"))
    (installation,) = (block for block in found if block.marker == "not run")
    assert [block.text for block in found if block not in run] == [installation.text]
    environment, torch, attnscope = installation.text.splitlines()
    assert "activate" in environment, "before anything is installed into it"
    assert "/whl/cpu" in torch, "the small one, before attnscope would install the large one"
    assert attnscope == "pip install -q ."
    assert [block.text for block in run if "pip" in block.text] == [test_command]
    assert test_command.count("\n") == 1


def run_here(*titles: str) -> list[Block]:
    """The blocks of some sections."""
    sections = re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.M)
    texts = [section for title in titles for section in sections if section.startswith(title)]
    assert len(texts) == len(titles)
    return [block for block in blocks(README) if any(block.text in text for text in texts)]


def run_block(block: Block, folder: Path) -> None:
    """Run the lines of a block of commands; each dashboard until it answers."""
    for line in block.text.splitlines():
        if line.startswith("attnscope dashboard"):
            expect_answer(line.split()[1:], folder)
        else:
            run_command(["bash", "-euo", "pipefail", "-c", line], folder)


def expect_answer(command: list[str], folder: Path) -> None:
    """Start a dashboard on a free port, wait until it answers, and stop it as Ctrl-C does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "attnscope", *command, "--port", str(port)]
    with subprocess.Popen(
        words, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, f"{command} ended"
                try:
                    place = f"http://127.0.0.1:{port}/_stcore/health"
                    with urllib.request.urlopen(place, timeout=10) as answer:
                        assert answer.read() == b"ok"
                        break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            else:
                raise AssertionError(f"{command} did not answer")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_the_two_commands_and_the_three_uses(tmp_path: Path) -> None:
    for block in run_here("Two commands", "Three uses"):
        run_block(block, tmp_path)
    assert Run(tmp_path / "runs/cbam").result["test"]["accuracy"] > 0.9
    assert (tmp_path / "runs/cbam/figures/attention_grid.pdf").is_file()
    assert (tmp_path / "report.html").is_file()
    assert Run(tmp_path / "runs/cbam").interventions("test") is not None
    assert 1 <= len(Run(tmp_path / "runs/se-folded").model().attnscope_config.folded) <= 8


def test_your_own_network_in_three_commands(
    tmp_path: Path, page_folder: Callable[[Path], Path]
) -> None:
    page_folder(README)
    shell, python = run_here("Your own network")
    run_block(shell, tmp_path)
    analyzed = tmp_path / "analyzed"
    assert [gate.name for gate in Run(analyzed).recording("test").gates] == ["2"]
    for name in ("report.html", "statistics/gate_state.csv", "figures/gate_state.png"):
        assert (analyzed / name).is_file(), name
    assert Run(analyzed).interventions("test") is not None
    assert "layer" not in python.text, "the network is the reader's"
    command = [f"{SERVER[0]}/run-code", GIVEN + python.text + SEEN]
    run_command(command, tmp_path)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_links_and_pictures_exist(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).is_file(), target
