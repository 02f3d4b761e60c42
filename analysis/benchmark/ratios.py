"""Ratios of speed within one run, because the speed of a machine varies within seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleave(
    variants: Mapping[str, Callable[[], None]], images: int, rounds: int, warm_up: bool = True
) -> None:
    """Print images per second and the ratio to the first variant, as medians over the rounds.

    Each variant runs right after the first one, and right before it in every other round, because
    the speed of a machine varies within seconds.

    Args:
        variants: What to run, by name.
        images: Number of images that each of them takes.
        rounds: Number of rounds.
        warm_up: Whether each variant runs once before, for memory, kernels and caches.
    """
    for run in variants.values() if warm_up else ():
        run()
    first, *others = variants
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for number in range(rounds):
        for name in others:
            pair = (first, name) if number % 2 == 0 else (name, first)
            taken = {each: _seconds_of(variants[each]) for each in pair}
            for each in pair:
                seconds[each].append(taken[each])
            ratios[name].append(taken[first] / taken[name])
    print(f"{first:28} {images / statistics.median(seconds[first]):8.1f} images/s   ratio 1")
    for name, found in ratios.items():
        print(
            f"{name:28} {images / statistics.median(seconds[name]):8.1f} images/s   "
            f"ratio {statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
        )


def _seconds_of(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
