"""Jobs of the dashboard: one at a time, with progress, cancelled, gone with the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attnscope.dashboard import jobs
from attnscope.dashboard.jobs import Job
from attnscope.errors import InputError
from tests.making import refused

WORK = """
import signal, subprocess, sys, time
from pathlib import Path
from attnscope.signals import end_with_parent
end_with_parent()
"""
SLEEP = "time.sleep(120)\n"
IGNORE = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
PATIENCE = 60

Begin = Callable[..., Job]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Starts a job that runs the given lines of Python."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    def start(lines: str = SLEEP, title: str = "Work", *arguments: str) -> Job:
        (tmp_path / "job_of_test.py").write_text(WORK + lines)
        return jobs.start(title, arguments, tmp_path, module="job_of_test")

    jobs.stop_all()
    yield start
    jobs.stop_all()


def until(condition: Callable[[], object]) -> None:
    for _ in range(20 * PATIENCE):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen")


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_a_job_runs_the_command_line_of_attnscope(tmp_path: Path) -> None:
    jobs.stop_all()
    job = jobs.start("Record it", ["capture", str(tmp_path / "a b")], tmp_path)
    assert jobs.current() is job or job.state != "running"
    assert job.wait(PATIENCE) == "failed"
    assert job.command == f"attnscope capture '{tmp_path / 'a b'}'"
    assert job.folder == tmp_path
    assert "AS530" in job.line
    assert job.progress is None
    assert jobs.current() is None
    assert jobs.latest() is job
    jobs.stop_all()
    assert jobs.latest() is None


def test_a_second_job_is_refused_while_one_runs(begin: Begin) -> None:
    first = begin(title="The first")
    with refused("AS980", names=("The first", "The second")):
        begin(title="The second")
    assert jobs.current() is first
    first.cancel()
    assert first.wait(PATIENCE) == "cancelled"
    second = begin("pass\n", "The second")
    assert second.wait(PATIENCE) == "done"
    assert second.number > first.number


def test_of_many_threads_one_starts(begin: Begin) -> None:
    started: list[Job] = []
    busy: list[str] = []
    together = threading.Barrier(8)

    def press() -> None:
        together.wait()
        try:
            started.append(begin())
        except InputError as error:
            busy.append(error.code)

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    assert busy == ["AS980"] * 7


@pytest.mark.parametrize(
    ("bar_format", "expected"),
    [
        (None, (40, 359)),
        ("{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}", (11, 100)),
    ],
)
def test_progress_is_that_of_the_last_bar(
    begin: Begin, bar_format: str | None, expected: tuple[int, int]
) -> None:
    job = begin(
        "from tqdm import tqdm\n"
        "for _ in tqdm(range(5), desc='1/2 first'): pass\n"
        f"bar = tqdm(total=359, desc='2/2 5%|x| 7/9 [', bar_format={bar_format!r}, unit='image')\n"
        "bar.update(40)\nbar.refresh()\ntime.sleep(120)\n"
    )
    until(lambda: job.progress == expected)
    assert job.state == "running"


def test_a_sum_of_shares_is_shown_in_whole_numbers(begin: Begin) -> None:
    job = begin("print(' 12%|#         | 43.25/359.0 [00:01<00:05, 9image/s]')\n")
    job.wait(PATIENCE)
    assert job.progress == (43, 359)


def test_the_last_line_is_the_error_and_its_control_characters_are_escaped(begin: Begin) -> None:
    job = begin(
        "print('result')\nprint('\\x1b[31mbad \\x07name\\x1b[0m', file=sys.stderr)\n"
        "print(end='  \\n\\r')\nsys.exit(2)\n"
    )
    assert job.wait(PATIENCE) == "failed"
    assert job.line == "bad \\x07name"


def test_a_long_output_is_read_from_its_end(begin: Begin) -> None:
    job = begin("print('x' * 10**6)\nprint('y' * 2000)\nprint('end')\n")
    job.wait(PATIENCE)
    assert job.line == "end"


def test_cancelling_lets_the_command_clean_up(begin: Begin, tmp_path: Path) -> None:
    job = begin(
        f"place = Path({str(tmp_path)!r})\n(place / 'half').touch()\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(120)\n"
        "except KeyboardInterrupt:\n    (place / 'half').unlink()\n    sys.exit(130)\n"
    )
    until(lambda: job.line == "ready")
    begun = time.monotonic()
    job.cancel()
    assert time.monotonic() - begun < 1, "a click does not wait"
    assert job.wait(PATIENCE) == "cancelled"
    assert not (tmp_path / "half").exists()
    assert not job.is_ending


def test_a_job_that_ignores_ctrl_c_gets_the_next_signal(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.3)
    job = begin(IGNORE + "print('ready', flush=True)\n" + SLEEP)
    until(lambda: job.line == "ready")
    job.cancel()
    assert job.is_ending
    assert job.wait(PATIENCE) == "cancelled"
    assert job._process.returncode == -signal.SIGTERM


def test_cancelling_ends_what_the_job_started(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.3)
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(120)"
    job = begin(
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, flush=True)\ntime.sleep(120)\n"
    )
    until(lambda: job.line.isdecimal())
    pid = int(job.line)
    job.cancel()
    assert job.wait(PATIENCE) == "cancelled"
    until(lambda: has_ended(pid))


def test_a_job_that_has_ended_is_not_cancelled(begin: Begin) -> None:
    job = begin("pass\n")
    job.wait(PATIENCE)
    job.cancel()
    assert job.state == "done"


SERVER = """
import sys, time
from pathlib import Path
from attnscope.dashboard import jobs
job = jobs.start("Work", [], Path("."), module="job_of_test")
while job.line != "ready":
    time.sleep(0.02)
print(job._process.pid, job._private.name, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("ending", ["ends", "is killed"])
def test_no_job_outlives_its_server(begin: Begin, tmp_path: Path, ending: str) -> None:
    (tmp_path / "job_of_test.py").write_text(WORK + "print('ready', flush=True)\n" + SLEEP)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, "0" if ending == "ends" else "120"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    pid, private = server.stdout.readline().split()
    if ending == "is killed":
        assert os.stat(private).st_mode & 0o077 == 0, "nobody else reads the output"
        server.kill()
    server.communicate(timeout=PATIENCE)
    until(lambda: has_ended(int(pid)))
    if ending == "ends":
        assert not Path(private).exists()


def test_ctrl_c_of_the_server_reaches_the_job_by_cancelling_only(begin: Begin) -> None:
    job = begin()
    assert os.getpgid(job._process.pid) == job._process.pid != os.getpgid(0)


def test_a_job_that_cannot_be_started_is_refused(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/python")
    with refused("AS981", names=("Work",)):
        begin()
    assert jobs.current() is None
