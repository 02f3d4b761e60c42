"""Predictions before and after an edit, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.removal import removal_effect

BEFORE = np.array([[2, 0, 0], [2, 0, 0], [0, 2, 0], [2, 0, 0]], np.float32)
AFTER = np.array([[2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 2, 0]], np.float32)
LABELS = np.array([0, 0, 1, 1])


def test_accuracy_and_classes_are_counted():
    found = removal_effect(BEFORE, AFTER, LABELS)
    assert (found.images, found.accuracy, found.change, found.changed) == (4, 0.75, 0, 2)
    was, now = np.array([1, 1, 1, 0], bool), np.array([1, 0, 1, 1], bool)
    assert (found.change, found.low, found.high) == paired_accuracy_change(was, now)
    table = found.classes
    assert list(table["images"]) == [2, 2, 0]
    assert list(table["before"]) == [2, 1, 0]
    assert list(table["after"]) == [1, 2, 0]


def test_probabilities_are_averaged_inside_and_outside_of_each_class():
    table = removal_effect(BEFORE, AFTER, LABELS).classes
    moved = softmax(AFTER, 1) - softmax(BEFORE, 1)
    assert table["probability"][:2].tolist() == pytest.approx(
        [moved[:2, 0].mean(), moved[2:, 1].mean()]
    )
    assert np.isnan(table["probability"][2])
    assert table["elsewhere"].tolist() == pytest.approx(
        [moved[2:, 0].mean(), moved[:2, 1].mean(), moved[:, 2].mean()]
    )


def test_an_edit_without_effect_changes_nothing():
    found = removal_effect(BEFORE, BEFORE, LABELS)
    assert (found.change, found.changed) == (0, 0)
    assert found.low < 0 < found.high
    assert (found.classes["probability"].dropna() == 0).all()
