"""Image folders: layouts, classes, links, sizes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnscope.data.images import LabeledImages
from attnscope.data.load import DataSettings, load_data
from tests.data.making import RNG, colors, load, save, write_folder
from tests.making import refused


def load_test(root: Path, **options: Any) -> tuple[LabeledImages, list[str]]:
    found = DataSettings(f"folder:{root}", **options).load_test()
    (split,) = found.splits
    return split, found.skipped


@pytest.mark.parametrize(
    "options", [{}, {"image_size": 8, "resize": 10}, {"image_size": 16, "skip_unreadable": True}]
)
def test_the_test_split_is_the_same_when_loaded_alone(root: Path, options: dict[str, Any]) -> None:
    whole = load(root, **options)
    split, skipped = load_test(root, **options)
    assert torch.equal(split.images, whole.test.images)
    assert torch.equal(split.labels, whole.test.labels)
    assert (split.paths, split.classes, skipped) == (whole.test.paths, whole.classes, [])
    if "image_size" in options:  # otherwise all images are read for their size
        (root / "train" / "ant" / "0.png").write_bytes(b"not an image")
        split, skipped = load_test(root, **options)
        assert torch.equal(split.images, whole.test.images)
        assert skipped == []
    (root / "test" / "ant" / "0.png").write_bytes(b"not an image")
    if options.get("skip_unreadable"):
        split, skipped = load_test(root, **options)
        assert split.paths == whole.test.paths[1:]
        assert len(skipped) == 1
    else:
        with refused(
            "AS212",
            names=(
                "1 of 6",
                "test/ant/0.png",
            ),
        ):
            load_test(root, **options)
    with refused("AS201", names=("'folders'",)):
        DataSettings("folders")


def test_two_splits_become_three(root: Path) -> None:
    data = load(root, validation_share=0.3)
    assert data.classes == ["ant", "bee"]
    assert data.image_size == 12, "small images of one size keep it"
    assert data.test.paths == [f"test/{c}/{i}.png" for c in ("ant", "bee") for i in range(3)]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert colors(data.test) == [100, 101, 102, 150, 151, 152]
    assert sorted(colors(data.train) + colors(data.validation)) == [0, 1, 2, 50, 51, 52]
    assert len(data.validation) == 2
    assert data.skipped == []


@pytest.mark.parametrize(
    ("splits", "validation", "test"),
    [
        (("train", "val", "test"), "val", "test"),
        (("train", "eval", "test"), "eval", "test"),
        (("train", "val", "eval"), "val", "eval"),
        (("train", "eval"), "train", "eval"),
        (("train", "val"), "train", "val"),
    ],
)
def test_folders_become_splits(
    tmp_path: Path, splits: tuple[str, ...], validation: str, test: str
) -> None:
    data = load(write_folder(tmp_path, splits))
    assert {p.split("/")[0] for p in data.train.paths} == {"train"}
    assert {p.split("/")[0] for p in data.validation.paths} == {validation}
    assert {p.split("/")[0] for p in data.test.paths} == {test}
    assert len(data.train) == (4 if validation == "train" else 6)


def test_missing_and_superfluous_splits_are_refused(root: Path) -> None:
    shutil.copytree(root / "test", root / "val")
    shutil.copytree(root / "test", root / "eval")
    with refused("AS207", names=(root,)):
        load(root)
    for name in ("val", "eval"):
        shutil.rmtree(root / name)
    (root / "test").rename(root / "holdout")
    with refused("AS206", names=(root,)):
        load(root)
    (root / "holdout").rename(root / "test")
    (root / "train").rename(root / "learning")
    with refused("AS205", names=(root,)):
        load(root)


@pytest.mark.parametrize("names", [("train",), ("Test",), ("train", "eval")])
def test_classes_with_the_names_of_splits_are_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """A flat folder of vehicles has the class train."""
    for name in ("bus", "car", *names):
        for i in range(3):
            save(tmp_path / name / f"{i}.png", i)
    first = names[0]
    with refused("AS236", names=(f" {first}/ of {tmp_path}", f"{first}_/", f"{first}/CLASS/")):
        load(tmp_path)
    for name in names:
        (tmp_path / name).rename(tmp_path / f"{name}_")
    assert load(tmp_path).classes == sorted(["bus", "car", *(f"{name}_" for name in names)])


def test_other_folders_beside_splits_are_no_classes(root: Path) -> None:
    save(root / "more" / "0.png")
    assert load(root).classes == ["ant", "bee"]
    save(root / "train" / "loose.png")
    assert load(root).classes == ["ant", "bee"]
    shutil.rmtree(root / "test")
    with refused("AS206"):
        load(root)


def test_a_folder_without_images_is_refused(root: Path) -> None:
    for folder in (root / "train/ant", root / "train/bee"):
        shutil.rmtree(folder)
    with refused("AS209", names=(root / "train",)):
        load(root)
    save(root / "train/loose.png")
    with refused("AS209", names=(root / "train",)):
        load(root)
    write_folder(root, ("train",))
    shutil.rmtree(root / "test")
    (root / "test/ant").mkdir(parents=True)
    with refused("AS211", names=(root / "test",)):
        load(root)


def test_a_folder_with_one_class_is_refused(root: Path) -> None:
    shutil.rmtree(root / "train/bee")
    with refused("AS209", names=(root / "train", "ant")):
        load(root)


def test_a_class_of_the_test_split_that_the_training_split_lacks_is_refused(root: Path) -> None:
    save(root / "test/cow/1.png")
    with refused("AS210", names=(root / "test", "cow", root / "train")):
        load(root)


def test_a_class_folder_without_images_is_refused(root: Path) -> None:
    (root / "train/cow").mkdir()
    (root / "train/cow/picture.heic").touch()
    with refused("AS208", names=(root / "train/cow",)):
        load(root)


def test_a_class_without_test_images_keeps_its_label(root: Path) -> None:
    shutil.rmtree(root / "test/ant")
    data = load(root)
    assert data.test.labels.tolist() == [1, 1, 1]
    assert data.classes == ["ant", "bee"]


def test_a_class_with_one_image_cannot_be_split(root: Path) -> None:
    save(root / "train/cow/1.png")
    with refused("AS218", names=("cow",)):
        load(root)
    with_validation = write_folder(root, ("val",))
    assert len(load(with_validation).train) == 7


def test_unreadable_files_are_refused_or_skipped(root: Path) -> None:
    whole = save(root / "whole.jpg", RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).read_bytes()
    bad = {
        "train/ant/corrupt.png": b"\x89PNG\r\n\x1a\nnot an image",
        "train/bee/empty.jpg": b"",
        "test/ant/cut.jpg": whole[: len(whole) // 2],
        "test/bee/text.gif": b"hello",
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    (root / "test/bee/gone.png").symlink_to("nowhere.png")
    os.mkfifo(root / "test/bee/pipe.png")
    shown = ("train/ant/corrupt.png", "train/bee/empty.jpg", "test/ant/cut.jpg")
    with refused("AS212", names=("6 of 18", *shown, "--skip-unreadable")):
        load(root)
    data = load(root, skip_unreadable=True)
    assert [line.split(" (")[0] for line in data.skipped] == [
        *["train/ant/corrupt.png", "train/bee/empty.jpg", "test/ant/cut.jpg"],
        *["test/bee/gone.png", "test/bee/pipe.png", "test/bee/text.gif"],
    ]
    assert all(line.endswith(")") and " ()" not in line for line in data.skipped), "with a reason"
    assert colors(data.test) == [100, 101, 102, 150, 151, 152]
    assert len(data.train) + len(data.validation) == 6


def test_a_class_without_readable_images_is_refused(root: Path) -> None:
    for file in (root / "train/bee").iterdir():
        file.write_bytes(b"")
    with refused("AS213", names=("bee", root / "train")):
        load(root, skip_unreadable=True)


def test_links_to_files_and_folders_are_followed(root: Path, tmp_path: Path) -> None:
    outside = save(tmp_path / "elsewhere/cow/1.png", 7)
    (root / "test/ant/link.png").symlink_to(outside)
    (root / "test/bee/more").symlink_to(outside.parent)
    assert colors(load(root).test) == [100, 101, 102, 7, 150, 151, 152, 7]
    save(outside.parent / "2.png", 8)
    for name in ("train", "test"):
        (root / name / "cow").symlink_to(outside.parent)
    assert load(root).classes == ["ant", "bee", "cow"]
    (tmp_path / "name").symlink_to(root)
    assert len(load(tmp_path / "name").test) == 11, "the image folder itself may be a link"


def test_a_link_without_a_target_is_an_unreadable_file(root: Path) -> None:
    (root / "test/ant/gone.png").symlink_to(root / "nowhere.png")
    (root / "test/ant/loop.png").symlink_to("loop.png")
    with refused("AS212", names=("2 of 14", "test/ant/gone.png", "test/ant/loop.png")):
        load(root)
    data = load(root, skip_unreadable=True)
    assert [line.split()[0] for line in data.skipped] == ["test/ant/gone.png", "test/ant/loop.png"]
    assert len(data.test) == 6


@pytest.mark.parametrize("target", ["test/ant", "test", "."])
def test_a_link_to_a_folder_that_contains_it_is_passed_over(root: Path, target: str) -> None:
    (root / "test/ant/again").symlink_to(root / target)
    data = load(root)
    assert len(data.test) == 6
    assert [line for line in data.notes if "test/ant/again" in line]


def test_hidden_files_are_ignored_and_nested_folders_are_read(root: Path) -> None:
    (root / "test/ant/._0.png").write_bytes(b"written by another operating system")
    (root / "test/ant/.thumbnails").mkdir()
    (root / "test/ant/.thumbnails/0.png").write_bytes(b"no image")
    (root / "train/.cache").mkdir()
    (root / "test/ant/notes.txt").write_text("no image")
    save(root / "test/ant/more/deep/9.png", 9)
    data = load(root)
    assert data.test.paths[3] == "test/ant/more/deep/9.png"
    assert len(data.test) == 7
    assert data.skipped == []


def test_a_file_name_that_is_not_utf8_is_refused(root: Path) -> None:
    """Files from a Latin-1 system can have such names, and a recording could not store them."""
    name = os.fsencode(min((root / "train").iterdir())) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as stream:
            Image.new("RGB", (8, 8)).save(stream, "PNG")
    except OSError:
        pytest.skip("this file system refuses such names")
    with refused("AS216", names=("caf",)):
        load_data(f"folder:{root}")


def test_the_default_size_is_that_of_small_square_images_else_224(root: Path) -> None:
    assert load(root, image_size=20).test.images.shape == (6, 3, 20, 20)
    for size, expected in ((96, 96), (97, 224)):
        for file in root.rglob("*.png"):
            save(file, np.zeros((size, size, 3), np.uint8))
        assert load(root).image_size == expected
    for file in root.rglob("*.png"):
        save(file, np.zeros((30, 40, 3), np.uint8))
    assert load(root).image_size == 224


@pytest.mark.parametrize("name", ["test/ant", "train/ant/more", "train"])
def test_a_folder_that_cannot_be_read_is_refused_or_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (root / "train" / "ant" / "more").mkdir()
    whole = load(root)
    # Root may read everything, so a test that runs as root cannot use permissions.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root / name)
    with refused("AS215", names=(root / name,)):
        load(root)
    if name == "train":
        with refused("AS215", names=(root / name,)):
            load(root, skip_unreadable=True)
        return
    data = load(root, skip_unreadable=True)
    assert [line.split()[0] for line in data.skipped] == [name]
    assert not any(name in path for path in data.test.paths)
    assert len(data.test) < len(whole.test) or name != "test/ant"
