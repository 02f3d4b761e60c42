"""Data sets that several tests load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.making import fill


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "set")
