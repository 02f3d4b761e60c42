"""Signals end a command with one line and their exit code; ignored ones stay ignored."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attnscope.commands import main as main_module
from attnscope.commands.main import main
from attnscope.errors import InputError
from attnscope.signals import PARENT, exit_code, interrupting_signals, was_interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_with_its_exit_code_and_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # a shell may let this process ignore it
    cleaned = []

    def work(arguments: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            cleaned.append(number)

    monkeypatch.setattr(main_module, "_run", work)
    try:
        assert main(["inspect"]) == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert cleaned == [number]
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_waits_for_the_end_of_an_import_and_a_second_one_does_not(
    signals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that catches everything while it is imported cannot hide the signal."""
    number, name = int(signal.SIGTERM), f"slow_module_{signals}"
    end = tmp_path / "end of the import"
    (tmp_path / f"{name}.py").write_text(
        "import os, time\n"
        "try:\n"
        f"    os.kill(os.getpid(), {number})\n"
        "    time.sleep(0.2)\n"
        "except:\n"
        "    pass\n" + f"os.kill(os.getpid(), {number})\n" * (signals - 1) + "time.sleep(0.2)\n"
        f"open({str(end)!r}, 'w').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reached = []

    def work(arguments: object) -> None:
        importlib.import_module(name)
        time.sleep(10)
        reached.append("the end of the work")

    monkeypatch.setattr(main_module, "_run", work)
    before = signal.getsignal(signal.SIGALRM)
    assert main(["inspect"]) == 128 + number
    assert reached == []
    assert end.exists() == (signals == 1)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_in_an_import_that_ends_the_work_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"import os\nos.kill(os.getpid(), {int(signal.SIGTERM)})\n"
    (tmp_path / "last_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(main_module, "_run", lambda _: importlib.import_module("last_module") and 0)
    assert main(["inspect"]) == 128 + signal.SIGTERM


def test_an_error_that_a_library_made_of_a_signal_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(arguments: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise InputError("AS343", "the file is damaged; take another one") from None

    monkeypatch.setattr(main_module, "_run", work)
    assert main(["inspect"]) == 128 + signal.SIGTERM


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(main_module, "_run", lambda _: os.kill(os.getpid(), signal.SIGHUP))
    try:
        assert main(["inspect"]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_works_for_another_one_ends_with_it(tmp_path: Path) -> None:
    child = "from attnscope.signals import end_with_parent; end_with_parent(); import time; "
    child += f"open({str(tmp_path / 'begun')!r}, 'w').close(); time.sleep(60)"
    parent = (
        "import os, subprocess, sys, time; "
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], "
        f"env={{**os.environ, {PARENT!r}: str(os.getpid())}}); print(p.pid, flush=True); "
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        process.kill()
    ends = time.monotonic() + 20
    while _lives(number) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not _lives(number)


def _lives(process: int) -> bool:
    """Whether a process runs; one that has ended may still wait to be collected."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


SLOW = """
import os, signal, sys, time
from importlib.abc import MetaPathFinder

class Slow(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "attnscope.lazy":
            os.kill(os.getpid(), NUMBER)
            time.sleep(0.2)
            print("went on", flush=True)

sys.meta_path.insert(0, Slow())
signal.signal(NUMBER, signal.SIG_DFL)  # a shell may let this process ignore it
import attnscope
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_program_is_starting_ends_it_with_one_line(
    number: int, tmp_path: Path
) -> None:
    for name in ("attnscope", "other"):  # the program, and one that imports the library
        (tmp_path / name).write_text(SLOW.replace("NUMBER", str(int(number))))
    arguments = [sys.executable, str(tmp_path / "attnscope")]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 128 + number
    assert (ended.stdout, ended.stderr) == ("", "attnscope: interrupted\n")
    other = [sys.executable, str(tmp_path / "other")]
    ended = subprocess.run(other, capture_output=True, text=True, check=False)
    assert ended.returncode == -number
    assert "attnscope:" not in ended.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_is_ignored_while_the_program_is_starting(
    number: int, tmp_path: Path
) -> None:
    """As SIGHUP is under nohup."""
    text = SLOW.replace("NUMBER", str(int(number))).replace("SIG_DFL", "SIG_IGN")
    (tmp_path / "attnscope").write_text(text)
    arguments = [sys.executable, str(tmp_path / "attnscope")]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "went on\n", "")


def test_an_error_of_a_library_that_was_interrupted_is_the_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(arguments: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ImportError("half a library") from None

    monkeypatch.setattr(main_module, "_run", work)
    assert main(["inspect"]) == 128 + signal.SIGTERM
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_same_error_without_a_signal_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(arguments: object) -> None:
        raise ImportError("a library is missing")

    monkeypatch.setattr(main_module, "_run", work)
    with pytest.raises(ImportError):
        main(["inspect"])


def test_signals_outside_the_main_thread_are_left_to_the_main_thread() -> None:
    def work() -> bool:
        with interrupting_signals():
            return was_interrupted()

    before = [signal.getsignal(number) for number in SIGNALS]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result(10) is False
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_exit_code_is_that_of_the_signal_that_came_in_this_command() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), interrupting_signals():
            signal.raise_signal(signal.SIGTERM)
        assert was_interrupted()
        assert exit_code() == 128 + signal.SIGTERM
        with interrupting_signals():  # the next command in the same process
            assert not was_interrupted()
            assert exit_code() == 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)
