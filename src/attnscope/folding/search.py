"""Choose gates that can be constant, so that the loss of accuracy stays within a tolerance.

The images that order the gates are not those that test them. One half of the validation split
orders the gates, which makes nested sets: the first gate, the first two, and so on. The other half
tests the sets from the smallest to the largest, each at 5%: the null hypothesis is that the loss of
accuracy is at least the tolerance. The first set that fails ends the choice, and the last one that
passed is chosen. Whatever the order, a set that loses more than the tolerance is then chosen with a
probability of at most 5%: the first such set in the sequence would have to pass its own test (fixed
sequence testing, as in Learn then Test, Angelopoulos et al. 2021, arXiv:2110.01052).

Channels of these gates can be removed in the same sequence: after some of the gates, constants up
to a threshold become 0, then those up to a larger one. The first half decides where these steps
are, too, so that the same holds for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int64

from attnscope.folding.outcomes import NO_GATES, Outcome, Outcomes
from attnscope.shapes import Array
from attnscope.statistics.inference import LEVEL, paired_accuracy_change
from attnscope.statistics.noninferiority import paired_loss_p, sufficient_images
from attnscope.statistics.splits import stratified_folds

_STEPS = 10
"""Losses are ordered in steps of this share of the tolerance: smaller differences are noise."""
_TOGETHER = 4
"""Number of sets that share one pass over the images. The last ones may turn out not needed."""
_HALVES = 10
"""Largest number of random halves over which the choice is repeated."""


@dataclass(frozen=True)
class Trial:
    """One gate of a choice. Losses are in percentage points of accuracy."""

    gate: str
    alone: float | None
    """Loss on the first half if this gate alone is constant; None if that half has no image."""
    joint: float | None
    """Loss on the second half if this gate and all before it are constant; None if the choice ended
    before."""
    p: float | None
    """p value of that loss: the null hypothesis is that it is at least the tolerance."""
    kept: bool
    """Whether the gate was chosen."""


@dataclass(frozen=True)
class Pruning:
    """A step of a choice in which small constants of the folded gates become 0."""

    below: float
    """Constants up to this size become 0."""
    after: int
    """Number of gates before this step in the sequence."""
    joint: float | None
    """Loss on the second half in percentage points, with these gates constant; None if the choice
    ended before, or if the first half speaks against this step."""
    p: float | None
    """As for `Trial`."""
    kept: bool
    """Whether the step was taken. It then applies to the gates behind it, too."""


@dataclass(frozen=True)
class Choice:
    """Gates that were chosen on one half of the images and tested on the other half."""

    trials: list[Trial]
    """The gates in the order of the sets."""
    ordering: int
    """Number of images in the first half, which ordered the gates."""
    testing: int
    """Number of images in the second half, which tested the sets."""
    sufficient: int | None
    """About how many images of both halves would show that the set that failed is within the
    tolerance, if the changes are those that were seen; None if its loss was not within it, or if no
    set failed."""
    pruning: list[Pruning] = field(default_factory=list)
    """The steps in which constants become 0, from the smallest threshold to the largest."""

    @property
    def below(self) -> float:
        """The size up to which constants become 0; 0 if no such step was taken."""
        return max((step.below for step in self.pruning if step.kept), default=0.0)

    @property
    def kept(self) -> list[str]:
        """The gates that were chosen."""
        return [trial.gate for trial in self.trials if trial.kept]


@dataclass(frozen=True)
class Stability:
    """How much a choice depends on the halves."""

    halves: int
    """Number of other halves on which the choice was repeated."""
    jaccard: float
    """Mean of the Jaccard similarity of any two of the chosen sets, 0 to 1, with the reported one.
    Two empty sets are equal."""
    shares: dict[str, float]
    """Name of a gate -> the share of all choices that contain it, 0 to 1."""


def in_points(tolerance: float) -> str:
    """Return a tolerance with its unit: ``1 percentage point``, ``0.5 percentage points``."""
    return f"{tolerance:g} percentage point{'' if tolerance == 1 else 's'}"


def choose_gates(
    outcomes: Outcomes,
    names: Sequence[str],
    tolerance: float,
    first: Bool[Array, " images"],
    pruned: Mapping[float, Outcomes] | None = None,
) -> Choice:
    """Choose gates that can be constant together.

    The first half of the images orders the gates by the upper end of the 95% interval of the loss
    if each alone is constant. Then they are added one by one. A gate with which the end of that
    interval for all of them exceeds the tolerance is moved behind all that do not. The second half
    tests the sets in this order.

    Steps in which small constants become 0 follow on the gates that together lose at most half of
    the tolerance on the first half, and at least on the first one. They go up to the threshold with
    which the end of the interval on the first half exceeds the tolerance. All other gates come
    after them.

    Args:
        outcomes: Outcomes of the network on the images.
        names: The gates, in the order in which they are applied. Gates with about equal losses are
            tried from the last to the first, because most of the network is then shared.
        tolerance: Largest accepted loss of accuracy, in percentage points above 0.
        first: ``(N,)``, the images of the first half. All others are the second half.
        pruned: Size up to which constants become 0, above 0 -> outcomes of the network with such
            constants. Default: none become 0.

    Returns:
        The choice; it may contain no gate.
    """
    order, alone, accepted = _order(outcomes, names, tolerance, first)
    levels = sorted(pruned or {})
    own = outcomes.of([NO_GATES])[0]
    early, steps = len(order), 0
    if levels:
        early = _first_gates(outcomes, order[:accepted], tolerance, first)
    for below in levels if early else ():  # without a gate there is no constant
        assert pruned is not None
        [found] = pruned[below].of([frozenset(order[:early])])
        if _loss(own.rows(first), found, first)[1] > tolerance:
            break
        steps += 1
    # Gate by gate, and after `early` gates level by level. Each entry is a set of gates, and the
    # outcomes in which it is looked up.
    sequence: list[tuple[int, int]] = [(place + 1, 0) for place in range(early)]
    sequence += [(early, level + 1) for level in range(steps)]
    sequence += [(place + 1, steps) for place in range(early, len(order))]
    tests: dict[tuple[int, int], tuple[float, float, bool]] = {}
    sufficient, images = None, int((~first).sum())
    for gates, level in sequence:
        source = pruned[levels[level - 1]] if pruned and level else outcomes
        lost, gained = _changes(own.rows(~first), source.of([frozenset(order[:gates])])[0], ~first)
        p = paired_loss_p(lost, gained, images, tolerance / 100)
        tests[gates, level] = 100 * (lost - gained) / images, p, p <= LEVEL
        if p > LEVEL:
            half = sufficient_images(lost, gained, images, tolerance / 100)
            sufficient = None if half is None else max(2 * half, len(first) + 1)
            break
    untested = None, None, False
    trials = []
    for place, name in enumerate(order):
        state = place + 1, 0 if place < early else steps
        single = alone[name] if first.any() else None
        trials.append(Trial(name, single, *tests.get(state, untested)))
    pruning = [
        Pruning(below, early, *tests.get((early, level + 1), untested))
        for level, below in enumerate(levels)
    ]
    return Choice(trials, int(first.sum()), images, sufficient, pruning)


def _first_gates(
    outcomes: Outcomes, accepted: Sequence[str], tolerance: float, first: Bool[Array, " images"]
) -> int:
    """Return how many of the gates come before the steps in which constants become 0."""
    own = outcomes.of([NO_GATES])[0].rows(first)
    count = min(len(accepted), 1)
    for place in range(len(accepted)):
        [found] = outcomes.of([frozenset(accepted[: place + 1])])  # it was computed before
        if _loss(own, found, first)[0] > tolerance / 2:
            break
        count = place + 1
    return count


def first_half(labels: Int64[Array, " images"], seed: int) -> Bool[Array, " images"]:
    """Return a random half of the images with about half of each class.

    Args:
        labels: The class of each image, ``(N,)``.
        seed: The random seed.

    Returns:
        A mask ``(N,)``. It has at most as many images as the other half.
    """
    # The first of the two folds gets the larger part of a class with an odd number of images.
    half: Bool[Array, " images"] = stratified_folds(labels, 2, np.random.default_rng(seed)) == 1
    return half


def repeat_choice(
    outcomes: Outcomes, names: Sequence[str], tolerance: float, choice: Choice, seed: int
) -> Stability:
    """Repeat a choice on other halves of the same images.

    First the halves change their roles. Random halves follow, until the repetitions have run as
    many sets of gates as the choice itself, or there are ten. Sets that were run before are not run
    again.

    Args:
        outcomes: The outcomes from which the choice was made.
        names: As for `choose_gates`.
        tolerance: As for `choose_gates`.
        choice: The choice.
        seed: The seed of its halves. Random halves have the following seeds.
    """
    budget = 2 * outcomes.computed
    chosen = [frozenset(choice.kept)]
    for number in range(_HALVES):
        if number and outcomes.computed >= budget:
            break
        half = first_half(outcomes.labels, seed + number)
        half = ~half if number == 0 else half
        if half.all():  # with one image of each class, the roles cannot change
            continue
        chosen.append(frozenset(choose_gates(outcomes, names, tolerance, half).kept))
    alike = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(chosen, 2)]
    shares = {name: sum(name in each for each in chosen) / len(chosen) for name in names}
    return Stability(len(chosen) - 1, float(np.mean(alike)), shares)


def _order(
    outcomes: Outcomes, names: Sequence[str], tolerance: float, first: Bool[Array, " images"]
) -> tuple[list[str], dict[str, float], int]:
    """Return the order of the gates, the loss of each alone, and how many are within the tolerance.

    All of it is from the first half only. Gates with which the others exceed the tolerance are
    last.
    """
    own, *singles = outcomes.of([NO_GATES, *(frozenset([name]) for name in names)])
    own = own.rows(first)
    found = {name: _loss(own, each, first) for name, each in zip(names, singles, strict=True)}
    step = tolerance / _STEPS
    by_loss = sorted(reversed(names), key=lambda name: np.floor(found[name][1] / step))
    waiting = [name for name in by_loss if found[name][1] <= tolerance]
    accepted: list[str] = []
    later = {name: found[name][1] for name in by_loss if name not in waiting}
    while waiting:
        together = [
            frozenset([*accepted, *waiting[:count]])
            for count in range(1, min(_TOGETHER, len(waiting)) + 1)
        ]
        for each in outcomes.of(together):
            name = waiting.pop(0)
            end = _loss(own, each, first)[1]
            if end > tolerance:
                later[name] = end
                break  # the other sets contain this gate
            accepted.append(name)
    alone = {name: loss for name, (loss, _) in found.items()}
    return [*accepted, *sorted(later, key=later.__getitem__)], alone, len(accepted)


def _loss(own: Outcome, found: Outcome, rows: Bool[Array, " images"]) -> tuple[float, float]:
    """Return the loss on some rows in percentage points, and the upper end of its 95% interval."""
    change, low, _ = paired_accuracy_change(own.right, found.right[rows])
    return 0 - 100 * change, -100 * low


def _changes(own: Outcome, found: Outcome, rows: Bool[Array, " images"]) -> tuple[int, int]:
    """Return the numbers of images lost and gained on some rows."""
    right = found.right[rows]
    return int((own.right & ~right).sum()), int((right & ~own.right).sum())
