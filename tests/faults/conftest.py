"""A run with a recording and interventions, which the tests of this folder damage."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def in_new_process(code: str, *arguments: object) -> str:
    """Run code that uses `analysis.attack`, and return what it prints.

    Commands of an attack run in forks. torch refuses gradients in a fork of a process in which
    other tests have started the threads of its autograd engine.
    """
    call = [sys.executable, "-c", f"import sys\nfrom analysis.attack import *\n{code}"]
    done = subprocess.run(
        [*call, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images ``photos`` and the run ``run``. It must not be changed."""
    folder = tmp_path_factory.mktemp("base")
    in_new_process("make_base(Path(sys.argv[1]))", folder)
    return folder


@pytest.fixture
def place(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    copy = tmp_path / "place"
    shutil.copytree(base, copy)
    monkeypatch.chdir(copy)
    return copy
