"""Stratified splits."""

from __future__ import annotations

import numpy as np

from attnscope.data.splits import stratified_split


def test_at_least_one_image_of_each_class_is_held_out_and_kept() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    for share, counts in ((0.01, [1, 1]), (0.5, [1, 2]), (0.99, [1, 3])):
        kept, out = stratified_split(labels, ["a", "b"], share, seed=0)
        assert sorted([*kept, *out]) == list(range(6))
        assert np.bincount(labels[out]).tolist() == counts
        assert set(labels[kept]) == {0, 1}
