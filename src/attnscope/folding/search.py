"""Choose gates that can be constant, so that the loss of accuracy stays within a tolerance.

The images that order the gates are not those that test them. One half of the validation split
orders the gates, which makes nested sets: the first gate, the first two, and so on. The other half
tests the sets from the smallest to the largest, each at 5%: the null hypothesis is that the loss of
accuracy is at least the tolerance. The first set that fails ends the choice, and the last one that
passed is chosen. Whatever the order, a set that loses more than the tolerance is then chosen with a
probability of at most 5%: the first such set in the sequence would have to pass its own test (fixed
sequence testing, as in Learn then Test, Angelopoulos et al. 2021, arXiv:2110.01052).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int64

from attnscope.folding.outcomes import NO_GATES, Outcome, Outcomes
from attnscope.shapes import Array
from attnscope.statistics.inference import LEVEL, paired_accuracy_change
from attnscope.statistics.noninferiority import paired_loss_p, sufficient_images
from attnscope.statistics.resampling import stratified_folds

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
    alone: float
    """Loss on the first half if this gate alone is constant."""
    joint: float | None
    """Loss on the second half if this gate and all before it are constant; None if the choice ended
    before."""
    p: float | None
    """p value of that loss: the null hypothesis is that it is at least the tolerance."""
    kept: bool
    """Whether the gate was chosen."""


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
) -> Choice:
    """Choose gates that can be constant together.

    The first half of the images orders the gates by the upper end of the 95% interval of the loss
    if each alone is constant. Then they are added one by one. A gate with which the end of that
    interval for all of them exceeds the tolerance is moved behind all that do not. The second half
    tests the sets in this order.

    Args:
        outcomes: Outcomes of the network on the images.
        names: The gates, in the order in which they are applied. Gates with about equal losses are
            tried from the last to the first, because most of the network is then shared.
        tolerance: Largest accepted loss of accuracy, in percentage points above 0.
        first: ``(N,)``, the images of the first half. All others are the second half.

    Returns:
        The choice; it may contain no gate.
    """
    order, alone = _order(outcomes, names, tolerance, first)
    own = outcomes.of([NO_GATES])[0].rows(~first)
    images = int((~first).sum())
    trials: list[Trial] = []
    sufficient, passes = None, True
    for place, name in enumerate(order):
        joint = p = None
        if passes:
            lost, gained = _changes(own, outcomes.of([frozenset(order[: place + 1])])[0], ~first)
            joint = 100 * (lost - gained) / images
            p = paired_loss_p(lost, gained, images, tolerance / 100)
            passes = p <= LEVEL
            if not passes:
                half = sufficient_images(lost, gained, images, tolerance / 100)
                sufficient = None if half is None else max(2 * half, len(first) + 1)
        trials.append(Trial(name, alone[name], joint, p, passes))
    return Choice(trials, int(first.sum()), images, sufficient)


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
        chosen.append(frozenset(choose_gates(outcomes, names, tolerance, half).kept))
    alike = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(chosen, 2)]
    shares = {name: sum(name in each for each in chosen) / len(chosen) for name in names}
    return Stability(len(chosen) - 1, float(np.mean(alike)), shares)


def _order(
    outcomes: Outcomes, names: Sequence[str], tolerance: float, first: Bool[Array, " images"]
) -> tuple[list[str], dict[str, float]]:
    """Return the order of the gates, and the loss of each alone, from the first half only."""
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
    return [*accepted, *sorted(later, key=later.__getitem__)], {
        name: loss for name, (loss, _) in found.items()
    }


def _loss(own: Outcome, found: Outcome, rows: Bool[Array, " images"]) -> tuple[float, float]:
    """Return the loss on some rows in percentage points, and the upper end of its 95% interval."""
    change, low, _ = paired_accuracy_change(own.right, found.right[rows])
    return 0 - 100 * change, -100 * low


def _changes(own: Outcome, found: Outcome, rows: Bool[Array, " images"]) -> tuple[int, int]:
    """Return the numbers of images lost and gained on some rows."""
    right = found.right[rows]
    return int((own.right & ~right).sum()), int((right & ~own.right).sum())
