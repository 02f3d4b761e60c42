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
NETWORK = """\
from torch import nn


class SE(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels))

    def forward(self, x):
        return x * self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]


def network(classes=2):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        SE(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )
"""
"""A reader's own network, for images of two classes."""


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
            elif name == "mynet":
                (tmp_path / "mynet.py").write_text(NETWORK, encoding="utf-8")
                script = (
                    "import mynet, torch; torch.save(mynet.network().state_dict(), 'mynet.pth')"
                )
                run_command([f"{SERVER[0]}/run-code", script], tmp_path)
            else:
                write_images(tmp_path / name)
        return tmp_path

    return make
