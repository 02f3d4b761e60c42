"""What a recipe can say, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from attnscope.data.augmentation import Augmentation
from attnscope.errors import InputError
from attnscope.training.recipe import SGD, Milestones, Network, OneCycle, Phase, Plateau
from attnscope.training.recipes import RECIPES, register_recipe

FAST, STAGED = RECIPES["fast"], RECIPES["staged"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: replace(FAST, epochs=0), "epochs"),
        (lambda: replace(FAST, batch_size=1.5), "batch size"),
        (lambda: replace(FAST, learning_rate=-0.1), "learning rate"),
        (lambda: replace(FAST, label_smoothing=1.0), "label smoothing"),
        (lambda: replace(FAST, keeps="worst"), "keeps"),
        (lambda: replace(FAST, optimizer="sgd"), "optimizer"),
        (lambda: replace(FAST, histogram_steps=0), "histogram steps"),
        (lambda: replace(FAST, phases=()), "shares"),
        (lambda: replace(FAST, phases=(Phase(0.5), Phase(0.4))), "sum to 0.9"),
        (lambda: SGD(momentum=1.0), "momentum"),
        (lambda: SGD(momentum=0.0, nesterov=True), "momentum"),
        (lambda: SGD(weight_decay=-1.0), "weight decay"),
        (lambda: OneCycle(rise=0.0), "rise"),
        (lambda: OneCycle(momentum=(0.9,)), "momentum"),  # type: ignore[arg-type]
        (lambda: Milestones(at=(0.6, 0.3)), "at"),
        (lambda: Milestones(at=(0.5, 1.0)), "at"),
        (lambda: Plateau(factor=1.0), "factor"),
        (lambda: Phase(share=0.0), "share"),
        (lambda: Phase(scale=1.5), "scale"),
        (lambda: Phase(trains=()), "trains"),
        (lambda: Phase(learning_rate=0.0), "learning rate"),
        (lambda: Network(image_size=4), "image size"),
        (lambda: Network(resize=256), "resize"),
        (lambda: Network(image_size=224, resize=200), "resize"),
        (lambda: Augmentation(hue=0.6), "hue"),
        (lambda: Augmentation(crop_padding=32), "crop padding"),
        (lambda: Augmentation(flip=1), "flip"),  # type: ignore[arg-type]
    ],
)
def test_a_part_refuses_what_cannot_be_used(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make()


def test_a_schedule_belongs_to_one_optimizer() -> None:
    with pytest.raises(InputError, match="schedule"):
        replace(STAGED, schedule=OneCycle())
    replace(FAST, phases=(Phase(0.5, 0.5), Phase(0.5)))  # the second begins no optimizer


def test_a_recipe_is_registered_by_one_call_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECIPES, "_known", dict(RECIPES))
    mine = register_recipe(replace(FAST, name="mine", epochs=3))
    assert RECIPES.find("mine") is mine
    with pytest.raises(InputError, match="registered already"):
        register_recipe(mine)
