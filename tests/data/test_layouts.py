"""Layouts of image folders: names of splits, folders without splits, and what is passed over."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from attnscope.data.load import DataSettings
from tests.data.making import load, save, write_folder
from tests.making import refused


def write_flat(root: Path, count: int = 10) -> Path:
    for c, name in enumerate(("ant", "bee", "cow")):
        for i in range(count):
            save(root / name / f"{i}.png", 20 * c + i)
    return root


@pytest.mark.parametrize(
    ("folders", "validation", "test"),
    [
        (("train", "valid", "test"), "valid", "test"),
        (("train", "validation"), "train", "validation"),
        (("Training", "Testing"), "Training", "Testing"),
        (("TRAIN", "dev", "Test"), "dev", "Test"),
    ],
)
def test_splits_have_the_usual_names(
    tmp_path: Path, folders: tuple[str, ...], validation: str, test: str
) -> None:
    data = load(write_folder(tmp_path, folders))
    assert {p.split("/")[0] for p in data.train.paths} == {folders[0]}
    assert {p.split("/")[0] for p in data.validation.paths} == {validation}
    assert {p.split("/")[0] for p in data.test.paths} == {test}
    assert len(data.train) + len(data.validation) + len(data.test) == 6 * len(folders)


@pytest.mark.parametrize("two", [("val", "valid"), ("train", "training"), ("test", "Test")])
def test_two_folders_for_one_split_are_refused(tmp_path: Path, two: tuple[str, str]) -> None:
    folders = sorted({"train", "test", *two})
    for name in folders:
        save(tmp_path / name / "ant" / "0.png")
    if len(list(tmp_path.iterdir())) < len(folders):
        pytest.skip("this file system does not distinguish capitals")
    with refused("AS207", names=tuple(f"{name}/" for name in two)):
        load(tmp_path)


def test_a_folder_of_classes_is_split(tmp_path: Path) -> None:
    data = load(write_flat(tmp_path))
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    paths = [path for split in splits.values() for path in split.paths]
    assert len(paths) == len(set(paths)) == 30
    for split in splits.values():
        assert set(split.labels.tolist()) == {0, 1, 2}
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            assert split.classes[label] == path.split("/")[0]
    assert Counter(data.test.labels.tolist()) == {0: 2, 1: 2, 2: 2}
    assert "6 of its 30" in data.notes[0]
    ants = [f"ant/{i}.png" for i in range(10)]
    first = sorted(ants, key=lambda path: sha256(path.encode()).digest())[:2]
    assert data.test.paths[:2] == sorted(first), "those with the lowest hashes"
    alone = DataSettings(f"folder:{tmp_path}", seed=7).load_test()
    assert alone.splits[0].paths == data.test.paths, "the test split does not depend on the seed"
    # An image of another name moves no image of another class, and hardly any of its own.
    save(tmp_path / "ant/new.png", 90)
    after = set(load(tmp_path).test.paths)
    assert len(set(data.test.paths) - after) <= 1


def test_a_class_with_one_image_cannot_be_in_two_splits(tmp_path: Path) -> None:
    save(write_flat(tmp_path) / "dog/1.png")
    with refused("AS228", names=("dog", tmp_path)):
        load(tmp_path)


def test_folders_that_look_like_splits_are_no_classes(tmp_path: Path) -> None:
    for name in ("train_images", "test_images"):
        save(tmp_path / name / "ant" / "1.png")
    with refused("AS205", names=(tmp_path, "train_images")):
        load(tmp_path)


def test_whatever_is_passed_over_is_counted_and_named(root: Path) -> None:
    (root / "test/ant/labels.txt").write_text("ant")
    (root / "test/bee/LICENSE").write_text("You may use these images.")
    (root / "test/ant/phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    save(root / "test/loose.png")
    save(root / "extra/ant/0.png")
    save(root / "test/ant/.ipynb_checkpoints/0-checkpoint.png")
    (root / "train/__MACOSX").mkdir()
    (root / "train/.DS_Store").touch()
    (root / "test/ant/new\nline.txt").touch()
    data = load(root)
    assert data.classes == ["ant", "bee"]
    assert len(data.test) == 6
    lines = {line.rpartition(": ")[2]: line for line in data.notes}
    for names, count in {
        "test/ant/labels.txt, test/ant/new\\nline.txt, test/bee/LICENSE": 3,
        "test/ant/phone.heic": 1,
        "test/loose.png": 1,
        "extra": 1,
        "test/ant/.ipynb_checkpoints": 1,
        "train/__MACOSX": 1,
    }.items():
        assert f" {count} " in lines.pop(names)
    assert not lines


def test_images_are_told_by_content_if_they_have_no_suffix(root: Path) -> None:
    for i, kind in enumerate(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")):
        save(root / "test/bee" / f"download{i}", i, format=kind)
    save(root / "test/bee/web.jfif", 9, format="JPEG")
    save(root / "test/bee/PHOTO.JPG", 9)
    data = load(root)
    assert len(data.test) == 14
    assert data.notes == []


def test_avif_is_read_where_pillow_reads_it(root: Path) -> None:
    try:
        save(root / "test/bee/new.avif", 9)
    except (KeyError, OSError, ValueError):
        pytest.skip("this Pillow writes no AVIF")
    assert len(load(root).test) == 7
