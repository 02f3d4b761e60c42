"""attnscope beside its peers on the same work: python -m analysis.peers NAME; --help lists them.

The peers are installed with ``pip install grad-cam torchcam nnsight timm``; what is missing is
skipped and said. The table of docs/explanation/comparison.md is made from the results.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import tyro

from analysis.peers.families import check_families
from analysis.peers.tools import TOOLS

MODULES = {
    "Captum": "captum",
    "pytorch-grad-cam": "pytorch_grad_cam",
    "torchcam": "torchcam",
    "timm": "timm",
    "nnsight": "nnsight",
}
"""Tool -> the module that it is imported from."""
FEW = 256
"""Images of the run before the measured one, so that imports and caches are not measured."""


def speed(
    images: int = 10_000,
    width: int = 16,
    rounds: int = 3,
    only: tuple[str, ...] = (),
    out: Path | None = None,
) -> None:
    """Measure images per second, peak memory and lines of code of the same work with each tool.

    Each round runs every tool once, in a process of its own. Times include everything that a tool
    does, also writing files.

    Args:
        images: number of images, of 32 × 32 random pixels.
        width: channels of layer1 of the ResNet18 with CBAM.
        rounds: number of rounds.
        only: names of the tools; default all that are installed.
        out: JSON file for the results.
    """
    missing = {tool for tool, module in MODULES.items() if not importlib.util.find_spec(module)}
    for tool in sorted(missing):
        print(f"{tool} is not installed and is left out", file=sys.stderr)
    tools = [tool for tool in only or TOOLS if tool not in missing]
    seconds: dict[str, list[float]] = {tool: [] for tool in tools}
    memory: dict[str, list[float]] = {tool: [] for tool in tools}
    for _ in range(rounds):
        for tool in tools:
            command = [sys.executable, "-m", "analysis.peers", "one", "--tool", tool]
            command += ["--images", str(images), "--width", str(width)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds[tool].append(found["seconds"])
            memory[tool].append(found["mebibytes"])
            print(f"{tool}: {found}", file=sys.stderr, flush=True)
    results: dict[str, dict[str, Any]] = {
        tool: {
            "seconds": seconds[tool],
            "mebibytes": memory[tool],
            "lines": lines_of(tool),
            "ratio": statistics.median(
                mine / base for mine, base in zip(seconds[tool], seconds[tools[0]], strict=True)
            ),
        }
        for tool in tools
    }
    if out is not None:
        about = {"images": images, "width": width, "torch": torch.__version__}
        out.write_text(json.dumps({"about": about, "tools": results}, indent=1) + "\n")
    print(f"| tool | images/s | time relative to {tools[0]} | peak memory (MiB) | lines |")
    print("| --- | --- | --- | --- | --- |")
    for tool, row in results.items():
        rate = images / statistics.median(row["seconds"])
        print(
            f"| {tool} | {rate:.0f} | {row['ratio']:.2f} | "
            f"{statistics.median(row['mebibytes']):.0f} | {row['lines']} |"
        )


def one(tool: str, images: int, width: int) -> None:
    """Run one tool in this process and print seconds and peak memory as JSON.

    The memory is what the work adds to the process that holds network and images.
    """
    from attnscope.networks.build import build_model

    torch.manual_seed(0)
    pixels, labels = torch.rand(images, 3, 32, 32), torch.arange(images) % 10

    def run(count: int) -> float:
        model = build_model(attention="cbam", width=width).eval()
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            TOOLS[tool](model, pixels[:count], labels[:count], Path(folder))
            return time.perf_counter() - start

    run(FEW)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again (man 5 proc)
    before = _status("VmRSS")
    seconds = run(images)
    print(json.dumps({"seconds": seconds, "mebibytes": _status("VmHWM") - before}))


def _status(name: str) -> float:
    """Return a size of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the system does not tell {name}")


def lines_of(tool: str) -> int:
    """Return the number of lines of a tool's function, without its head and docstring."""
    source = inspect.getsource(TOOLS[tool]).splitlines()
    start = next(i for i, line in enumerate(source) if line.lstrip().startswith('"""'))
    return sum(1 for line in source[start + 1 :] if line.strip())


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"speed": speed, "one": one, "families": check_families}, description=__doc__
    )
