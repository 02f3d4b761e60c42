"""Class weights: against scikit-learn and torch, and only in the training loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from attnscope.training.evaluation import evaluate
from attnscope.training.loss import TrainingLoss, class_weight_tensor
from attnscope.training.optimization import step_sizes
from tests.making import refused
from tests.training.toys import CPU, PLAIN, TINY, Spy, make_data, rows, run, states_equal

NAMES = ["cat", "dog", "owl"]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.random.default_rng(0).choice(3, 200, p=[0.7, 0.2, 0.1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = class_weight_tensor("balanced", torch.from_numpy(labels), NAMES)
    assert found is not None
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    # The mean over the images is 1, so the learning rate keeps its meaning.
    assert found[torch.from_numpy(labels)].mean().item() == pytest.approx(1)


def test_class_weights_that_do_not_fit_the_classes_are_refused() -> None:
    labels = torch.tensor([0, 0, 2])
    assert class_weight_tensor("none", labels, NAMES) is None
    with refused("AS506", names=("'dog'",)):
        class_weight_tensor("balanced", labels, NAMES)
    with refused("AS505", names=(2, 3, "cat, dog, owl")):
        class_weight_tensor((1.0, 2.0), labels, NAMES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("pieces", [[10], [5, 5], [4, 3, 3]])
def test_the_loss_of_a_split_step_equals_that_of_torch(smoothing: float, pieces: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(10, 3, generator=generator, requires_grad=True)
    labels = torch.randint(3, (10,), generator=generator)
    weights = torch.tensor([0.2, 1.0, 4.0])
    expected = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(expected, logits)
    loss = TrainingLoss(smoothing, weights)
    total = torch.zeros(())
    for x, y in zip(logits.split(pieces), labels.split(pieces), strict=True):
        total = total + loss(x, y, labels) * (len(y) / 10)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(torch.autograd.grad(total, logits)[0], gradient)


def test_without_weights_the_loss_is_plain_cross_entropy() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 0, 1])
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.equal(TrainingLoss(0.1)(logits, labels, None), expected)


def test_equal_class_weights_change_nothing_and_unequal_ones_do(tmp_path: Path) -> None:
    recipe = replace(TINY, augmentation=PLAIN, label_smoothing=0.1)
    networks = {}
    for name, weights in (("none", "none"), ("ones", (2.0, 2.0)), ("others", (1.0, 9.0))):
        torch.manual_seed(0)
        networks[name] = Spy()
        run(tmp_path / name, networks[name], recipe=recipe, class_weights=weights)
    for a, b in zip(networks["none"].parameters(), networks["ones"].parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not states_equal(networks["none"], networks["others"])


def test_a_step_follows_the_gradient_of_the_weighted_loss(tmp_path: Path) -> None:
    """A step of four accumulated pieces of unequal size, against a step with torch's loss."""
    data = make_data(14)
    weights = torch.tensor([1.0, 5.0])
    torch.manual_seed(3)
    model = Spy()
    torch.manual_seed(3)
    plain = Spy()
    for one in (model, plain):
        one.norm = torch.nn.Identity()  # type: ignore[assignment]
    recipe = replace(
        TINY, epochs=1, batch_size=4, accumulate=4, augmentation=PLAIN, schedule=None,
        optimizer=replace(TINY.optimizer, momentum=0.0, nesterov=False, weight_decay=0.0),
        label_smoothing=0.0,
    )  # fmt: skip
    assert step_sizes(14, 4, 4) == [14]
    run(tmp_path / "run", model, data=data, recipe=recipe, class_weights=(1.0, 5.0))
    x = data.normalization.apply(data.train.images)
    F.cross_entropy(plain(x), data.train.labels, weight=weights).backward()
    for now, before in zip(model.parameters(), plain.parameters(), strict=True):
        assert before.grad is not None
        expected = before - recipe.learning_rate * before.grad
        torch.testing.assert_close(now, expected, rtol=1e-4, atol=1e-6)


def test_validation_and_test_losses_are_unweighted(tmp_path: Path) -> None:
    data, model = make_data(), Spy()
    result = run(tmp_path / "run", model, data=data, class_weights=(0.1, 9.0))
    found = evaluate(model, data.validation, data.normalization, CPU)
    assert result.validation.loss == pytest.approx(found.loss, rel=1e-5)
    assert float(rows(tmp_path / "run")[-1]["validation_loss"]) == pytest.approx(found.loss)
    tested = evaluate(model, data.test, data.normalization, CPU)
    assert result.test.loss == pytest.approx(tested.loss, rel=1e-5)
