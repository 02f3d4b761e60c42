"""All help texts are as in ``snapshots/help.txt``.

To write the file again: ``ATTNSCOPE_UPDATE_SNAPSHOTS=1 pytest tests/commands/test_help.py``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from attnscope.commands.help_text import command_help
from attnscope.commands.main import find_commands, main

SNAPSHOT = Path(__file__).parent / "snapshots" / "help.txt"


@pytest.fixture(autouse=True)
def hundred_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def help_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_texts_are_those_of_the_snapshot(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [[], *([name] for name, _ in find_commands())]
    text = "\n".join(
        f"$ attnscope {' '.join([*command, '--help'])}\n\n{help_of(command, capsys)}"
        for command in commands
    )
    if os.environ.get("ATTNSCOPE_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8")


def test_no_line_is_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns, most in ((70, 70), (100, 100), (300, 100)):
        monkeypatch.setenv("COLUMNS", str(columns))
        for name, _ in find_commands():
            assert max(map(len, help_of([name], capsys).splitlines())) <= most


@dataclass(frozen=True)
class Base:
    """A base."""

    kept: int = 0
    """Kept text."""
    changed: str = "old"
    """Old text."""


@dataclass(frozen=True)
class Toy(Base):
    """Do something.

    In more words.
    """

    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {"Group": ("changed", "none")}

    changed: str = "new"
    """New text."""
    none: float | None = None
    """Default: a tenth."""
    silent: bool = False
    undocumented: tuple[str, ...] = ()


def test_help_is_made_of_docstrings_groups_and_defaults() -> None:
    sections = command_help(Toy, "toy").split("\n\n")
    assert sections[:3] == ["Usage: toy [OPTIONS]", "Do something.", "In more words."]
    assert [" ".join(line.split()) for line in sections[3].splitlines()] == [
        "Group:",
        "--changed TEXT New text. Default: new.",
        "--none FLOAT Default: a tenth.",
    ]
    assert [" ".join(line.split()) for line in sections[4].splitlines()][:4] == [
        "Options:",
        "--kept INT Kept text. Default: 0.",
        "--silent",
        "--undocumented TEXT [...]",
    ]


def test_the_exit_codes_name_the_exception_of_the_dashboard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with suppress(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Ctrl-C is how the dashboard ends, so that it exits with 0." in text
