"""Fingerprints notice which images of a split are other ones, and name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attnscope.data.fingerprints import (
    Fingerprints,
    differences_between,
    pixel_hash,
    read_fingerprints,
    write_fingerprints,
)
from attnscope.data.images import LabeledImages
from tests.making import refused


def made(names: str, classes: str = "", pixels: tuple[int, ...] = ()) -> Fingerprints:
    """Fingerprints of images with names, classes and hashes of one letter or number each."""
    return Fingerprints(
        list(names),
        list(classes or "x" * len(names)),
        np.array(pixels or range(len(names)), np.uint64),
    )


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (made("abcd"), []),
        (made("acd", pixels=(0, 2, 3)), ["1 image is missing (b)"]),
        (made("abcdef"), ["2 images were added (e, f)"]),
        (made("abcd", pixels=(0, 1, 9, 3)), ["1 image has other pixels (c)"]),
        (made("abcd", "xyxx"), ["1 image has another class (b)"]),
        (made("abdc", pixels=(0, 1, 3, 2)), ["the order of the images is another one"]),
        # Two images changed places.
        (made("abcd", pixels=(0, 2, 1, 3)), ["2 images have other pixels (b, c)"]),
        (
            made("zyxwv", pixels=(0, 1, 2, 3, 4)),
            ["4 images are missing (a, b, c, ...)", "5 images were added (z, y, x, ...)"],
        ),
    ],
    ids=["equal", "missing", "added", "replaced", "class", "order", "swapped", "all"],
)
def test_each_kind_of_change_is_counted_and_named(now: Fingerprints, expected: list[str]) -> None:
    assert made("abcd").differences(now) == expected


def test_names_with_control_codes_are_escaped() -> None:
    (phrase,) = made("\x1b\n").differences(made("\x1b", pixels=(0,)))
    assert phrase.isprintable()
    assert "\\n" in phrase


def test_an_image_that_was_removed_is_named_alone_though_the_splits_are_drawn_anew() -> None:
    before = {"train": made("abcd"), "validation": made("ef", pixels=(4, 5))}
    # Without c, other images are held out.
    now = {
        "train": made("adef", pixels=(0, 3, 4, 5)),
        "validation": made("b", pixels=(1,)),
    }
    (found,) = differences_between(before, now)
    assert "1 image is missing (c)" in found
    # The same images in other splits are a change of the splits.
    moved = {"train": made("abce", pixels=(0, 1, 2, 4)), "validation": made("df", pixels=(3, 5))}
    assert len(differences_between(before, moved)) == 2
    assert differences_between(before, before) == []
    # A split alone is compared with itself.
    assert differences_between(before, {"validation": before["validation"]}) == []


def test_a_hash_depends_on_every_pixel_and_on_the_shape() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    hashes = {pixel_hash(pixels), pixel_hash(pixels.reshape(3, 5, 4))}
    for place in range(pixels.size):
        other = pixels.copy()
        other.flat[place] ^= 1
        hashes.add(pixel_hash(other))
    assert len(hashes) == pixels.size + 2


def test_hashes_follow_selected_images_and_keep_what_was_read() -> None:
    pixels = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    images = LabeledImages(pixels, torch.tensor([0, 1, 0, 1, 1]), list("abcde"), ["x", "y"])
    expected = np.array([pixel_hash(one.numpy()) for one in pixels], np.uint64)
    assert (images.pixel_hashes() == expected).all()
    known = LabeledImages(pixels, images.labels, images.paths, images.classes, expected + 1)
    rows = np.array([3, 0])
    assert (images[rows].pixel_hashes() == expected[rows]).all()
    assert (known[rows].center_crop(4).pixel_hashes() == expected[rows] + 1).all()
    assert (images.center_crop(4).pixel_hashes() != expected).all()
    assert Fingerprints.of(known).classes == ["x", "y", "x", "y", "y"]


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    splits = {
        "train": made("abc", "xyx", (2**64 - 1, 0, 2**63)),
        "test": made("aé", "xy", (5, 6)),
    }
    write_fingerprints(tmp_path / "f.parquet", splits)
    found = read_fingerprints(tmp_path / "f.parquet")
    assert list(found) == ["train", "test"]
    assert differences_between(splits, found) == []
    assert found["train"].pixels.tolist() == [2**64 - 1, 0, 2**63]


@pytest.mark.parametrize("damage", ["cut", "words", "folder", "columns"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "f.parquet"
    if damage == "folder":
        file.mkdir()
    elif damage == "words":
        file.write_text("not a table")
    elif damage == "columns":
        pa = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        pa.write_table(pyarrow.table({"split": ["train"]}), file)
    else:
        write_fingerprints(file, {"test": made("ab")})
        file.write_bytes(file.read_bytes()[:-20])
    with refused("AS245", names=(file,)):
        read_fingerprints(file)
