"""Compare the speed of two copies of the package, interleaved.

    python analysis/before_after.py --before OLD/src --rounds 9

Each copy runs in a process of its own that stays alive. In every round both do the same work, one
after the other, and they alternate in being first. The script prints the median over rounds of the
ratio before / after in seconds (above 1: after is faster), with the 95% interval of the median by
order statistics: for nine rounds, the second smallest to the second largest ratio (96%).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import tyro
from scipy import stats

WORK = ("train", "infer", "find", "watch", "capture", "grad_cam", "statistics", "probe")


@dataclass
class Arguments:
    """Options of this script."""

    before: Path
    """Folder that contains the older package ``attnscope``."""
    after: Path = Path(__file__).parents[1] / "src"
    """Folder that contains the newer package."""
    rounds: int = 9
    """Number of rounds."""
    turns: int = 1
    """How often both do the work in one round. Their seconds are summed."""
    work: tuple[str, ...] = field(default=WORK)
    """Work to measure: train, infer, find, watch, capture, grad_cam, statistics or probe."""
    scale: float = 1.0
    """Amount of work; below 1 for a quick test."""


def main(arguments: Arguments) -> None:
    """Measure both copies and print the ratios."""
    places = {"before": arguments.before, "after": arguments.after}
    processes = {name: start(place) for name, place in places.items()}
    names = list(processes)
    print("work         before s   after s   before / after, median (95% interval)")
    for work in arguments.work:
        ratios: list[float] = []
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(arguments.rounds + 1):
            taken = dict.fromkeys(names, 0.0)
            for turn in range(arguments.turns):
                for name in names if (number + turn) % 2 else names[::-1]:
                    taken[name] += ask(processes[name], work, arguments.scale)
            if number:  # the first round is a warm-up
                ratios.append(taken["before"] / taken["after"])
                for name in names:
                    seconds[name].append(taken[name])
        low, high = median_interval(np.array(ratios))
        before, after = (np.median(seconds[name]) for name in names)
        print(
            f"{work:12} {before:8.2f}  {after:8.2f}   {np.median(ratios):.3f} "
            f"({low:.3f} to {high:.3f})",
            flush=True,
        )
    for process in processes.values():
        process.terminate()


def median_interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Return the narrowest pair of order statistics that covers the median with at least 95%."""
    count, ordered = len(values), np.sort(values)
    rank = 1
    while 2 * stats.binom.cdf(rank, count, 0.5) <= 1 - 0.95:
        rank += 1
    return float(ordered[rank - 1]), float(ordered[count - rank])


def start(package: Path) -> subprocess.Popen[str]:
    """Start a process that works with one copy of the package."""
    environment = {**os.environ, "PYTHONPATH": str(package.resolve())}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


def ask(process: subprocess.Popen[str], work: str, scale: float) -> float:
    """Let a process do some work, and return the seconds that it took."""
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(json.dumps([work, scale]) + "\n")
    stdin.flush()
    line = stdout.readline()
    if not line:
        sys.exit(f"the process that measures '{work}' has ended; its error is above")
    return float(line)


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Do each requested work, and answer with the seconds that it took."""
    prepared: dict[tuple[str, float], Callable[[], object]] = {}
    for line in requests:
        work, scale = json.loads(line)
        with redirect_stderr(open(os.devnull, "w")):
            if (work, scale) not in prepared:
                prepared[work, scale] = prepare(work, scale)
            began = time.perf_counter()
            prepared[work, scale]()
            seconds = time.perf_counter() - began
        answers.write(f"{seconds}\n")
        answers.flush()


def prepare(work: str, scale: float) -> Callable[[], object]:
    """Return a function that does the work. Networks and data are made here and are not timed."""
    import torch

    from attnscope import build_model, capture, find_gates, statistics, watch_gates

    torch.manual_seed(0)
    model = build_model(attention="cbam").eval().to(memory_format=torch.channels_last)
    images = max(8, int(256 * scale))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(images, 3, 32, 32, generator=generator)
    labels = torch.arange(images) % 10
    if work == "train":
        return training(scale)
    if work in ("infer", "watch"):
        gates = find_gates(model, x[:4])

        def run() -> None:
            with torch.no_grad():
                for piece in torch.split(x, 64):
                    model(piece)

        def watched() -> None:
            with watch_gates(model, gates):
                run()

        return run if work == "infer" else watched
    if work == "find":
        return lambda: [find_gates(model, x[:4]) for _ in range(max(1, int(8 * scale)))]
    dataset: Any = torch.utils.data.TensorDataset(x, labels)
    folder = Path(tempfile.mkdtemp())

    def record(**options: Any) -> Any:
        out = folder / str(time.perf_counter_ns())
        return capture(
            model,
            dataset,
            out,
            classes=list("abcdefghij"),
            batch_size=64,
            progress=False,
            **options,
        )

    if work == "capture":
        return lambda: record(grad_cam_layers=())
    if work == "grad_cam":
        return lambda: record()
    recording = record()
    names = [gate.name for gate in recording.gates if gate.kind == "channel"]
    permutations = max(2, int(400 * scale))
    if work == "statistics":
        return lambda: [
            statistics.permuted_channel_effects(recording, name, permutations) for name in names
        ]
    return lambda: statistics.linear_probe(recording, max(2, int(8 * scale)))


def training(scale: float) -> Callable[[], object]:
    """Return a function that trains a small network in float32."""
    import torch

    from attnscope import build_model, load_data

    try:
        recipe = import_module("attnscope.training.recipes").RECIPES["fast"]
        fit = import_module("attnscope.training.fitting").fit
    except ImportError:  # attnscope 0.1
        recipe = import_module("attnscope.recipes").RECIPES["fast"]
        fit = import_module("attnscope.train").train
    data = load_data("digits")

    def run() -> None:
        torch.manual_seed(0)
        model = build_model(attention="cbam", width=16)
        out = Path(tempfile.mkdtemp()) / "run"
        fit(
            model, data, recipe, out,
            epochs=max(1, int(scale)), device="cpu", precision="fp32", progress=False,
        )  # fmt: skip

    return run


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # output of the package must not be mistaken for an answer
        serve(sys.stdin, answers)
    else:
        main(tyro.cli(Arguments, description=__doc__))
