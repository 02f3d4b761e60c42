"""What the folder of a page holds at first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import SERVER, environment, run_command, starts_with
from tests.docs.server import running
from tests.making import write_images

TRAIN = "attnscope train --data digits --width 16 --image-size 16 --epochs 2 --batch-size 64"


@pytest.fixture(scope="session", autouse=True)
def server() -> Iterator[None]:
    """Commands run in forks of one process that has imported the package."""
    with tempfile.TemporaryDirectory() as folder:  # short, because the path of a socket must be
        with running(Path(folder), environment()):
            SERVER.append(folder)
            yield
            SERVER.clear()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs/cbam`` and ``runs/se``, trained and captured."""
    folder = tmp_path_factory.mktemp("docs")
    for attention in ("cbam", "se"):
        run = f"runs/{attention}"
        command = f"{TRAIN} --attention {attention} --out {run} && attnscope capture {run}"
        run_command(["sh", "-ec", command], folder)
    return folder


@pytest.fixture
def page_folder(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Makes the folder in which a page runs."""

    def make(page: Path) -> Path:
        for name in starts_with(page):
            if name == "runs":
                shutil.copytree(request.getfixturevalue("prepared") / "runs", tmp_path / "runs")
            else:
                write_images(tmp_path / name)
        return tmp_path

    return make
