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

from attnscope.data import images as data_images
from attnscope.data.load import DataSettings, load_data
from tests.data.making import RNG, fill, load, refused, save, values


@pytest.mark.parametrize(
    "options", [{}, {"image_size": 8, "resize": 10}, {"image_size": 16, "skip_unreadable": True}]
)
def test_the_test_part_alone(root: Path, options: dict[str, Any]) -> None:
    whole = load(root, **options)
    part, skipped = DataSettings(f"folder:{root}", **options).load_test()
    assert torch.equal(part.images, whole.test.images)
    assert torch.equal(part.labels, whole.test.labels)
    assert (part.paths, part.classes, skipped) == (whole.test.paths, whole.classes, [])
    if "image_size" in options:  # else its size is that of all images
        (root / "train" / "ant" / "0.png").write_bytes(b"no picture")
        part, skipped = DataSettings(f"folder:{root}", **options).load_test()
        assert torch.equal(part.images, whole.test.images)
        assert skipped == []
    (root / "test" / "ant" / "0.png").write_bytes(b"no picture")
    if options.get("skip_unreadable"):
        part, skipped = DataSettings(f"folder:{root}", **options).load_test()
        assert part.paths == whole.test.paths[1:]
        assert len(skipped) == 1
    else:
        refused(lambda: DataSettings(f"folder:{root}", **options).load_test(), "1 of 6 images")
    refused(lambda: DataSettings("folders"), "data source 'folders' is not known")


def test_a_folder_of_two_parts(root: Path) -> None:
    data = load(root, validation_share=0.3)
    assert data.classes == ["ant", "bee"]
    assert data.image_size == 12, "small images of one size keep it"
    assert data.test.paths == [f"test/{c}/{i}.png" for c in ("ant", "bee") for i in range(3)]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert values(data.test) == [100, 101, 102, 150, 151, 152]
    assert sorted(values(data.train) + values(data.validation)) == [0, 1, 2, 50, 51, 52]
    assert len(data.validation) == 2
    assert data.skipped == []


@pytest.mark.parametrize(
    ("parts", "validation", "test"),
    [
        (("train", "val", "test"), "val", "test"),
        (("train", "eval", "test"), "eval", "test"),
        (("train", "val", "eval"), "val", "eval"),
        (("train", "eval"), "train", "eval"),
        (("train", "val"), "train", "val"),
    ],
)
def test_parts(tmp_path: Path, parts: tuple[str, ...], validation: str, test: str) -> None:
    data = load(fill(tmp_path, parts))
    assert {p.split("/")[0] for p in data.train.paths} == {"train"}
    assert {p.split("/")[0] for p in data.validation.paths} == {validation}
    assert {p.split("/")[0] for p in data.test.paths} == {test}
    assert len(data.train) == (4 if validation == "train" else 6)


def test_folders_that_cannot_be_used(root: Path) -> None:
    shutil.copytree(root / "test", root / "val")
    shutil.copytree(root / "test", root / "eval")
    refused(lambda: load(root), "has val/, eval/ and test/; remove one")
    for name in ("val", "eval"):
        shutil.rmtree(root / name)
    (root / "test").rename(root / "holdout")
    refused(lambda: load(root), "has no folder test/, val/ or eval/ beside train/; make one")
    (root / "holdout").rename(root / "test")
    (root / "train").rename(root / "training")
    refused(lambda: load(root), "has no folder train/; it must hold train/<class>/")


def test_a_folder_without_images(root: Path) -> None:
    for folder in (root / "train/ant", root / "train/bee"):
        shutil.rmtree(folder)
    refused(lambda: load(root), "train holds no image; it needs two folders of images or more")
    save(root / "train/loose.png")
    refused(lambda: load(root), "train holds no image")
    fill(root, ("train",))
    shutil.rmtree(root / "test")
    (root / "test/ant").mkdir(parents=True)
    refused(lambda: load(root), "test holds no image; it needs <class>/<image> files")


def test_a_folder_with_one_class(root: Path) -> None:
    shutil.rmtree(root / "train/bee")
    refused(lambda: load(root), "train holds one class, ant; it needs two")


def test_a_class_that_train_lacks(root: Path) -> None:
    save(root / "test/cow/1.png")
    refused(lambda: load(root), "test has the class cow, which train/ has not")


def test_a_class_without_images_is_not_dropped_quietly(root: Path) -> None:
    (root / "train/cow").mkdir()
    (root / "train/cow/picture.heic").touch()
    refused(lambda: load(root), "train/cow holds no image; add some or remove the folder")


def test_a_class_that_the_test_part_lacks_keeps_its_label(root: Path) -> None:
    shutil.rmtree(root / "test/ant")
    data = load(root)
    assert data.test.labels.tolist() == [1, 1, 1]
    assert data.classes == ["ant", "bee"]


def test_a_class_with_one_image_cannot_be_split(root: Path) -> None:
    save(root / "train/cow/1.png")
    refused(lambda: load(root), "class cow has one training image only")
    assert len(load(fill(root, ("val",))).train) == 7, "nothing is to be split"


def test_files_that_cannot_be_read(root: Path) -> None:
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
    refused(
        lambda: load(root),
        "6 of 18 images cannot be read: train/ant/corrupt.png (cannot identify image file); "
        "train/bee/empty.jpg (empty file); test/ant/cut.jpg (",
        "; ...; mend them, or go on without them with --skip-unreadable",
    )
    data = load(root, skip_unreadable=True)
    assert [line.split(" (")[0] for line in data.skipped] == [
        *["train/ant/corrupt.png", "train/bee/empty.jpg", "test/ant/cut.jpg"],
        *["test/bee/gone.png", "test/bee/pipe.png", "test/bee/text.gif"],
    ]
    assert data.skipped[3].endswith("(no regular file)")
    assert values(data.test) == [100, 101, 102, 150, 151, 152]
    assert len(data.train) + len(data.validation) == 6


def test_a_class_without_a_readable_image(root: Path) -> None:
    for file in (root / "train/bee").iterdir():
        file.write_bytes(b"")
    refused(
        lambda: load(root, skip_unreadable=True), "class bee of", "has no readable image; add some"
    )


def test_links(root: Path, tmp_path: Path) -> None:
    inside = root / "test/ant/link.png"
    inside.symlink_to(root / "test/ant/0.png")
    assert values(load(root).test) == [100, 101, 102, 100, 150, 151, 152]
    inside.unlink()
    outside = save(tmp_path / "elsewhere/cow/1.png")
    (root / "test/ant/link.png").symlink_to(outside)
    refused(lambda: load(root), "test/ant/link.png leads outside", "replace the link by the file")
    (root / "test/ant/link.png").unlink()
    (root / "train/cow").symlink_to(outside.parent)
    refused(lambda: load(root), "train/cow/1.png leads outside")
    (root / "train/cow").unlink()
    (root / "train/ant/more").symlink_to(root / "train/bee")
    refused(lambda: load(root), "train/ant/more is a link to a folder; replace it by the folder")
    (root / "train/ant/more").unlink()
    (root / "train/ant/loop.png").symlink_to("loop.png")
    refused(lambda: load(root), "train/ant/loop.png (no regular file)")
    (root / "train/ant/loop.png").unlink()
    (tmp_path / "name").symlink_to(root)
    assert len(load(tmp_path / "name").test) == 6, "the folder itself may be a link"


def test_hidden_files_and_nested_folders(root: Path) -> None:
    (root / "test/ant/._0.png").write_bytes(b"left by another system")
    (root / "test/ant/.thumbnails").mkdir()
    (root / "test/ant/.thumbnails/0.png").write_bytes(b"nor this")
    (root / "train/.cache").mkdir()
    (root / "test/ant/notes.txt").write_text("no image")
    save(root / "test/ant/more/deep/9.png", 9)
    data = load(root)
    assert data.test.paths[3] == "test/ant/more/deep/9.png"
    assert len(data.test) == 7
    assert data.skipped == []


def test_a_name_that_is_no_utf8_is_told(root: Path) -> None:
    """As of a Latin-1 system: it could be trained on, and no recording could name it."""
    name = os.fsencode(min((root / "train").iterdir())) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as stream:
            Image.new("RGB", (8, 8)).save(stream, "PNG")
    except OSError:
        pytest.skip("this file system refuses such names")
    refused(lambda: load_data(f"folder:{root}"), "is not UTF-8", "rename the file")


def test_sizes(root: Path) -> None:
    assert load(root, image_size=20).test.images.shape == (6, 3, 20, 20)
    for size, expected in ((96, 96), (97, 224)):
        for file in root.rglob("*.png"):
            save(file, np.zeros((size, size, 3), np.uint8))
        assert load(root).image_size == expected
    for file in root.rglob("*.png"):
        save(file, np.zeros((30, 40, 3), np.uint8))
    assert load(root).image_size == 224


def test_more_than_the_memory_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_images, "_MEMORY_LIMIT", 12 * 3 * 12 * 12 - 1)
    refused(lambda: load(root), "12 images of 12×12 need", "take a smaller --image-size")
    monkeypatch.setattr(data_images, "_MEMORY_LIMIT", 12 * 3 * 12 * 12)
    load(root)
