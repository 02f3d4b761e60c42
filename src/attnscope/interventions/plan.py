"""What interventions cost, before they are run: forwards and minutes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from attnscope.gates.hooks import edit_gates
from attnscope.interventions.ablation import DRAWS, ROUND, SHARES, ablatable_gates
from attnscope.interventions.channel_losses import ORDERS
from attnscope.interventions.combinations import pair_targets, sufficiency_targets
from attnscope.interventions.concepts import CONCEPT_DRAWS, erasable_gates
from attnscope.interventions.constants import choice_rows, reruns_of_choice
from attnscope.interventions.donors import DEFAULT_EDITS, runs_of
from attnscope.interventions.erasing import orders_of, reruns_of_order
from attnscope.interventions.randomization import CALIBRATION_IMAGES
from attnscope.interventions.replay import PrefixCache, observe_calls
from attnscope.interventions.setup import InterventionSetup, Target
from attnscope.kinds import HAS_NEUTRAL
from attnscope.notebook import html_page, html_table, number_of

SUBSAMPLES = {"ablate": (10, 50), "concept": (2, 100), "erase": (5, 100), "randomize": (2, 250)}
"""Experiment -> (divisor, minimum): experiments that run the network many times for each image use
only a part of the scored images, but at least the minimum if there are that many."""
_REINITIALIZATIONS, _STEPS = 3, 10  # the defaults of randomize and erase
_FIRST_IMAGES = 4  # number of images of the first timed forward
_ENOUGH_SECONDS = 0.25  # a forward that takes this long is timed well enough
_PROBE_PERMUTATIONS, _PERMUTATIONS = 200, 1000  # the defaults of decode
_DECODE_OPERATIONS = 30e9
"""Operations per second of `decode`, measured on one core; only the order of magnitude matters."""


@dataclass(frozen=True)
class Cost:
    """What one experiment costs."""

    experiment: str
    images: int
    """Number of images on which it is measured."""
    forwards: int
    """Number of times that the network runs on one image, from the first changed gate on."""
    whole: float
    """The same work in complete forwards: work before the changed gate is shared."""
    seconds: float
    at_most: bool = False
    """Whether the experiment may stop earlier."""

    def __str__(self) -> str:
        time_taken = f"about {_duration(self.seconds)}"
        if not self.forwards:
            return f"{self.experiment}: no forward passes, {time_taken}"
        most = "at most " if self.at_most else ""
        return (
            f"{self.experiment}: {number_of(self.images, 'image')}, {most}{self.forwards:,} "
            f"forward passes of one image (as much work as {self.whole:,.0f} complete passes), "
            f"{most}{time_taken}"
        )


@dataclass(frozen=True)
class Plan:
    """What interventions cost: one `Cost` for each experiment that is not finished yet."""

    costs: Sequence[Cost]
    images: int
    """Number of scored images."""
    device: str
    notes: Sequence[str] = ()
    """What a user should know, such as why there are fewer images."""

    @property
    def seconds(self) -> float:
        """Time for all experiments together, in seconds."""
        return sum(cost.seconds for cost in self.costs)

    def lines(self) -> list[str]:
        """Return one line for each experiment, and one line for each note."""
        lines = [str(cost) for cost in self.costs]
        if len(lines) > 1:
            lines.append(f"together: about {_duration(self.seconds)} on {self.device}")
        return [*lines, *self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines()) or "every experiment is finished"

    def _repr_html_(self) -> str:
        rows = [
            (c.experiment, c.images, c.forwards, round(c.whole), _duration(c.seconds))
            for c in self.costs
        ]
        columns = ("Experiment", "Images", "Forward passes", "As complete passes", "Time")
        return html_page(f"Plan on {self.device}", html_table(columns, rows))


@dataclass(frozen=True)
class Timing:
    """How long a network takes, for one image."""

    whole: float
    """Seconds of a complete forward."""
    edited: float
    """Seconds of a complete forward with edited gates."""
    before: dict[str, float]
    """Name of a gate -> the share of a forward that had ended before the gate was made, 0 to 1."""
    shortest: float | None = None
    """Seconds of a forward from the last gate on. None: the share of ``edited``."""

    def seconds_after(self, gates: Sequence[str]) -> float:
        """Return the seconds of a forward that begins where the first of these gates is made.

        What does not depend on the modules, such as taking their outputs from the cache, is part of
        the shortest forward. Between that and a complete one, time is linear in the share.
        """
        share, least = self.after(gates), 1 - max(self.before.values())
        if self.shortest is None or least == 1:
            return self.edited * share
        return self.shortest + (self.edited - self.shortest) * (share - least) / (1 - least)

    def after(self, gates: Sequence[str]) -> float:
        """Return the share of a forward that is repeated if these gates are changed, 0 to 1."""
        return 1 - min(self.before[gate] for gate in gates)


def time_network(setup: InterventionSetup) -> Timing:
    """Time a few forwards of a network: complete, with edited gates, and module by module.

    Args:
        setup: The network and its images.
    """
    count = min(_FIRST_IMAGES, setup.batch_size)
    largest = min(setup.batch_size, len(setup.scored))
    with setup.eval_without_gradients():
        while True:
            x = next(setup.batches(setup.scored[:count])).x
            setup.model(x)  # memory, kernels and caches
            whole = _seconds(partial(setup.model, x), setup.device)
            if whole > _ENOUGH_SECONDS or count >= largest:
                break
            count = min(4 * count, largest)
        whole = min(whole, _seconds(partial(setup.model, x), setup.device))
        order = observe_calls(setup.model, x)
        with _timed_calls(setup.model, setup.device) as seconds:
            total = _seconds(partial(setup.model, x), setup.device)
        before = {
            gate.name: min(
                1.0, sum(seconds.get(call, 0.0) for call in order.before([gate])) / total
            )
            for gate in setup.gates
        }
        edits = {gate.name: lambda gate, features: gate for gate in setup.gates}
        with edit_gates(setup.model, edits, setup.gates):
            edited = min(_seconds(partial(setup.model, x), setup.device) for _ in range(2))
        last = max(before, key=lambda name: before[name])
        cache = PrefixCache(setup.model, setup.gates, [(last,)])
        cache.forward(x)
        cache.rerun({last: edits[last]})
        again = partial(cache.rerun, {last: edits[last]})
        shortest = min(_seconds(again, setup.device) for _ in range(2))
    edited = max(edited, whole)
    return Timing(whole / len(x), edited / len(x), before, min(shortest, edited) / len(x))


def plan_experiments(
    setup: InterventionSetup,
    experiments: Sequence[str],
    *,
    edits: Sequence[str] = DEFAULT_EDITS,
    timing: Timing | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Return what experiments cost with their default settings.

    Args:
        setup: The network and its images.
        experiments: Some of `attnscope.interventions.EXPERIMENTS`.
        edits: The edits of ``replace``.
        timing: From `time_network`, which is called otherwise.
        notes: Lines for `Plan.notes`.
    """
    timing = timing or time_network(setup)
    costs = [_COSTS[name](setup, timing, edits) for name in experiments]
    return Plan(
        [cost for cost in costs if cost is not None], len(setup.scored), str(setup.device), notes
    )


def subsample(setup: InterventionSetup, experiment: str) -> int:
    """Return how many scored images an experiment uses at most."""
    divisor, least = SUBSAMPLES.get(experiment, (1, 1))
    return max(least, len(setup.scored) // divisor)


def images_within(
    setup: InterventionSetup, timing: Timing, edits: Sequence[str], seconds: float
) -> int:
    """Return on how many of the scored images ``replace`` can be measured within some time.

    Args:
        setup: The network and its images.
        timing: From `time_network`.
        edits: The edits of ``replace``.
        seconds: The time.
    """
    every = _replace(setup, timing, edits)
    if every.seconds <= seconds:
        return len(setup.scored)
    first = sum(timing.seconds_after(target.gates) for target in setup.targets())
    first *= min(setup.batch_size, len(setup.scored))
    per_image = (every.seconds - first) / len(setup.scored)
    return max(1, int((seconds - first) / per_image))


def _decode(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost:
    recording = setup.recording
    images, classes = len(recording), len(recording.classes)
    operations = 0.0
    for gate in setup.gates:
        units = recording.gate(gate.name, slice(0, 1)).size
        rank = min(units, images)
        permuted = 2 * images * units * classes * (_PERMUTATIONS + 2 * _PROBE_PERMUTATIONS)
        operations += permuted + 4 * images * units * rank + 20 * rank**3
    return Cost("decode", images, 0, 0, operations / _DECODE_OPERATIONS)


def _replace(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost:
    return _of_targets("replace", setup, timing, edits, setup.targets())


def _sufficiency(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost | None:
    targets = sufficiency_targets(setup)
    return _of_targets("sufficiency", setup, timing, ["constant"], targets) if targets else None


def _pairs(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost | None:
    targets = pair_targets(setup)
    return _of_targets("pairs", setup, timing, ["constant"], targets) if targets else None


def _of_targets(
    experiment: str,
    setup: InterventionSetup,
    timing: Timing,
    edits: Sequence[str],
    targets: Sequence[Target],
) -> Cost:
    """Return what edits of targets cost."""
    gates = {gate.name: gate for gate in setup.gates}
    runs = sum(len(runs_of(edit)) for edit in edits)
    images, chosen = len(setup.scored), 0
    if "constant" in edits:
        chosen = len(choice_rows(setup))
    # The first batch verifies that shared work changes nothing.
    first = min(setup.batch_size, chosen or images)
    # Constants of several gates need a second complete forward at most.
    passes = 1 + any(len(target.gates) > 1 for target in targets)
    forwards = images + chosen * passes
    whole, seconds = float(forwards), forwards * timing.edited
    for target in targets:
        has_neutral = all(gates[name].has(HAS_NEUTRAL) for name in target.gates)
        count = images * (runs - ("neutral" in edits and not has_neutral)) + first
        count += chosen * reruns_of_choice([target], gates)
        forwards += count
        whole += count * timing.after(target.gates)
        seconds += count * timing.seconds_after(target.gates)
    # A constant that is an edit by itself, such as the mean, is not run again.
    return Cost(experiment, images, forwards, whole, seconds, at_most=bool(chosen))


def _concept(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost | None:
    gates = [gate.name for gate in erasable_gates(setup)[0]]
    if not gates:
        return None
    images = min(subsample(setup, "concept"), len(setup.scored))
    reruns, first = 1 + CONCEPT_DRAWS, min(setup.batch_size, images)
    after = sum(timing.after([gate]) for gate in gates)
    each = sum(timing.seconds_after([gate]) for gate in gates)
    return Cost(
        "concept",
        images,
        images * (1 + reruns) * len(gates) + first * len(gates),
        images * (len(gates) + reruns * after) + first * after,
        images * (len(gates) * timing.edited + reruns * each) + first * each,
    )


def _ablate(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost | None:
    gates = ablatable_gates(setup)
    if not gates:
        return None
    images = min(subsample(setup, "ablate"), len(setup.scored))
    reruns = 1 + len(SHARES) * (len(ORDERS) + DRAWS)
    # Each gate begins with a complete forward, and so does each round of its draws.
    complete = len(gates) * (1 + -(-DRAWS // ROUND))
    first = min(setup.batch_size, images)
    after = sum(timing.after([gate]) for gate in gates)
    each = sum(timing.seconds_after([gate]) for gate in gates)
    return Cost(
        "ablate",
        images,
        images * (complete + reruns * len(gates)) + first * len(gates),
        images * (complete + reruns * after) + first * after,
        images * (complete * timing.edited + reruns * each) + first * each,
        at_most=True,
    )


def _erase(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost:
    images = min(subsample(setup, "erase"), len(setup.scored))
    forwards = images * (3 + len(orders_of(setup)) * reruns_of_order(_STEPS))
    return Cost("erase", images, forwards, forwards, forwards * timing.whole)


def _randomize(setup: InterventionSetup, timing: Timing, edits: Sequence[str]) -> Cost:
    images = min(subsample(setup, "randomize"), len(setup.scored))
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in setup.model.modules())
    each = images + (min(CALIBRATION_IMAGES, int(setup.donors.sum())) if norms else 0)
    networks = 2 * _REINITIALIZATIONS
    whole = networks * each * sum(timing.before.values())
    forwards = networks * each * len(setup.gates)
    return Cost("randomize", images, forwards, whole, whole * timing.edited)


_COSTS: dict[str, Callable[[InterventionSetup, Timing, Sequence[str]], Cost | None]] = {
    "decode": _decode,
    "replace": _replace,
    "concept": _concept,
    "sufficiency": _sufficiency,
    "pairs": _pairs,
    "ablate": _ablate,
    "erase": _erase,
    "randomize": _randomize,
}


def _duration(seconds: float) -> str:
    """Return a time in words: ``5 seconds``, ``1.2 minutes``, ``3.4 hours``."""
    if seconds < 60:
        whole = max(1, round(seconds))
        return f"{whole} second{'' if whole == 1 else 's'}"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _timed_calls(model: nn.Module, device: torch.device) -> Iterator[dict[tuple[str, int], float]]:
    """Measure the seconds of each call of a module, by its path and number, within the block."""
    seconds: dict[tuple[str, int], float] = {}
    began: dict[str, list[tuple[int, float]]] = {}
    counts: Counter[str] = Counter()
    handles = []

    def start(path: str) -> None:
        _wait(device)
        began.setdefault(path, []).append((counts[path], time.perf_counter()))
        counts[path] += 1

    def end(path: str) -> None:
        _wait(device)
        number, since = began[path].pop()
        seconds[path, number] = time.perf_counter() - since

    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda *_, path=path: start(path)))
            handles.append(module.register_forward_hook(lambda *_, path=path: end(path)))
        yield seconds
    finally:
        for handle in handles:
            handle.remove()
