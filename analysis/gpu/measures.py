"""Rows of results, and times of alternating variants."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One measurement."""

    work: str
    """What was measured, a name of `attnscope`'s work that is unique in its stage."""
    value: float | None = None
    unit: str = ""
    ratio: float | None = None
    """Median over the rounds of the speed relative to the plain or bare work."""
    low: float | None = None
    """Smallest ratio of a round."""
    high: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values, without what it does not have."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def times(
    variants: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    calls: int = 1,
    warm_ups: int = 1,
) -> dict[str, list[float]]:
    """Return the seconds of a call in each round. The variants run in turn within a round.

    Args:
        variants: name -> function without arguments. Code with CUDA graphs is compiled by its
            first call and recorded by its second one, before the rounds.
        device: where they run.
        rounds: number of rounds.
        calls: number of calls of a variant in a round.
        warm_ups: number of calls of a variant before the rounds.
    """
    for run in variants.values():
        for _ in range(warm_ups):
            run()
    wait_for(device)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            began = time.perf_counter()
            for _ in range(calls):
                run()
            wait_for(device)
            seconds[name].append((time.perf_counter() - began) / calls)
    return seconds


def rows_of(
    seconds: Mapping[str, list[float]], images: int, names: Mapping[str, str], plain: str
) -> Iterator[Row]:
    """Yield images per second of variants and their ratio to one of them.

    Args:
        seconds: variant -> seconds of each round, as `times` returns them.
        images: number of images of a call.
        names: variant -> name of its row. Other variants have no row.
        plain: the variant to which the others are compared.
    """
    for variant, work in names.items():
        ratios = sorted(a / b for a, b in zip(seconds[plain], seconds[variant], strict=True))
        rate = images / statistics.median(seconds[variant])
        if variant == plain:
            yield Row(work, rate, "images/s")
        else:
            yield Row(work, rate, "images/s", statistics.median(ratios), ratios[0], ratios[-1])
