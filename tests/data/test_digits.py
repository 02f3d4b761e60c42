"""The digits of scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from attnscope.data.images import batches
from attnscope.data.load import Data, DataSettings, load_data
from tests.data.making import same


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=16)


def test_splits_are_disjoint_complete_and_stratified(digits: Data) -> None:
    splits = [digits.train, digits.validation, digits.test]
    assert [len(split) for split in splits] == [1295, 143, 359]
    assert digits.classes == [str(i) for i in range(10)]
    assert not digits.may_flip
    paths = [path for split in splits for path in split.paths]
    assert len(set(paths)) == len(paths) == 1797
    for split, share in zip(splits, (0.72, 0.08, 0.2), strict=True):
        counts = torch.bincount(split.labels) / (share * 179.7)
        assert ((counts > 0.85) & (counts < 1.15)).all()
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), 3, 16, 16)


def test_labels_and_pixels_are_those_of_scikit_learn(digits: Data) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    for split in (digits.train, digits.validation, digits.test):
        rows = [int(path.removeprefix("digits/")) for path in split.paths]
        np.testing.assert_array_equal(split.labels.numpy(), source.target[rows])
        # Interpolation to twice the size preserves the mean.
        row = rows[0]
        pixels = split.images[0, 0].numpy().astype(float) * 16 / 255
        assert abs(pixels.mean() - source.images[row].mean()) < 0.1
        assert (split.images[0, 0] == split.images[0, 2]).all()


def test_the_seed_changes_the_validation_split_but_not_the_test_split(digits: Data) -> None:
    again, other = load_data("digits", image_size=16), load_data("digits", image_size=16, seed=1)
    for name in ("train", "validation", "test"):
        assert same(getattr(digits, name), getattr(again, name))
    assert same(digits.test, other.test)
    assert set(digits.validation.paths) != set(other.validation.paths)
    assert len(other.validation) == len(digits.validation)


def test_batches_cover_the_images_in_order(digits: Data) -> None:
    found = list(batches(digits.test, 100))
    assert [len(y) for _, y in found] == [100, 100, 100, 59]
    assert torch.equal(torch.cat([x for x, _ in found]), digits.test.images)
    assert torch.equal(torch.cat([y for _, y in found]), digits.test.labels)


def test_rows_are_selected_by_array_and_slice(digits: Data) -> None:
    rows = digits.test[np.array([5, 2])]
    assert rows.paths == [digits.test.paths[5], digits.test.paths[2]]
    assert torch.equal(rows.images[1], digits.test.images[2])
    assert digits.test[2:4].paths == digits.test.paths[2:4]


def test_a_row_is_an_image_with_its_label_as_in_data_sets_of_torch(digits: Data) -> None:
    split: Any = digits.test
    for row in (5, -3, np.int64(7), torch.tensor(9)):
        image, label = split[row]
        assert torch.equal(image, split.images[row])
        assert type(label) is int
        assert label == split.labels[row]
    with pytest.raises(IndexError):
        split[len(split)]
    assert len(split[torch.tensor([9])]) == 1, "an array of one row selects images"
    pairs = list(split)
    assert len(pairs) == len(split) > 128
    assert torch.equal(torch.stack([image for image, _ in pairs]), split.images)
    assert [label for _, label in pairs] == split.labels.tolist()
    loaded = list(DataLoader(split, 100))
    assert torch.equal(torch.cat([images for images, _ in loaded]), split.images)
    assert torch.equal(torch.cat([labels for _, labels in loaded]), split.labels)


def test_the_test_split_is_the_same_when_loaded_alone() -> None:
    found = DataSettings("digits", image_size=16).load_test()
    (split,), skipped = found.splits, found.skipped
    whole = load_data("digits", image_size=16, seed=3)
    assert torch.equal(split.images, whole.test.images)
    assert (split.paths, skipped) == (whole.test.paths, [])


def test_reprs_count_images_and_classes(digits: Data) -> None:
    assert repr(digits.test) == "<LabeledImages: 359 images of 16×16 pixels, 10 classes>"
    assert repr(digits.test[:1]) == "<LabeledImages: 1 image of 16×16 pixels, 10 classes>"
    assert repr(digits) == (
        "<Data 'digits': train 1,295, validation 143, test 359 images of 16×16 pixels, 10 classes>"
    )
    with_skipped = repr(replace(digits, skipped=["a.png (empty file)", "b.png (empty file)"]))
    assert with_skipped.endswith("10 classes, 2 skipped>")
