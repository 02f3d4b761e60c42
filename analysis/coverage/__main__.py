"""Make the table of coverage: networks tried, their gates, and whether values and edits are right.

    python -m analysis.coverage --only 'timm/se*'

Run it from the root of the repository, in an environment with torch, torchvision, timm,
segmentation_models_pytorch, monai and ultralytics. Groups whose package is not installed are left
out. No weights are downloaded. Each network runs in a process with a limit of time and memory. A
line is written when a network ends, so a stopped run continues where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import tyro

from analysis.coverage.check import check
from analysis.coverage.networks import SOURCES, Network, tiny
from analysis.coverage.page import render

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
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    lines = read(out)
    for network in networks(only, tiny):
        if network.name in lines and not again:
            continue
        line = limited(network, seconds, gigabytes, millions)
        lines[network.name] = line
        print(json.dumps(line), flush=True)
        write(out, lines)
    write(out, lines)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(list(lines.values())), encoding="utf-8")
    print(page)


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of an earlier run by the name of their network."""
    if not file.is_file():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line["network"]: line for line in lines}


def write(file: Path, lines: dict[str, dict[str, Any]]) -> None:
    """Write the lines in the order of their networks."""
    file.parent.mkdir(parents=True, exist_ok=True)
    order = list(SOURCES)
    names = sorted(lines, key=lambda name: (order.index(name.partition("/")[0]), name))
    text = "".join(json.dumps(lines[name]) + "\n" for name in names)
    file.write_text(text, encoding="utf-8")


def networks(only: str, tiny_only: bool) -> Iterator[Network]:
    """Yield the networks whose names match a pattern."""
    if tiny_only:
        yield from (each for each in tiny() if fnmatch(each.name, only))
        return
    for group, source in SOURCES.items():
        if not fnmatch(group, only.partition("/")[0]):
            continue
        try:
            found = list(source())
        except ImportError as error:
            print(f"{group} is left out: {error}", file=sys.stderr)
            continue
        yield from (each for each in found if fnmatch(each.name, only))


def limited(network: Network, seconds: int, gigabytes: float, millions: float) -> dict[str, Any]:
    """Check a network in a process of its own, which has a limit of time and memory."""
    context = multiprocessing.get_context("fork")  # the packages are imported already
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(network, sender, seconds, gigabytes, millions))
    process.start()
    sender.close()
    line: dict[str, Any] = {"network": network.name}
    try:
        line = (
            receiver.recv()
            if receiver.poll(3 * seconds)
            else line | {"skipped": f"takes more than {3 * seconds} seconds"}
        )
    except EOFError:
        process.join()
        exceeded = process.exitcode == -signal.SIGXCPU
        line |= {
            "skipped": f"takes more than {seconds} seconds of processor time"
            if exceeded
            else "the process ended without a result"
        }
    process.kill()
    process.join()
    return line


def _work(network: Network, sender: Any, seconds: int, gigabytes: float, millions: float) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, 2 * seconds))
    try:
        line = check(network, millions)
    except Exception as error:  # a network, or attnscope, may raise anything
        line = {"network": network.name}
        if isinstance(error, MemoryError) or "memory" in str(error):
            line["skipped"] = f"takes more than {gigabytes:g} GB"
        else:
            traceback.print_exc()
            line["wrong"] = [f"{type(error).__name__}: {error}".splitlines()[0][:200]]
    sender.send(line)


if __name__ == "__main__":
    tyro.cli(main)
