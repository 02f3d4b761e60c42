"""Measure what `watch_gates` costs: CPU time of a watched forward over that of a bare one.

    python analysis/watch_cost.py [--before CHECKOUT] [--images 1 8] [--pixels 224]

The gates are found before, and given. With ``--before``, the checkout at that path is measured in
turn with this one, so that both meet the same machine. Networks of timm are needed.

Each number is the median over rounds of the ratio within one round, with the range of the middle
half. A round runs the network bare and watched in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ORDINARY = ("resnet18-cbam", "seresnet18", "seresnet50", "efficientnet_b0")
SMALL = ("regnety_002", "ghostnet_050", "ghostnet_100", "mobilenetv3_small_100", "osnet_x0_25")
HERE = Path(__file__).parents[1]


def measure(name: str, images: int, pixels: int, seconds: float) -> list[float]:
    """Return watched over bare, one ratio per round, in this process."""
    from attnscope.gates import find_gates, watch_gates

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(name)
    x = torch.randn(images, 3, pixels, pixels)
    gates = find_gates(model, x[:2])
    if not gates:
        raise SystemExit(f"{name} has no gates")

    def timed(run: Callable[[], object]) -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    ratios: list[float] = []
    with torch.inference_mode():
        model(x)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends or len(ratios) < 5:
            bare = [timed(lambda: model(x)) for _ in range(3)]
            with watch_gates(model, gates):
                model(x)
                watched = [timed(lambda: model(x)) for _ in range(3)]
            ratios.append(min(watched) / min(bare))
    return ratios


def build(name: str) -> nn.Module:
    """Return a network in eval mode: of attnscope, of timm, or OSNet, which is written here."""
    from attnscope import build_model

    if name == "resnet18-cbam":
        return build_model("resnet18", attention="cbam", stem="imagenet").eval()
    if name.startswith("osnet"):
        return osnet().eval()
    import timm

    return timm.create_model(name).eval()


def osnet() -> nn.Module:
    """Return a network of omni-scale blocks (Zhou et al. 2019) of the size of osnet_x0_25.

    Each block has four streams of depthwise convolutions, and one gate that all streams share.
    """

    def light(channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    class Gate(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
            self.relu, self.gate = nn.ReLU(), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            gate: Tensor = self.gate(self.fc2(self.relu(self.fc1(self.pool(x)))))
            return x * gate

    class Block(nn.Module):
        def __init__(self, inside: int, outside: int) -> None:
            super().__init__()
            middle = outside // 4
            self.reduce = nn.Sequential(
                nn.Conv2d(inside, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()
            )
            self.streams = nn.ModuleList(
                nn.Sequential(*(light(middle) for _ in range(depth))) for depth in (1, 2, 3, 4)
            )
            self.gate = Gate(middle)
            self.expand = nn.Sequential(
                nn.Conv2d(middle, outside, 1, bias=False), nn.BatchNorm2d(outside)
            )
            self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            reduced = self.reduce(x)
            mixed = sum(self.gate(stream(reduced)) for stream in self.streams)
            out: Tensor = self.relu(self.expand(mixed) + self.skip(x))
            return out

    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        nn.MaxPool2d(3, 2, 1),
        *(Block(16, 64), Block(64, 64), nn.AvgPool2d(2)),
        *(Block(64, 96), Block(96, 96), nn.AvgPool2d(2)),
        *(Block(96, 128), Block(128, 128)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 1000),
    )


def in_process(checkout: Path, name: str, images: int, pixels: int, seconds: float) -> list[float]:
    """Measure in a process of its own, with the sources of a checkout."""
    arguments = ["--one", name, str(images), str(pixels), str(seconds)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    ratios: list[float] = json.loads(done.stdout.splitlines()[-1])
    return ratios


def describe(ratios: list[float]) -> str:
    """Return the median and the middle half: ``1.10 (1.08 to 1.13)``."""
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Print one row of a Markdown table per network and number of images."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3, help="processes per checkout")
    parser.add_argument("--seconds", type=float, default=3.0, help="time of one process")
    parser.add_argument("--networks", nargs="+", default=[*ORDINARY, *SMALL])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, images, pixels, seconds = given.one
        print(json.dumps(measure(name, int(images), int(pixels), float(seconds))))
        return
    checkouts = {"after": HERE} if given.before is None else {"before": given.before, "after": HERE}
    print(f"| network | images of {given.pixels} pixels | {' | '.join(checkouts)} |")
    print(f"| --- | --- | {' | '.join('---' for _ in checkouts)} |")
    for name in given.networks:
        for images in given.images:
            found: dict[str, list[float]] = {each: [] for each in checkouts}
            for _ in range(given.rounds):
                for each, checkout in checkouts.items():
                    found[each] += in_process(
                        checkout, name, images, given.pixels, given.seconds / given.rounds
                    )
            row = " | ".join(describe(found[each]) for each in checkouts)
            print(f"| {name} | {images} | {row} |", flush=True)


if __name__ == "__main__":
    main()
