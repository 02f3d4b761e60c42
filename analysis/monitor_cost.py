"""Measure what a monitor costs in a training: python analysis/monitor_cost.py; see --help.

One observation and some training steps take turns. The share of the training time is the time of
an observation over that of ``every`` training steps. CPU time is printed, too, because it is more
reliable on a machine with other work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import tyro
from torch import nn
from torch.nn import functional as F

from attnscope import GateMonitor
from attnscope.networks.build import build_model
from attnscope.networks.targets import load_target
from attnscope.training.devices import choose_device

BUILT_IN = "resnet18-"


def measure(
    network: str,
    size: int,
    batch_size: int,
    images: int,
    every: int = 100,
    rounds: int = 3,
    steps: int = 1,
    compiled: bool = False,
) -> tuple[float, float]:
    """Return the median share of the training time, by the clock and by CPU time.

    Args:
        network: ``resnet18-KIND`` for attention of that kind, or a target such as ``timm:NAME``.
        size: height and width of the images, in pixels.
        batch_size: images of a training step.
        images: images that the monitor shows to the network.
        every: steps between two observations.
        rounds: how often an observation is measured.
        steps: training steps that are measured in each round.
        compiled: compile the network that is trained.
    """
    device = choose_device("auto")
    torch.manual_seed(0)
    if network.startswith(BUILT_IN):
        model = build_model(attention=network.removeprefix(BUILT_IN))
    else:
        model = load_target(network, 10).model
    model = model.to(device).train()
    trained: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x = torch.randn(batch_size, 3, size, size, device=device)
    y = torch.randint(0, 10, (batch_size,), device=device)
    labels = torch.arange(images) % 10
    monitor = GateMonitor(trained, torch.randn(images, 3, size, size), labels, every=1)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(trained(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def timed(work: Callable[[], object]) -> tuple[float, float]:
        began, used = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, time.process_time() - used

    train()  # warm-up
    shares: list[tuple[float, ...]] = []
    seconds = []
    for _ in range(rounds):
        step, observation = timed(train), timed(monitor.step)
        pairs = zip(observation, step, strict=True)
        shares.append(tuple(seen / (every * taken / steps) for seen, taken in pairs))
        seconds.append((step[0] / steps, observation[0]))
    clock, busy = ([each[i] for each in shares] for i in (0, 1))
    step_seconds, seen_seconds = (statistics.median(each[i] for each in seconds) for i in (0, 1))
    print(
        f"{network:24} {size:3} pixels, batch {batch_size:3}, {images:2} images, "
        f"{len(monitor.gates):2} gates, every {every}: "
        f"step {step_seconds:.3f} s, observation {seen_seconds:.3f} s, share "
        f"{statistics.median(clock):.2%} ({min(clock):.2%} to {max(clock):.2%}), "
        f"of the CPU time {statistics.median(busy):.2%}",
        flush=True,
    )
    return statistics.median(clock), statistics.median(busy)


def main(every: int = 100, rounds: int = 3, tiny: bool = False, compiled: bool = False) -> None:
    """Print the cost of a monitor for some networks.

    Args:
        every: steps between two observations.
        rounds: how often an observation is measured.
        tiny: one small network only, to try the script.
        compiled: compile the networks that are trained.
    """
    cases = [
        ("resnet18-cbam", 32, 128, 64),
        ("resnet18-se", 32, 128, 64),
        ("timm:seresnet50", 224, 8, 16),
        ("timm:efficientnet_b0", 224, 8, 16),
    ]
    if tiny:
        cases = [("resnet18-se", 16, 4, 4)]
    for network, size, batch_size, images in cases:
        measure(network, size, batch_size, images, every, rounds, compiled=compiled)


if __name__ == "__main__":
    tyro.cli(main)
