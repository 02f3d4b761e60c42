"""scikit-learn's digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnscope.data.images import batches
from attnscope.data.load import Data, DataSettings, load_data
from tests.data.making import same


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=16)


def test_digits(digits: Data) -> None:
    parts = [digits.train, digits.validation, digits.test]
    assert [len(p) for p in parts] == [1295, 143, 359]
    assert digits.classes == [str(i) for i in range(10)]
    assert not digits.may_flip
    paths = [path for part in parts for path in part.paths]
    assert len(set(paths)) == len(paths) == 1797, "disjoint and whole"
    for part, share in zip(parts, (0.72, 0.08, 0.2), strict=True):
        counts = torch.bincount(part.labels) / (share * 179.7)
        assert ((counts > 0.85) & (counts < 1.15)).all(), "stratified"
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (len(part), 3, 16, 16)


def test_digits_are_scikit_learns(digits: Data) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    for part in (digits.train, digits.validation, digits.test):
        rows = [int(path.removeprefix("digits/")) for path in part.paths]
        np.testing.assert_array_equal(part.labels.numpy(), source.target[rows])
        # Twice the size: the mean of 2×2 pixels in the middle of four is between the four.
        row = rows[0]
        picture = part.images[0, 0].numpy().astype(float) * 16 / 255
        assert abs(picture.mean() - source.images[row].mean()) < 0.1
        assert (part.images[0, 0] == part.images[0, 2]).all()


def test_the_split_follows_the_seed_and_the_test_part_does_not(digits: Data) -> None:
    again, other = load_data("digits", image_size=16), load_data("digits", image_size=16, seed=1)
    for name in ("train", "validation", "test"):
        assert same(getattr(digits, name), getattr(again, name))
    assert same(digits.test, other.test)
    assert set(digits.validation.paths) != set(other.validation.paths)
    assert len(other.validation) == len(digits.validation)


def test_batches_are_in_order(digits: Data) -> None:
    found = list(batches(digits.test, 100))
    assert [len(y) for _, y in found] == [100, 100, 100, 59]
    assert torch.equal(torch.cat([x for x, _ in found]), digits.test.images)
    assert torch.equal(torch.cat([y for _, y in found]), digits.test.labels)


def test_rows_are_chosen(digits: Data) -> None:
    part = digits.test[np.array([5, 2])]
    assert part.paths == [digits.test.paths[5], digits.test.paths[2]]
    assert torch.equal(part.images[1], digits.test.images[2])
    assert digits.test[2:4].paths == digits.test.paths[2:4]


def test_the_test_part_of_digits() -> None:
    part, skipped = DataSettings("digits", image_size=16).load_test()
    whole = load_data("digits", image_size=16, seed=3)
    assert torch.equal(part.images, whole.test.images)
    assert (part.paths, skipped) == (whole.test.paths, [])
