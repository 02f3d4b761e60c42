"""The settings of a run: what is refused, and which setting takes precedence."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from attnscope.training.config import TrainConfig
from attnscope.training.recipe import Network, Phase
from attnscope.training.recipes import RECIPES
from tests.making import refused

STAGED = RECIPES["staged"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("epochs", 0, "AS102"),
        ("epochs", "3", "AS101"),
        ("epochs", 2.5, "AS101"),
        ("epochs", True, "AS101"),
        ("batch_size", 0, "AS102"),
        ("accumulate", -1, "AS102"),
        ("learning_rate", 0.0, "AS102"),
        ("learning_rate", float("nan"), "AS101"),
        ("class_weights", "even", "AS101"),
        ("class_weights", (), "AS102"),
        ("class_weights", (1.0, -1.0), "AS102"),
        ("class_weights", (1.0, "2"), "AS101"),
        ("keep", "worst", "AS101"),
        ("seed", -1, "AS102"),
        ("precision", "fp8", "AS101"),
        ("placement", "top", "AS101"),
        ("stem", "resnet", "AS101"),
        ("gate_start", "open", "AS101"),
        ("image_size", 3, "AS102"),
        ("validation_share", 1.0, "AS102"),
        ("compile", "yes", "AS101"),
        ("recipe", 3, "AS101"),
        ("data", None, "AS101"),
        ("attention", "csam", "AS302"),
        ("model", "resnet19", "AS301"),
    ],
)
def test_an_unusable_setting_is_refused_by_name(name: str, value: Any, code: str) -> None:
    named = () if code in ("AS301", "AS302") else (name.replace("_", " "),)
    with refused(code, names=(*named, value)):
        TrainConfig(**{name: value})


def test_repr_shows_the_settings_that_differ_from_the_defaults() -> None:
    assert repr(TrainConfig()) == "TrainConfig()"
    config = TrainConfig(attention="se", epochs=2, class_weights=[1, 2], seed=0)  # type: ignore[arg-type]
    assert repr(config) == "TrainConfig(attention='se', epochs=2, class_weights=(1, 2))"
    assert eval(repr(config)) == config


def test_paths_may_be_strings_and_class_weights_a_list() -> None:
    config = TrainConfig(out="runs/a", data_root="b", class_weights=[1, 2.5])  # type: ignore[arg-type]
    assert (config.out, config.data_root) == (Path("runs/a"), Path("b"))
    assert config.class_weights == (1, 2.5)


def test_settings_default_to_the_recipe_and_then_to_the_network() -> None:
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


def test_given_settings_take_precedence_over_the_recipe() -> None:
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


def test_every_setting_of_a_recipe_s_network_has_an_option() -> None:
    """These options are None by default, so that they do not override the recipe."""
    optional = {f.name for f in fields(TrainConfig) if f.default is None}
    of_recipe = {field.name for field in fields(Network)} - {"resize"}
    assert of_recipe | {"epochs", "batch_size", "accumulate", "learning_rate"} <= optional


def test_resize_scales_with_the_image_size() -> None:
    assert (TrainConfig(recipe="finetune").resolve().image_size) == 224
    assert (TrainConfig(recipe="finetune").resolve().resize) == 256
    assert TrainConfig(recipe="finetune", image_size=56).resolve().resize == 64


def test_learning_rate_scales_those_of_the_phases() -> None:
    found = TrainConfig(recipe="staged", learning_rate=3e-3).resolve().recipe
    assert found.learning_rate == 3e-3
    rates = [phase.learning_rate for phase in found.phases]
    assert rates == pytest.approx([3e-3, 3e-4, 3e-5])
    assert TrainConfig(recipe="staged", learning_rate=1e-3).resolve().recipe == STAGED
    fast = TrainConfig(learning_rate=0.02).resolve().recipe
    assert fast == replace(RECIPES["fast"], learning_rate=0.02)


def test_a_recipe_may_be_an_object() -> None:
    mine = replace(RECIPES["fast"], name="mine", phases=(Phase(),))
    assert TrainConfig(recipe=mine).resolve().recipe == mine
    with refused("AS120", names=("'slow'", ", ".join(RECIPES))):
        TrainConfig(recipe="slow").resolve()
