"""What takes most time of a piece of work: operations, by torch.profiler, and code of the host."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from torch.profiler import ProfilerActivity, profile

from analysis.gpu.measures import Row, wait_for

_LARGEST = 10
_SAMPLED = 0.002  # seconds between two looks at the host's threads


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


def host_time(what: str, run: Callable[[], object], device: torch.device) -> Iterator[Row]:
    """Yield where the threads of the host are most of the time: shares of all looks at a thread.

    A look sees the innermost function of attnscope. It also sees threads that wait: for the device,
    the disk, another thread or the lock of the interpreter.

    Args:
        what: start of the names of the rows.
        run: the work. It runs once before.
        device: where it runs.
    """
    run()
    wait_for(device)
    main, ended, looks = threading.get_ident(), threading.Event(), 0
    seen: Counter[str] = Counter()

    def look() -> None:
        nonlocal looks
        own = threading.get_ident()
        while not ended.wait(_SAMPLED):
            looks += 1
            for thread, frame in sys._current_frames().items():
                if thread != own and (place := _place_of(frame)):
                    seen[f"{'network' if thread == main else 'other threads'}: {place}"] += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        run()
        wait_for(device)
    finally:
        ended.set()
        watcher.join()
    for place, count in seen.most_common(_LARGEST):
        yield Row(f"{what}, {place}", 100 * count / max(looks, 1), "%")


def _place_of(frame: FrameType | None) -> str:
    """Return the innermost function of attnscope that a thread is in, or an empty string."""
    while frame is not None:
        _, _, file = frame.f_code.co_filename.rpartition("/attnscope/")
        if file != frame.f_code.co_filename:
            return f"{file}, {frame.f_code.co_name}"
        frame = frame.f_back
    return ""
