"""The most expensive operations of a piece of work, by torch.profiler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from analysis.gpu.measures import Row, wait_for

_LARGEST = 10


def largest(what: str, run: Callable[[], object], device: torch.device) -> Iterator[Row]:
    """Yield the ten operations that take most time by themselves, and the time of all.

    On a GPU this is the time on the GPU. The row of all operations also says how much time passed,
    so that it can be seen how long the GPU was idle.

    Args:
        what: start of the names of the rows.
        run: the work. It runs once before the profile.
        device: where it runs.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    run()
    wait_for(device)
    with profile(activities=activities) as found:
        began = time.perf_counter()
        run()
        wait_for(device)
        taken_by_all = time.perf_counter() - began
    entries = [
        (
            each.key,
            (each.self_device_time_total if on_gpu else each.self_cpu_time_total) / 1000,
            each.count,
        )
        for each in found.key_averages()
        # The time of a kernel is also that of the operation that launched it.
        if each.device_type.name == "CPU"
    ]
    entries = sorted((e for e in entries if e[1] > 0), key=lambda each: -each[1])
    total = sum(taken for _, taken, _ in entries)
    note = f"while {1000 * taken_by_all:.1f} ms passed"
    yield Row(f"{what}: all operations", total, "ms", note=note)
    for name, taken, count in entries[:_LARGEST]:
        yield Row(f"{what}: {name[:80]}", taken, "ms", note=f"{taken / total:.1%}, {count} calls")
