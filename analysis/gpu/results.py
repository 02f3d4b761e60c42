"""The file of results: one line of JSON per row, and one per stage that ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results; none if there is no such file."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def append(file: Path, line: dict[str, Any]) -> None:
    """Add a line. It is on the disk when this function returns."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def drop_stage(file: Path, stage: str) -> None:
    """Remove the lines of a stage that is to run again."""
    kept = [line for line in read(file) if line["stage"] != stage]
    if file.is_file():
        file.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
