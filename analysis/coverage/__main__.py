"""Make the table of coverage: networks tried, their gates, and whether values and edits are right.

    python -m analysis.coverage --only 'timm/se*'

Run it from the root of the repository, in an environment with torch, torchvision, timm,
segmentation_models_pytorch, monai and ultralytics. Groups whose package is not installed are left
out. No weights are downloaded. Each network runs in a process with a limit of time and memory. A
line is written when a network ends, so a stopped run continues where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import tyro

from analysis.coverage import networks
from analysis.coverage.check import check
from analysis.coverage.page import render
from analysis.coverage.running import networks_of, run_all

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "coverage" / "networks.jsonl"
PAGE = ROOT / "docs" / "reference" / "coverage.md"


def main(
    out: Path = RESULTS,
    page: Path = PAGE,
    only: str = "*",
    tiny: bool = False,
    again: bool = False,
    seconds: int = 240,
    gigabytes: float = 8.0,
    millions: float = 150.0,
) -> None:
    """Check the networks that have no line yet, and write the page.

    Args:
        out: the file of the results, with one line of JSON per network.
        page: the page that is written from all lines of this file.
        only: a pattern of names, such as ``timm/*`` or ``*/seresnet*``.
        tiny: whether only five small networks run.
        again: whether networks run that have a line already.
        seconds: the limit of processor time of one network. Three times as much may pass.
        gigabytes: the limit of memory of one network.
        millions: the limit of parameters of one network, in millions.
    """
    found: Iterator[networks.Network]
    if tiny:
        found = (each for each in networks.tiny() if fnmatch(each.name, only))
    else:
        found = networks_of(networks.SOURCES, only)
    lines = run_all(
        check,
        found,
        out,
        list(networks.SOURCES),
        again=again,
        seconds=seconds,
        gigabytes=gigabytes,
        millions=millions,
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(lines), encoding="utf-8")
    print(page)


if __name__ == "__main__":
    tyro.cli(main)
