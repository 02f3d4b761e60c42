"""Recipes from files of the user."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from attnscope.data.augmentation import Augmentation
from attnscope.errors import InputError
from attnscope.training.recipe import SGD, Adam, Milestones, Network, Phase, Plateau, Recipe
from attnscope.training.recipe_file import find_recipe, read_recipe
from attnscope.training.recipes import RECIPES

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
Write = Callable[[str], Path]
PLAIN = 'epochs = 3\nbatch_size = 8\nlearning_rate = 0.1\n[optimizer]\nkind = "adam"\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        file = tmp_path / "mine.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return to_file


def test_the_example_of_the_page_is_what_the_page_says(write: Write) -> None:
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


def test_a_short_file_has_the_defaults(write: Write) -> None:
    assert read_recipe(write(PLAIN)) == Recipe(
        name="mine",
        about="the recipe of mine.toml",
        epochs=3,
        batch_size=8,
        learning_rate=0.1,
        optimizer=Adam(),
        augmentation=Augmentation(),
    )


def test_a_base_gives_what_is_left_out(write: Write) -> None:
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


def test_another_kind_begins_with_its_own_defaults(write: Write) -> None:
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
    ("text", "key"),
    [
        ("epoch = 3\n" + PLAIN, "'epoch'"),
        (PLAIN + "nesterov = true\n", "optimizer: the key 'nesterov'"),
        (PLAIN.replace("epochs = 3\n", ""), "'epochs' is missing"),
        (PLAIN.replace("3", "'3'"), "epochs is '3'"),
        (PLAIN.replace("3", "3.5"), "epochs is 3.5"),
        (PLAIN.replace("0.1", "true"), "learning rate is True"),
        (PLAIN.replace("0.1", "inf"), "learning rate is inf"),
        (PLAIN.replace("adam", "lion"), "optimizer: kind is 'lion'"),
        ("optimizer = 3\nepochs = 3\n", "optimizer is 3"),
        (PLAIN + "[[phases]]\nshare = 0.5\n[[phases]]\nshare = 0.4\n", "sum to 0.9"),
        (PLAIN + "[[phases]]\nshare = 0.5\n[[phases]]\nshare = 2\n", "phase 2: share is 2"),
        (PLAIN + "[[phases]]\ntrains = 'all'\n", "phase 1: trains is 'all'"),
        (PLAIN + "[phases]\nshare = 1\n", "phases"),
        (PLAIN + "[augmentation]\nhue = 0.7\n", "augmentation: hue is 0.7"),
        (PLAIN + "[augmentation]\nflip = 1\n", "augmentation: flip is 1"),
        (PLAIN + "[network]\nwidth = 16\n", "network: the key 'width'"),
        (PLAIN + "[schedule]\nkind = 'constant'\nfactor = 1\n", "schedule"),
        (PLAIN + "[schedule]\nfactor = 1\n", "schedule: kind is None"),
        (PLAIN + "[schedule]\nkind = 'milestones'\n", "schedule: the key 'at' is missing"),
        ("base = 'slow'\n" + PLAIN, "'slow'"),
        ("base = 3\n" + PLAIN, "base is 3"),
        ("epochs = \n", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_with_file_and_key(
    text: str, key: str, write: Write
) -> None:
    file = write(text)
    with pytest.raises(InputError) as caught:
        read_recipe(file)
    assert str(file) in str(caught.value)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_a_path_or_a_text_that_ends_with_toml(write: Write, tmp_path: Path) -> None:
    file = write(PLAIN)
    assert find_recipe(str(file)) == find_recipe(file) == read_recipe(file)
    assert find_recipe("fast") is RECIPES["fast"]
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name in ("none.toml", "bytes.toml", "."):
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
            find_recipe(tmp_path / name)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_base_alone_is_the_base(name: str, write: Write) -> None:
    found = asdict(read_recipe(write(f'base = "{name}"')))
    expected = asdict(RECIPES[name])
    assert found.pop("name") == "mine"
    for one in (found, expected):
        one.pop("about")
    expected.pop("name")
    assert found == expected
