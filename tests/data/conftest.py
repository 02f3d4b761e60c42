"""Data sets that several tests load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.making import write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set")
