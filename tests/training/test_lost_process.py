"""A distributed training of which one process has ended says which one, and how to go on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import distributed

from attnscope.errors import LostProcess
from attnscope.training import processes
from attnscope.training.processes import join_process_group

_BROKEN = "[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:1"


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of a process that has ended, as that of rank 1 beside a living rank 2."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    others = {1: process.pid, 2: os.getpid()}
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(processes, "_other_processes", lambda device: others)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(distributed, name, lambda *arguments: None)
    return process.pid


@pytest.mark.parametrize("error", [RuntimeError(_BROKEN), KeyboardInterrupt()])
def test_the_rank_that_has_ended_is_named(dead: int, error: BaseException) -> None:
    with pytest.raises(LostProcess) as caught, join_process_group(torch.device("cpu")):
        raise error
    text = str(caught.value)
    assert f"rank 1 (process {dead})" in text
    assert "rank 2" not in text
    assert "--resume" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not match"),
        ValueError("Connection closed by peer"),
        KeyboardInterrupt("stopped after step 3; continue with --resume"),
    ],
)
def test_other_errors_and_a_training_that_was_stopped_stay_what_they_are(
    dead: int, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, join_process_group(torch.device("cpu")):
        raise error
    assert caught.value is error


def test_without_a_dead_process_on_this_machine_none_is_named(
    dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_other_processes", lambda device: {})
    with pytest.raises(LostProcess) as caught, join_process_group(torch.device("cpu")):
        raise RuntimeError(_BROKEN)
    assert "--resume" in str(caught.value)
    assert "rank" not in str(caught.value)


def test_a_process_that_nobody_has_collected_yet_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    if not Path("/proc").is_dir():
        pytest.skip("there is no /proc")
    end = time.monotonic() + 20
    while not processes._has_ended(process.pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert processes._has_ended(process.pid)
    process.wait()
    assert processes._has_ended(process.pid)
    assert not processes._has_ended(os.getpid())
