"""Run a check on one network after another, each in a process with limits, and keep the lines."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from analysis.coverage.networks import Network

Line = dict[str, Any]
"""What is known of one network: values of JSON."""
Check = Callable[[Network, float], Line]
"""``(network, largest number of parameters in millions)`` -> its line."""
Sources = Mapping[str, Callable[[], Iterator[Network]]]
"""Group -> its networks."""


def run_all(
    check: Check,
    found: Iterator[Network],
    out: Path,
    order: list[str],
    *,
    again: bool,
    seconds: int,
    gigabytes: float,
    millions: float,
) -> list[Line]:
    """Check the networks that have no line yet, and return all lines.

    A line is written when a network ends, so a stopped run continues where it was.

    Args:
        check: what is done with a network.
        found: the networks.
        out: the file of the results, with one line of JSON per network.
        order: the groups in the order of the file.
        again: whether networks run that have a line already.
        seconds: the limit of processor time of one network. Three times as much may pass.
        gigabytes: the limit of memory of one network.
        millions: the limit of parameters of one network, in millions.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    lines = read(out)
    for network in found:
        if network.name in lines and not again:
            continue
        line = limited(network, check, seconds, gigabytes, millions)
        lines[network.name] = line
        print(json.dumps(line), flush=True)
        write(out, lines, order)
    write(out, lines, order)
    return list(lines.values())


def read(file: Path) -> dict[str, Line]:
    """Return the lines of an earlier run by the name of their network."""
    if not file.is_file():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line["network"]: line for line in lines}


def write(file: Path, lines: dict[str, Line], order: list[str]) -> None:
    """Write the lines in the order of their networks."""
    file.parent.mkdir(parents=True, exist_ok=True)
    names = sorted(lines, key=lambda name: (order.index(name.partition("/")[0]), name))
    text = "".join(json.dumps(lines[name]) + "\n" for name in names)
    file.write_text(text, encoding="utf-8")


def networks_of(sources: Sources, only: str) -> Iterator[Network]:
    """Yield the networks whose names match a pattern."""
    for group, source in sources.items():
        if not fnmatch(group, only.partition("/")[0]):
            continue
        try:
            found = list(source())
        except ImportError as error:
            print(f"{group} is left out: {error}", file=sys.stderr)
            continue
        yield from (each for each in found if fnmatch(each.name, only))


def limited(
    network: Network, check: Check, seconds: int, gigabytes: float, millions: float
) -> Line:
    """Check a network in a process of its own, which has a limit of time and memory."""
    context = multiprocessing.get_context("fork")  # the packages are imported already
    receiver, sender = context.Pipe(duplex=False)
    limits = (seconds, gigabytes, millions)
    process = context.Process(target=_work, args=(network, check, sender, *limits))
    process.start()
    sender.close()
    line: Line = {"network": network.name}
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


def _work(
    network: Network, check: Check, sender: Any, seconds: int, gigabytes: float, millions: float
) -> None:
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
