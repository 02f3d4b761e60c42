"""The settings of a training: what is refused, and what goes before what."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from attnscope.errors import InputError
from attnscope.training.config import TrainConfig
from attnscope.training.recipe import Network, Phase
from attnscope.training.recipes import RECIPES

STAGED = RECIPES["staged"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", "3"),
        ("epochs", 2.5),
        ("epochs", True),
        ("batch_size", 0),
        ("accumulate", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("class_weights", "even"),
        ("class_weights", ()),
        ("class_weights", (1.0, -1.0)),
        ("class_weights", (1.0, "2")),
        ("keep", "worst"),
        ("seed", -1),
        ("precision", "fp8"),
        ("placement", "top"),
        ("stem", "resnet"),
        ("gate_start", "open"),
        ("image_size", 3),
        ("validation_share", 1.0),
        ("compile", "yes"),
        ("recipe", 3),
        ("data", None),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig(**{name: value})
    assert str(caught.value).startswith(f"{name.replace('_', ' ')} is ")
    assert "\n" not in str(caught.value)


def test_paths_may_be_texts_and_weights_a_list() -> None:
    config = TrainConfig(out="runs/a", data_root="b", class_weights=[1, 2.5])  # type: ignore[arg-type]
    assert (config.out, config.data_root) == (Path("runs/a"), Path("b"))
    assert config.class_weights == (1, 2.5)


def test_what_is_not_chosen_is_the_recipe_s_and_then_the_network_s() -> None:
    found = TrainConfig(recipe="staged").resolve()
    assert found.recipe is STAGED or found.recipe == STAGED
    assert (found.model, found.weights) == ("resnet18", "imagenet")
    assert found.network["attention"] == "cbam"
    assert found.network["placement"] == "stage"
    assert found.network["stem"] == "cifar"
    assert found.network["width"] is None
    assert found.out == Path("runs/digits-resnet18-cbam")
    assert (found.image_size, found.resize) == (None, None)
    plain = TrainConfig().resolve()
    assert plain.weights == "none"
    assert (plain.network["placement"], plain.network["stem"]) == (None, None)


def test_what_is_chosen_goes_before_the_recipe() -> None:
    found = TrainConfig(
        recipe="staged",
        data="folder:some/pictures/",
        model="resnet34",
        attention="none",
        placement="block",
        stem="imagenet",
        weights=Path("w.safetensors"),
        image_size=64,
        batch_size=7,
        accumulate=3,
        keep="best",
    ).resolve()
    assert (found.model, found.weights, found.image_size) == ("resnet34", "w.safetensors", 64)
    assert [found.network[n] for n in ("attention", "placement", "stem")] == [
        *("none", "block", "imagenet"),
    ]
    assert found.out == Path("runs/pictures-resnet34-none")
    expected = replace(STAGED, batch_size=7, accumulate=3, keeps="best")
    assert found.recipe == expected


def test_every_setting_of_the_recipe_can_be_chosen_otherwise() -> None:
    """What a recipe says of the network is left to it by default, so that it is not overruled."""
    open_settings = {f.name for f in fields(TrainConfig) if f.default is None}
    said = {field.name for field in fields(Network)} - {"resize"}
    assert said | {"epochs", "batch_size", "accumulate", "learning_rate"} <= open_settings


def test_images_are_resized_in_the_proportion_of_the_recipe() -> None:
    assert (TrainConfig(recipe="finetune").resolve().image_size) == 224
    assert (TrainConfig(recipe="finetune").resolve().resize) == 256
    assert TrainConfig(recipe="finetune", image_size=56).resolve().resize == 64


def test_another_learning_rate_scales_those_of_the_phases() -> None:
    found = TrainConfig(recipe="staged", learning_rate=3e-3).resolve().recipe
    assert found.learning_rate == 3e-3
    rates = [phase.learning_rate for phase in found.phases]
    assert rates == pytest.approx([3e-3, 3e-4, 3e-5])
    assert TrainConfig(recipe="staged", learning_rate=1e-3).resolve().recipe == STAGED
    fast = TrainConfig(learning_rate=0.02).resolve().recipe
    assert fast == replace(RECIPES["fast"], learning_rate=0.02)


def test_a_recipe_may_be_given_itself() -> None:
    mine = replace(RECIPES["fast"], name="mine", phases=(Phase(),))
    assert TrainConfig(recipe=mine).resolve().recipe == mine
    with pytest.raises(InputError, match="slow"):
        TrainConfig(recipe="slow").resolve()
