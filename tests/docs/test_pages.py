"""Every page that teaches runs as it is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, LANGUAGES, blocks, run_page

TAUGHT = sorted(
    path for folder in ("howto", "add", "tutorials") for path in (DOCS / folder).glob("*.md")
)
NOT_RUN = {
    "add/command.md": 1,
    "howto/cluster.md": 3,
    "howto/compare.md": 1,
    "howto/dashboard.md": 1,
    "howto/masks.md": 1,
    "howto/remote-dashboard.md": 7,
    "howto/report.md": 1,
    "howto/train.md": 2,
    "howto/your-network.md": 1,
    "tutorials/first-network.md": 1,
}
"""Page -> how many of its blocks cannot run in a test."""
ELSEWHERE = {
    "tutorials/first-network.md",
    "tutorials/monitor.md",
    "tutorials/signals.md",
    "tutorials/unet-scse.md",
    "tutorials/your-own-network.md",
    "add/command.md",
    "add/dashboard-page.md",
}
"""Pages that test_tutorials.py runs, with checks of their own."""


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


RUN_HERE = [page for page in TAUGHT if name_of(page) not in ELSEWHERE]


@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
def test_a_page_runs_as_it_is_written(page: Path, page_folder: Callable[[Path], Path]) -> None:
    if any(block.steps for block in blocks(page)):
        run_page(page, page_folder(page))


def test_blocks_that_do_not_run_are_counted() -> None:
    counted = {
        name_of(page): sum(block.marker == "not run" for block in blocks(page)) for page in TAUGHT
    }
    assert {name: count for name, count in counted.items() if count} == NOT_RUN


@pytest.mark.parametrize("page", TAUGHT, ids=name_of)
def test_every_block_has_a_language_that_is_run_or_shown(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = blocks(page)
    for block in found:
        shown = {"text", "toml"}
        assert block.language in {*LANGUAGES, *shown} or block.language.startswith("{code-cell}")
    # A marker whose block was not read would be lost.
    assert len(re.findall(r"^<!-- (?:file|not run):", text, re.M)) == sum(
        bool(block.marker) for block in found
    )
