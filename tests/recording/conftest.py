"""A recording of three shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recording.making import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "recording")
