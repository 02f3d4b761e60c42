"""Recipes from TOML files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from attnscope.data.augmentation import Augmentation
from attnscope.training.recipe import SGD, Adam, Milestones, Network, Phase, Plateau, Recipe
from attnscope.training.recipe_file import find_recipe, read_recipe
from attnscope.training.recipes import RECIPES
from tests.making import refused

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "training.md"
Write = Callable[[str], Path]
PLAIN = 'epochs = 3\nbatch_size = 8\nlearning_rate = 0.1\n[optimizer]\nkind = "adam"\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        file = tmp_path / "mine.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return to_file


def test_the_example_in_the_documentation_is_read(write: Write) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    recipe = read_recipe(write(example))
    assert recipe == Recipe(
        name="birds",
        about="SE on photographs of birds: the classifier first, then everything",
        epochs=30,
        batch_size=32,
        learning_rate=0.05,
        accumulate=2,
        label_smoothing=0.1,
        keeps="best",
        optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=5e-4, decays_all=False),
        schedule=None,
        augmentation=Augmentation(resized_crop=True, flip=True, brightness=0.2, contrast=0.2),
        phases=(
            Phase(share=0.2, scale=0.75, trains=("classifier", "attention"), learning_rate=0.05),
            Phase(share=0.8, trains=("all",), learning_rate=0.01),
        ),
        network=Network(
            model="resnet18",
            attention="se",
            placement="block",
            stem="imagenet",
            weights="imagenet",
            image_size=224,
            resize=256,
        ),
        log_steps=20,
    )


def test_keys_left_out_have_the_defaults(write: Write) -> None:
    assert read_recipe(write(PLAIN)) == Recipe(
        name="mine",
        about="the recipe of mine.toml",
        epochs=3,
        batch_size=8,
        learning_rate=0.1,
        optimizer=Adam(),
        augmentation=Augmentation(),
    )


def test_keys_left_out_come_from_the_base(write: Write) -> None:
    fast = RECIPES["fast"]
    file = write(
        'base = "fast"\nepochs = 4\n[optimizer]\nweight_decay = 0.01\n'
        "[augmentation]\ncutout = 8\n[network]\nattention = 'se'\n"
    )
    assert read_recipe(file) == replace(
        fast,
        name="mine",
        about="the recipe of mine.toml",
        epochs=4,
        optimizer=replace(fast.optimizer, weight_decay=0.01),
        augmentation=replace(fast.augmentation, cutout=8),
        network=replace(fast.network, attention="se"),
    )


def test_another_kind_has_its_own_defaults(write: Write) -> None:
    file = write(
        'base = "fast"\n[optimizer]\nkind = "sgd"\nmomentum = 0.5\n[schedule]\n'
        'kind = "milestones"\nat = [0.5]\n[[phases]]\n'
    )
    found = read_recipe(file)
    assert found.optimizer == replace(RECIPES["fast"].optimizer, momentum=0.5)
    assert found.schedule == Milestones(at=(0.5,))
    assert found.phases == (Phase(),)
    assert read_recipe(write('base = "fast"\n[optimizer]\nkind = "adam"\n')).optimizer == Adam()
    plateau = read_recipe(write('base = "cnn"\n[schedule]\npatience = 5\n')).schedule
    assert plateau == Plateau(patience=5)
    assert read_recipe(write('base = "cnn"\n[schedule]\nkind = "constant"\n')).schedule is None


@pytest.mark.parametrize(
    ("text", "code", "key"),
    [
        ("epoch = 3\n" + PLAIN, "AS103", "'epoch'"),
        (PLAIN + "nesterov = true\n", "AS103", "optimizer: the key 'nesterov'"),
        (PLAIN.replace("epochs = 3\n", ""), "AS104", "'epochs'"),
        (PLAIN.replace("3", "'3'"), "AS101", "epochs must be an integer, not '3'"),
        (PLAIN.replace("3", "3.5"), "AS101", "epochs must be an integer, not 3.5"),
        (PLAIN.replace("0.1", "true"), "AS101", "learning rate must be a finite number, not True"),
        (PLAIN.replace("0.1", "inf"), "AS101", "learning rate must be a finite number, not inf"),
        (PLAIN.replace("adam", "lion"), "AS515", "optimizer: kind is 'lion'"),
        ("optimizer = 3\nepochs = 3\n", "AS514", "optimizer is 3"),
        (PLAIN + "[[phases]]\nshare = 0.5\n[[phases]]\nshare = 0.4\n", "AS501", "0.9"),
        (PLAIN + "[[phases]]\nshare = 0.5\n[[phases]]\nshare = 2\n", "AS102", "phase 2: share"),
        (PLAIN + "[[phases]]\ntrains = 'all'\n", "AS101", "phase 1: trains"),
        (PLAIN + "[phases]\nshare = 1\n", "AS514", "phases"),
        (PLAIN + "[augmentation]\nhue = 0.7\n", "AS102", "augmentation: hue"),
        (PLAIN + "[augmentation]\nflip = 1\n", "AS101", "augmentation: flip"),
        (PLAIN + "[network]\nwidth = 16\n", "AS103", "network: the key 'width'"),
        (PLAIN + "[schedule]\nkind = 'constant'\nfactor = 1\n", "AS516", "factor"),
        (PLAIN + "[schedule]\nfactor = 1\n", "AS515", "schedule: kind is None"),
        (PLAIN + "[schedule]\nkind = 'milestones'\n", "AS104", "schedule: the required key 'at'"),
        ("base = 'slow'\n" + PLAIN, "AS120", "'slow'"),
        ("base = 3\n" + PLAIN, "AS513", "base is 3"),
        ("epochs = \n", "AS512", ""),
    ],
)
def test_an_unusable_file_is_refused_with_file_and_key(
    text: str, code: str, key: str, write: Write
) -> None:
    file = write(text)
    with refused(code, names=(file, key)):
        read_recipe(file)


def test_a_file_is_a_path_or_a_string_that_ends_with_toml(write: Write, tmp_path: Path) -> None:
    file = write(PLAIN)
    assert find_recipe(str(file)) == find_recipe(file) == read_recipe(file)
    assert find_recipe("fast") is RECIPES["fast"]
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name, code in (("none.toml", "AS510"), ("bytes.toml", "AS512"), (".", "AS511")):
        with refused(code, names=(tmp_path / name,)):
            find_recipe(tmp_path / name)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_file_with_only_a_base_equals_the_base(name: str, write: Write) -> None:
    found = asdict(read_recipe(write(f'base = "{name}"')))
    expected = asdict(RECIPES[name])
    assert found.pop("name") == "mine"
    for one in (found, expected):
        one.pop("about")
    expected.pop("name")
    assert found == expected
