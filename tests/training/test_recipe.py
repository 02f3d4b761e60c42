"""Validation of recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from attnscope.data.augmentation import Augmentation
from attnscope.training.recipe import SGD, Milestones, Network, OneCycle, Phase, Plateau
from attnscope.training.recipes import RECIPES, register_recipe
from tests.making import refused

FAST, STAGED = RECIPES["fast"], RECIPES["staged"]


@pytest.mark.parametrize(
    ("make", "code", "named"),
    [
        (lambda: replace(FAST, epochs=0), "AS102", "epochs"),
        (lambda: replace(FAST, batch_size=1.5), "AS101", "batch size"),
        (lambda: replace(FAST, learning_rate=-0.1), "AS102", "learning rate"),
        (lambda: replace(FAST, label_smoothing=1.0), "AS102", "label smoothing"),
        (lambda: replace(FAST, keeps="worst"), "AS101", "keeps"),
        (lambda: replace(FAST, optimizer="sgd"), "AS101", "optimizer"),
        (lambda: replace(FAST, histogram_steps=0), "AS102", "histogram steps"),
        (lambda: replace(FAST, phases=()), "AS501", "0"),
        (lambda: replace(FAST, phases=(Phase(0.5), Phase(0.4))), "AS501", "0.9"),
        (lambda: SGD(momentum=1.0), "AS102", "momentum"),
        (lambda: SGD(momentum=0.0, nesterov=True), "AS102", "momentum"),
        (lambda: SGD(weight_decay=-1.0), "AS102", "weight decay"),
        (lambda: OneCycle(rise=0.0), "AS102", "rise"),
        (lambda: OneCycle(momentum=(0.9,)), "AS101", "momentum"),  # type: ignore[arg-type]
        (lambda: Milestones(at=(0.6, 0.3)), "AS102", "at"),
        (lambda: Milestones(at=(0.5, 1.0)), "AS102", "at"),
        (lambda: Plateau(factor=1.0), "AS102", "factor"),
        (lambda: Phase(share=0.0), "AS102", "share"),
        (lambda: Phase(scale=1.5), "AS102", "scale"),
        (lambda: Phase(trains=()), "AS102", "trains"),
        (lambda: Phase(learning_rate=0.0), "AS102", "learning rate"),
        (lambda: Network(image_size=4), "AS102", "image size"),
        (lambda: Network(resize=256), "AS102", "resize"),
        (lambda: Network(image_size=224, resize=200), "AS102", "resize"),
        (lambda: Augmentation(hue=0.6), "AS102", "hue"),
        (lambda: Augmentation(crop_padding=32), "AS102", "crop padding"),
        (lambda: Augmentation(flip=1), "AS101", "flip"),  # type: ignore[arg-type]
    ],
)
def test_an_unusable_value_is_refused_by_name(
    make: Callable[[], Any], code: str, named: str
) -> None:
    with refused(code, names=(named,)):
        make()


def test_a_schedule_with_several_optimizers_is_refused() -> None:
    with refused("AS502"):
        replace(STAGED, schedule=OneCycle())
    replace(FAST, phases=(Phase(0.5, 0.5), Phase(0.5)))  # the second phase starts no optimizer


def test_a_recipe_can_be_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECIPES, "_known", dict(RECIPES))
    mine = register_recipe(replace(FAST, name="mine", epochs=3))
    assert RECIPES.find("mine") is mine
    with refused("AS121", names=("'mine'",)):
        register_recipe(mine)
