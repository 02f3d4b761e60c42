"""A run with a recording and interventions, which the tests of this folder damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analysis.attack import make_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images ``photos`` and the run ``run``. It must not be changed."""
    folder = tmp_path_factory.mktemp("base")
    make_base(folder)
    return folder


@pytest.fixture
def place(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    copy = tmp_path / "place"
    shutil.copytree(base, copy)
    monkeypatch.chdir(copy)
    return copy
