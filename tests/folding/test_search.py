"""The choice of gates to fold, and outcomes of edited networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnscope.capturing.batching import Batch
from attnscope.folding.outcomes import (
    NO_GATES,
    EditedOutcomes,
    Names,
    Outcome,
    outcome_of,
    outcomes_of,
)
from attnscope.folding.search import choose_gates, first_half, repeat_choice
from attnscope.gates.detect import find_gates
from attnscope.statistics.noninferiority import paired_loss_p, sufficient_images
from tests.folding.networks import edited_logits, network, pictures, random_mean


class Told:
    """Outcomes that a function gives: which images a set of gates loses."""

    def __init__(self, images: int, lost: Callable[[Names], NDArray[np.bool_]]) -> None:
        self.labels = np.arange(images) % 2
        self._lost = lost
        self.asked: set[Names] = set()

    @property
    def computed(self) -> int:
        return len(self.asked)

    def of(self, sets: Sequence[Names]) -> list[Outcome]:
        self.asked.update(sets)
        found = []
        for each in sets:
            right = ~self._lost(each)
            found.append(Outcome(np.where(right, self.labels, -1), right, np.zeros(len(right))))
        return found


IMAGES = 2000
FIRST = first_half(np.arange(IMAGES) % 2, 0)


def lost(first: int, second: int, start: int = 0) -> NDArray[np.bool_]:
    """A mask with some images of each half, the first of them at a place."""
    found = np.zeros(IMAGES, bool)
    found[np.flatnonzero(FIRST)[start : start + first]] = True
    found[np.flatnonzero(~FIRST)[start : start + second]] = True
    return found


def any_of(masks: dict[str, NDArray[np.bool_]]) -> Callable[[Names], NDArray[np.bool_]]:
    """The images that any gate of a set loses."""
    none = np.zeros(IMAGES, bool)
    return lambda names: np.logical_or.reduce([none, *(masks[name] for name in names)])


def test_halves_have_half_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [11, 40, 5])
    half = first_half(labels, 3)
    assert [int(half[labels == k].sum()) for k in range(3)] == [5, 20, 2]
    assert (half == first_half(labels, 3)).all()
    assert (half != first_half(labels, 4)).any()


def test_the_first_half_orders_the_gates_and_the_second_half_tests_them() -> None:
    masks = {
        "a": lost(3, 0),
        "b": lost(0, 2, 100),
        "c": lost(40, 1, 200),
        "d": lost(0, 1, 300),
    }
    choice = choose_gates(Told(IMAGES, any_of(masks)), list(masks), 1, FIRST)
    # d and b lose nothing in the first half, and the last gate comes first. c loses 4 points there.
    assert [trial.gate for trial in choice.trials] == ["d", "b", "a", "c"]
    assert [trial.alone for trial in choice.trials] == pytest.approx([0, 0, 0.3, 4])
    assert [trial.joint for trial in choice.trials] == pytest.approx([0.1, 0.3, 0.3, 0.4])
    assert (choice.ordering, choice.testing) == (1000, 1000)
    for trial, count in zip(choice.trials, (1, 3, 3, 4), strict=True):
        assert trial.p == paired_loss_p(count, 0, 1000, 0.01)
        assert trial.kept == (trial.p <= 0.05)


def test_the_first_set_that_fails_ends_the_choice() -> None:
    masks = {"a": lost(0, 9), "b": lost(0, 0), "c": lost(0, 0)}
    gained = any_of(masks)

    def recovers(names: Names) -> NDArray[np.bool_]:  # all three together lose nothing
        return gained(names) & (len(names) < 3)

    choice = choose_gates(Told(IMAGES, recovers), ["b", "a", "c"], 1, FIRST)
    assert [trial.gate for trial in choice.trials] == ["c", "a", "b"]
    assert choice.kept == ["c"]
    assert choice.trials[1].p == paired_loss_p(9, 0, 1000, 0.01)
    assert (choice.trials[2].joint, choice.trials[2].p) == (None, None)
    needed = sufficient_images(9, 0, 1000, 0.01)
    assert needed is not None
    assert choice.sufficient == 2 * needed


def test_a_loss_above_the_tolerance_is_no_matter_of_images() -> None:
    masks = {"a": lost(0, 30)}
    choice = choose_gates(Told(IMAGES, any_of(masks)), ["a"], 1, FIRST)
    assert choice.kept == []
    assert choice.sufficient is None


def test_a_gate_that_stands_in_for_another_comes_last() -> None:
    """Either of a pair is enough; together they cost 10 points. The others cost nothing."""
    names = ["x", "pair 1", "y", "pair 2", "z"]

    def told(each: Names) -> NDArray[np.bool_]:
        return lost(100, 100) & ({"pair 1", "pair 2"} <= each)

    outcomes = Told(IMAGES, told)
    choice = choose_gates(outcomes, names, 1, FIRST)
    assert [trial.gate for trial in choice.trials] == ["z", "pair 2", "y", "x", "pair 1"]
    assert choice.kept == ["z", "pair 2", "y", "x"]
    assert choice.trials[-1].joint == pytest.approx(10)


def test_the_second_half_does_not_change_the_order() -> None:
    rng = np.random.default_rng(0)
    order = None
    for _ in range(5):
        masks = {name: lost(k, 0, 50 * k) for k, name in enumerate("abcdef")}
        for mask in masks.values():
            mask[~FIRST] = rng.random(IMAGES - FIRST.sum()) < 0.02
        choice = choose_gates(Told(IMAGES, any_of(masks)), list(masks), 1, FIRST)
        found = [trial.gate for trial in choice.trials]
        assert order in (None, found)
        order = found


def test_a_choice_is_repeated_on_other_halves_without_running_a_set_twice() -> None:
    masks = {"a": lost(0, 0), "b": lost(0, 40), "c": lost(0, 0, 100)}
    outcomes = Told(IMAGES, any_of(masks))
    choice = choose_gates(outcomes, list(masks), 1, FIRST)
    assert choice.kept == ["c"]
    before = outcomes.computed
    found = repeat_choice(outcomes, list(masks), 1, choice, 0)
    assert outcomes.computed <= 2 * before + len(masks)
    assert found.halves >= 1
    # With the halves changed, b loses 4 points where the order is made, and comes last.
    swapped = choose_gates(outcomes, list(masks), 1, ~FIRST)
    assert swapped.kept[:2] == ["c", "a"]
    chosen = [
        choose_gates(outcomes, list(masks), 1, half).kept
        for half in (FIRST, ~FIRST, *(first_half(outcomes.labels, n) for n in range(1, 10)))
    ][: found.halves + 1]
    for name in masks:
        share = np.mean([name in each for each in chosen])
        assert found.shares[name] == pytest.approx(share)
    pairs = [
        len({*a} & {*b}) / len({*a} | {*b}) for i, a in enumerate(chosen) for b in chosen[i + 1 :]
    ]
    assert found.jaccard == pytest.approx(np.mean(pairs))
    # With many orders, the repetitions end when they have run as many sets as the choice.
    rng = np.random.default_rng(1)
    masks = {name: rng.random(IMAGES) < 0.001 * k for k, name in enumerate("abcdefgh")}
    outcomes = Told(IMAGES, any_of(masks))
    choice = choose_gates(outcomes, list(masks), 5, FIRST)
    before = outcomes.computed
    assert 1 <= repeat_choice(outcomes, list(masks), 5, choice, 0).halves < 10
    assert before < outcomes.computed < 2 * before + len(masks)
    nothing = Told(IMAGES, any_of({"a": lost(300, 300)}))
    choice = choose_gates(nothing, ["a"], 1, FIRST)
    assert repeat_choice(nothing, ["a"], 1, choice, 0).jaccard == 1


def test_one_image_of_each_class_has_no_half_that_could_test_if_the_roles_change() -> None:
    """All images test, and none orders: 100 points are lost with no image at all."""
    outcomes = Told(2, lambda names: np.zeros(2, bool))
    first = first_half(outcomes.labels, 0)
    assert not first.any()
    choice = choose_gates(outcomes, ["a"], 100, first)
    assert choice.kept == ["a"]
    assert choice.trials[0].alone is None
    assert json.loads(json.dumps(asdict(choice), allow_nan=False))["ordering"] == 0
    assert repeat_choice(outcomes, ["a"], 100, choice, 0).jaccard == 1


def batches_of(x: Tensor, labels: Tensor, size: int) -> Iterator[Batch]:
    for start in range(0, len(x), size):
        yield Batch(x[start : start + size], x[:0], labels[start : start + size], [])


def test_outcomes_of_edited_gates_are_those_of_plain_edits_and_share_the_work_before() -> None:
    model = network("resnet18", "cbam", "stage")
    x, labels = pictures(model, 6), torch.tensor([0, 1, 2, 3, 4, 5])
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(3)
    constants = {gate.name: random_mean(gate, gate.name[5] == "1", rng) for gate in gates}
    outcomes = EditedOutcomes(
        model, gates, constants, labels.numpy(), lambda: batches_of(x, labels, 4)
    )
    names = [gate.name for gate in gates]
    sets = [frozenset(names[-1:]), frozenset(names[4:7]), frozenset(names), NO_GATES]
    calls: list[int] = []
    inside = model.layer1[0].conv1  # a module that is skipped still calls its own hooks
    handle = inside.register_forward_hook(lambda module, args, out: calls.append(1))
    found = outcomes.of(sets)
    handle.remove()
    for each, outcome in zip(sets, found, strict=True):
        means = {name: constants[name] for name in each}
        logits = edited_logits(model, x, means, gates)
        assert outcome.predictions.tolist() == logits.argmax(1).tolist()
        assert outcome.right.tolist() == (logits.argmax(1) == labels).tolist()
        wanted = nn.functional.cross_entropy(logits, labels, reduction="none")
        np.testing.assert_allclose(outcome.log_loss, wanted, atol=1e-4)
    assert (found[2].log_loss != found[3].log_loss).any()
    # Of two batches, layer1 runs for the network, and for the set with its gates. That set is
    # verified once, the order of the calls is observed, and one image tells the memory.
    assert len(calls) <= 2 + 2 + 3
    assert outcomes.computed == 4
    handle = model.register_forward_pre_hook(lambda module, args: calls.append(1))
    calls.clear()
    again = outcomes.of([sets[1]])[0]
    handle.remove()
    assert (again.log_loss == found[1].log_loss).all()
    assert not calls


def test_outcomes_are_the_same_if_little_can_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("resnet18", "se", "stage")
    x, labels = pictures(model, 5), torch.arange(5)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(3)
    constants = {gate.name: random_mean(gate, False, rng) for gate in gates}
    sets = [frozenset([gate.name]) for gate in gates]
    found = []
    for held in (2**30, 1):
        monkeypatch.setattr("attnscope.folding.outcomes._HELD", held)
        sizes: list[int] = []
        handle = model.register_forward_pre_hook(
            lambda module, args, sizes=sizes: sizes.append(len(args[0]))
        )
        outcomes = EditedOutcomes(
            model, gates, constants, labels.numpy(), lambda: batches_of(x, labels, 5)
        )
        found.append(outcomes.of(sets))
        handle.remove()
        assert max(sizes) == (1 if held == 1 else 5)
    for many, one in zip(*found, strict=True):
        assert (many.predictions == one.predictions).all()
        np.testing.assert_allclose(many.log_loss, one.log_loss, atol=1e-4)


def test_outcomes_of_a_network_are_its_predictions() -> None:
    model = network("resnet18", "se", "stage")
    x = pictures(model, 7)
    with torch.no_grad():
        logits = model(x)
    labels = logits.argmax(1)
    labels[3] = (labels[3] + 1) % 10
    found = outcomes_of(model, batches_of(x, labels, 4))
    assert found.right.tolist() == [i != 3 for i in range(7)]
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    assert found.rows(np.arange(7) == 3).right.tolist() == [False]
    assert outcome_of(logits, labels).log_loss == pytest.approx(
        [-logits.log_softmax(1)[i, k].item() for i, k in enumerate(labels)], abs=1e-5
    )


def test_zeros_follow_the_first_gates_and_stay_for_those_behind_them() -> None:
    masks = {"a": lost(0, 0), "b": lost(0, 1), "c": lost(17, 1, 100)}
    extra = {0.1: lost(0, 2, 200), 0.2: lost(0, 3, 200), 0.4: lost(60, 0, 300)}

    def zeros(below: float) -> Told:
        return Told(IMAGES, lambda names: any_of(masks)(names) | extra[below])

    choice = choose_gates(
        Told(IMAGES, any_of(masks)), list(masks), 3, FIRST, {k: zeros(k) for k in extra}
    )
    assert [trial.gate for trial in choice.trials] == ["b", "a", "c"]
    # c loses 1.7 points in the first half, more than half of the tolerance, and comes last.
    assert [step.after for step in choice.pruning] == [2, 2, 2]
    assert [step.below for step in choice.pruning] == [0.1, 0.2, 0.4]
    assert [trial.joint for trial in choice.trials] == pytest.approx([0.1, 0.1, 0.5])
    for step, count in zip(choice.pruning, (3, 4), strict=False):
        assert step.joint == pytest.approx(count / 10)
        assert step.p == paired_loss_p(count, 0, 1000, 0.03)
        assert step.kept == (step.p <= 0.05)
    assert (choice.pruning[2].joint, choice.pruning[2].kept) == (None, False)
    assert choice.trials[2].p == paired_loss_p(5, 0, 1000, 0.03)
    assert (choice.below, choice.kept) == (0.2, ["b", "a", "c"])


def test_zeros_that_fail_end_the_choice() -> None:
    masks = {"a": lost(0, 0), "c": lost(7, 0, 100)}
    levels = {
        0.1: Told(IMAGES, lambda names: any_of(masks)(names) | lost(0, 9, 200)),
        0.2: Told(IMAGES, lambda names: any_of(masks)(names)),
    }
    choice = choose_gates(Told(IMAGES, any_of(masks)), list(masks), 1, FIRST, levels)
    assert (choice.kept, choice.below) == (["a"], 0)
    assert choice.pruning[0].p == paired_loss_p(9, 0, 1000, 0.01)
    assert (choice.pruning[1].p, choice.trials[1].p) == (None, None)
    assert choice.sufficient is not None
    without = choose_gates(Told(IMAGES, any_of(masks)), list(masks), 1, FIRST)
    assert (without.kept, without.pruning) == (["a", "c"], [])
